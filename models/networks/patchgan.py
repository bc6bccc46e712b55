"""SimSwap's multi-scale PatchGAN discriminator (spec 3.5, A21)."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PatchGAN(nn.Module):
    """One scale: 4x4 convolutions; returns the feature of every layer and the patch logits.

    Args:
        layers: stride-2 layers (4 = SimSwap; 3 for crops of at most 128 px, where 4 would see the whole crop).
        width: channels of the first layer.
        most: upper bound of channels.
    """

    def __init__(self, layers: int = 4, width: int = 64, most: int = 512) -> None:
        super().__init__()
        inputs = 3
        self.names: list[str] = []
        for level in range(layers):
            outputs = min(width << level, most)
            norm = [nn.BatchNorm2d(outputs)] if level else []
            self._add(f"down{level + 1}", nn.Conv2d(inputs, outputs, 4, 2, 1), *norm, nn.LeakyReLU(0.2))
            inputs = outputs
        outputs = min(width << layers, most)
        self._add("conv1", nn.Conv2d(inputs, outputs, 4, 1, 1), nn.BatchNorm2d(outputs), nn.LeakyReLU(0.2))
        self._add("conv2", nn.Conv2d(outputs, 1, 4, 1, 1))

    def _add(self, name: str, *modules: nn.Module) -> None:
        self.add_module(name, nn.Sequential(*modules))
        self.names.append(name)

    def forward(self, x: Tensor) -> list[Tensor]:
        """RGB [B, 3, H, W] in [0, 1] -> layer features, then logits [B, 1, h, w] (last)."""
        outputs = []
        for name in self.names:
            x = getattr(self, name)(x)
            outputs.append(x)
        return outputs


class MultiScalePatchGAN(nn.Module):
    """Independent PatchGANs on the picture and on its halved copies."""

    def __init__(self, scales: int = 2, layers: int = 3, width: int = 64) -> None:
        super().__init__()
        self.scales = nn.ModuleList(PatchGAN(layers, width) for _ in range(scales))
        self.halve = nn.AvgPool2d(3, 2, 1, count_include_pad=False)

    def forward(self, x: Tensor) -> list[list[Tensor]]:
        """RGB [B, 3, H, W] in [0, 1] -> per scale the list of `PatchGAN.forward`."""
        outputs = []
        for discriminator in self.scales:
            outputs.append(discriminator(x))
            x = self.halve(x)
        return outputs


def least_squares_loss(outputs: list[list[Tensor]], target: float) -> Tensor:
    """LSGAN: mean over scales of mean((logit - target)^2), in float32 (spec 5.1)."""
    return torch.stack([(scale[-1].float() - target).square().mean() for scale in outputs]).mean()


def weak_feature_matching(fake: list[list[Tensor]], real: list[list[Tensor]], first: int = -3) -> Tensor:
    """L1 between deep features only (paper eq. for wFM; spec A22): the last two feature layers of every scale."""
    terms = [
        (a.float() - b.detach().float()).abs().mean()
        for fakes, reals in zip(fake, real, strict=True)
        for a, b in zip(fakes[first:-1], reals[first:-1], strict=True)
    ]
    return torch.stack(terms).mean()
