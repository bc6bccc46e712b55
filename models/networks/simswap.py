"""SimSwap's generator: a face with another identity (Chen et al. 2020; specification section 3.4)."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from .blocks import IdentityBlock
from .fused import ReflectionPad

BLOCKS = 9
IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # RGB


class SimSwap(nn.Module):
    """Encoder, identity blocks, decoder, no skip connections; key layout of the public files.

    Args:
        stem: channels at full size; they double with each halving.
        downs: halvings, at least three.
        io_norm: the layout of the 2022 trainer, whose weights read and write ImageNet-normalised pictures and have no
            tanh; the keys are the same, so a weights file has to say which it is.
        id_dim: length of the identity vector.
    """

    def __init__(self, stem: int, downs: int, io_norm: bool = False, id_dim: int = 512) -> None:
        super().__init__()
        self.multiple = 1 << downs
        self.io_norm = io_norm
        self.first_layer = nn.Sequential(ReflectionPad(3), nn.Conv2d(3, stem, 7), nn.BatchNorm2d(stem), nn.ReLU())
        levels = range(4 - downs, 4)  # down1 to down3, and down0 before them where there are four
        self.downs, self.ups = [f"down{level}" for level in levels], [f"up{level}" for level in reversed(levels)]
        width = stem
        for name in self.downs:
            self.add_module(name, _down(width, 2 * width))
            width *= 2
        self.BottleNeck = nn.ModuleList(IdentityBlock(width, id_dim) for _ in range(BLOCKS))
        for name in self.ups:
            self.add_module(name, _up(width, width // 2))
            width //= 2
        self.last_layer = nn.Sequential(ReflectionPad(3), nn.Conv2d(stem, 3, 7))

    def styles(self, embedding: Tensor) -> list[Tensor]:
        """All AdaIN styles of identity vectors [B,id_dim], so that they are computed once per identity."""
        return [style for block in cast("list[IdentityBlock]", self.BottleNeck) for style in block.styles(embedding)]

    def modulated(self, target: Tensor, styles: list[Tensor]) -> Tensor:
        """Forward pass with styles computed beforehand; shapes as in `forward`."""
        height, width = target.shape[-2:]
        if target.ndim != 4 or target.shape[1] != 3 or height % self.multiple or width % self.multiple:
            raise ValueError(
                f"SimSwap expects faces [B,3,H,W] with sides divisible by {self.multiple}, got {list(target.shape)}."
            )
        mean, std = (target.new_tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
        x = (target - mean) / std if self.io_norm else target
        x = self.first_layer(x.to(next(self.first_layer.parameters()).dtype))
        for name in self.downs:
            x = getattr(self, name)(x)
        for i, block in enumerate(cast("list[IdentityBlock]", self.BottleNeck)):
            x = block.modulated(x, styles[2 * i], styles[2 * i + 1])
        for name in self.ups:
            x = getattr(self, name)(x)
        x = self.last_layer(x).float()
        return x * std + mean if self.io_norm else (torch.tanh(x) + 1) / 2

    def forward(self, target: Tensor, embedding: Tensor) -> Tensor:
        """Swap faces.

        Args:
            target: [B,3,H,W] RGB in [0,1], sides divisible by 8 (by 16 with four halvings).
            embedding: [B,id_dim] unit-norm vectors of SimSwap's own recogniser (public weights).

        Returns:
            float32 [B,3,H,W] RGB, in [0,1]; with `io_norm` values may lie a little outside.

        Raises:
            ValueError: the picture's shape does not fit.
        """
        return self.modulated(target, self.styles(embedding))


def simswap_224(width: float = 1.0, io_norm: bool = False, id_dim: int = 512) -> SimSwap:
    """The layout of the 224 px files, 55.1 M parameters; `width` is a factor on the channels, 0.375 near our small."""
    return SimSwap(round(64 * width), 3, io_norm, id_dim)


def simswap_512(width: float = 1.0, io_norm: bool = False, id_dim: int = 512) -> SimSwap:
    """The layout of the 512 px beta, 55.1 M parameters; `width` is a factor on the channels."""
    return SimSwap(round(32 * width), 4, io_norm, id_dim)


def _down(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, 2, 1), nn.BatchNorm2d(outputs), nn.ReLU())


def _up(inputs: int, outputs: int) -> nn.Sequential:
    larger = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False)
    return nn.Sequential(larger, nn.Conv2d(inputs, outputs, 3, 1, 1), nn.BatchNorm2d(outputs), nn.ReLU())
