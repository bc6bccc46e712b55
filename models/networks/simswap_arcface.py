"""SimSwap's face recogniser, an IR-SE-101 (specification section 3.8); key layout of the public files."""

from __future__ import annotations

from torch import Tensor, nn

INPUT_SIZE = 112
DEPTHS = (3, 4, 23, 3)
_CHANNELS = (64, 128, 256, 512)
_REDUCTION = 16


class SqueezeExcite(nn.Module):
    """Channels weighted by a small network that sees their means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        hidden = max(1, channels // _REDUCTION)
        self.fc = nn.Sequential(nn.Linear(channels, hidden), nn.PReLU(), nn.Linear(hidden, channels), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        """[B,C,H,W] -> same shape."""
        return x * self.fc(x.mean((2, 3)))[..., None, None]


class IRSEBlock(nn.Module):
    """Residual unit with squeeze and excitation; one PReLU with one slope serves twice, the second time on the sum."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn0 = nn.BatchNorm2d(inputs)
        self.conv1 = nn.Conv2d(inputs, inputs, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inputs)
        self.prelu = nn.PReLU()
        self.conv2 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.se = SqueezeExcite(outputs)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """[B,inputs,H,W] -> [B,outputs,H/stride,W/stride]."""
        skip = x if self.downsample is None else self.downsample(x)
        x = self.prelu(self.bn1(self.conv1(self.bn0(x))))
        return self.prelu(self.se(self.bn2(self.conv2(x))) + skip)


class SimSwapArcFace(nn.Module):
    """Aligned face to an (un-normalised) embedding; not the embedding space of insightface's ArcFace.

    Args:
        width: factor on the channels 64/128/256/512; 1 is the public layout (52.2 M parameters).
        dim: length of the embedding.
    """

    def __init__(self, width: float = 1.0, dim: int = 512) -> None:
        super().__init__()
        channels = [round(c * width) for c in _CHANNELS]
        self.conv1 = nn.Conv2d(3, channels[0], 3, bias=False)
        self.bn1 = nn.BatchNorm2d(channels[0])
        self.prelu = nn.PReLU()
        self.maxpool = nn.MaxPool2d(2, 2)
        inputs = channels[0]
        for i, (outputs, depth) in enumerate(zip(channels, DEPTHS, strict=True), 1):
            units = [IRSEBlock(inputs, outputs, 1 if i == 1 else 2)]
            units += [IRSEBlock(outputs, outputs, 1) for _ in range(depth - 1)]
            self.add_module(f"layer{i}", nn.Sequential(*units))
            inputs = outputs
        self.bn2 = nn.BatchNorm2d(inputs)
        self.dropout = nn.Dropout()
        self.fc = nn.Linear(inputs * 7 * 7, dim)
        self.bn3 = nn.BatchNorm1d(dim)

    def forward(self, x: Tensor) -> Tensor:
        """Embed aligned faces.

        Args:
            x: [B,3,112,112] float RGB, ImageNet-normalised, see `models.simswap_identity`.

        Returns:
            [B,dim] float, not normalised.

        Raises:
            ValueError: if the shape is not [B,3,112,112].
        """
        if x.ndim != 4 or tuple(x.shape[1:]) != (3, INPUT_SIZE, INPUT_SIZE):
            raise ValueError(f"SimSwap's recogniser expects [B,3,{INPUT_SIZE},{INPUT_SIZE}], got {list(x.shape)}.")
        x = self.maxpool(self.prelu(self.bn1(self.conv1(x))))
        for i in range(1, len(DEPTHS) + 1):
            x = getattr(self, f"layer{i}")(x)
        return self.bn3(self.fc(self.dropout(self.bn2(x)).flatten(1)))
