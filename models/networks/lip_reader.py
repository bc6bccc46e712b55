"""What the lips of a picture do: mouth region -> 14 mouth numbers, as trained by `training.lip_reader`."""

from __future__ import annotations

from torch import Tensor, nn

SIDE = 96
NUMBERS = 14


class LipReader(nn.Module):
    """Crops -> mouth numbers in units of their spread over the training frames."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 24, 48, 96, 128)
        layers: list[nn.Module] = []
        for inputs, outputs in zip(widths, widths[1:], strict=False):
            layers += [nn.Conv2d(inputs, outputs, 3, 2, 1), nn.BatchNorm2d(outputs), nn.ReLU()]
        self.features = nn.Sequential(*layers, nn.Conv2d(128, 128, 3, 1, 1), nn.BatchNorm2d(128), nn.ReLU())
        self.head = nn.Sequential(nn.Flatten(), nn.Dropout(0.3), nn.Linear(128 * 3 * 4, NUMBERS))

    def forward(self, crops: Tensor) -> Tensor:
        """Read crops, float [B, 3, S, S] RGB in [0, 1] -> [B, 14]; other sides than 96 are brought to it."""
        if crops.shape[-1] != SIDE:
            crops = nn.functional.interpolate(crops, (SIDE, SIDE), mode="bilinear", antialias=True)
        return self.head(self.features(crops[:, :, 48:, 16:80] * 2 - 1))
