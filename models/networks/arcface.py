"""IResNet face recogniser (ArcFace, CosFace), with the public key layout of insightface's arcface_torch.

Specification: section 3.6. Deng et al. 2019 (ArcFace); "improved" residual units of Duta et al. 2020.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

INPUT_SIZE = 112
DEPTHS: dict[str, tuple[int, ...]] = {
    "iresnet18": (2, 2, 2, 2),
    "iresnet34": (3, 4, 6, 3),
    "iresnet50": (3, 4, 14, 3),
    "iresnet100": (3, 13, 30, 3),
}
_STAGE_CHANNELS = (64, 128, 256, 512)


class IBlock(nn.Module):
    """Residual unit BN, conv, BN, PReLU, strided conv, BN; the sum is not activated."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(cin)
        self.conv1 = nn.Conv2d(cin, cout, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(cout)
        self.prelu = nn.PReLU(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, stride, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(cout)
        self.downsample: nn.Module | None = None
        if stride != 1 or cin != cout:
            self.downsample = nn.Sequential(nn.Conv2d(cin, cout, 1, stride, bias=False), nn.BatchNorm2d(cout))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [B,cin,H,W] to [B,cout,H/stride,W/stride]."""
        skip = x if self.downsample is None else self.downsample(x)
        x = self.prelu(self.bn2(self.conv1(self.bn1(x))))
        return self.bn3(self.conv2(x)) + skip


class IResNet(nn.Module):
    """Face recogniser: aligned 112 px face to an (un-normalised) embedding.

    Args:
        blocks: residual units of the four stages, e.g. (2, 2, 2, 2).
        width: factor on the stage widths 64/128/256/512; the key layout stays.
        dim: length of the embedding.

    Raises:
        ValueError: if `blocks` has not four positive entries or `width` leaves no channels.
    """

    def __init__(self, blocks: Sequence[int], width: float = 1.0, dim: int = 512) -> None:
        super().__init__()
        channels = [round(c * width) for c in _STAGE_CHANNELS]
        if len(blocks) != 4 or min(blocks) < 1 or min(channels) < 1 or dim < 1:
            raise ValueError(
                f"IResNet got blocks={tuple(blocks)}, width={width}, dim={dim}; "
                "it needs four positive block counts, a width of at least 1/64 and a positive dim."
            )
        self.blocks, self.width, self.dim = tuple(blocks), width, dim
        self.conv1 = nn.Conv2d(3, channels[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels[0])
        self.prelu = nn.PReLU(channels[0])
        self.layer1 = _stage(channels[0], channels[0], blocks[0])
        self.layer2 = _stage(channels[0], channels[1], blocks[1])
        self.layer3 = _stage(channels[1], channels[2], blocks[2])
        self.layer4 = _stage(channels[2], channels[3], blocks[3])
        self.bn2 = nn.BatchNorm2d(channels[3])
        self.dropout = nn.Dropout(0.0)  # no keys; trainers may raise p
        self.fc = nn.Linear(channels[3] * (INPUT_SIZE // 16) ** 2, dim)
        self.features = nn.BatchNorm1d(dim)
        nn.init.ones_(self.features.weight)
        self.features.weight.requires_grad_(False)  # the margin losses fix the embedding's scale
        self._initialise()

    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Embed aligned faces.

        Args:
            x: [B,3,112,112] float RGB in [-1,1], aligned to the ArcFace template.

        Returns:
            [B,dim] float, not normalised.

        Raises:
            ValueError: if the shape is not [B,3,112,112].
        """
        if x.ndim != 4 or tuple(x.shape[1:]) != (3, INPUT_SIZE, INPUT_SIZE):
            raise ValueError(f"IResNet expects aligned faces [B,3,{INPUT_SIZE},{INPUT_SIZE}], got {list(x.shape)}.")
        x = self.prelu(self.bn1(self.conv1(x)))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        x = self.dropout(self.bn2(x).flatten(1))
        return self.features(self.fc(x))


def _stage(cin: int, cout: int, count: int) -> nn.Sequential:
    return nn.Sequential(IBlock(cin, cout, 2), *(IBlock(cout, cout, 1) for _ in range(count - 1)))


def iresnet18(width: float = 1.0, dim: int = 512) -> IResNet:
    """IResNet-18: 24.0 M parameters at width 1."""
    return IResNet(DEPTHS["iresnet18"], width, dim)


def iresnet34(width: float = 1.0, dim: int = 512) -> IResNet:
    """IResNet-34: 34.1 M parameters at width 1."""
    return IResNet(DEPTHS["iresnet34"], width, dim)


def iresnet50(width: float = 1.0, dim: int = 512) -> IResNet:
    """IResNet-50: 43.6 M parameters at width 1."""
    return IResNet(DEPTHS["iresnet50"], width, dim)


def iresnet100(width: float = 1.0, dim: int = 512) -> IResNet:
    """IResNet-100: 65.2 M parameters at width 1."""
    return IResNet(DEPTHS["iresnet100"], width, dim)
