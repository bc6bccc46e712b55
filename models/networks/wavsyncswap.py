"""The proposed generator: Wav2Lip's audio-driven decoder with SimSwap's identity blocks in the bottleneck (spec 4)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

from .blocks import ConvBlock, IdentityBlock, Style, TransposedBlock, added, audio_tower, normalised
from .fused import ReflectionPad, unbiased

SIZES = (96, 128, 192, 256, 384, 512)


@dataclass(frozen=True)
class Preset:
    """Channel widths of one generator size (spec 4.4)."""

    bottleneck: int
    narrowest: int
    audio_map: tuple[int, int, int]
    blocks: int
    audio_width: float
    style_dim: int | None  # identity vectors are projected to this once; None = used as they are


PRESETS = {
    "small": Preset(192, 16, (192, 128, 96), 6, 0.5, 128),
    "base": Preset(512, 32, (512, 512, 256), 9, 1.0, None),
    "large": Preset(768, 48, (768, 512, 384), 9, 1.0, None),
}


class IdentitySkip(nn.Module):
    """Encoder features to the decoder with the target's identity normalised away and the source's put in.

    With `keep` there is a second way, open only where no identity is put in: features as they are, so that lips and
    skin keep their colour.
    """

    def __init__(self, channels: int, dim: int, keep: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 1)
        self.style = Style(dim, channels)
        self.passage = nn.Conv2d(channels, channels, 1) if keep else None

    def forward(self, x: Tensor, style: Tensor, kept: Tensor) -> Tensor:
        """[B, C, H, W], a style [B or 1, 2, C, 1, 1], and 1 or 0 [B or 1, 1, 1, 1] where the face is kept or not."""
        styled = normalised(unbiased(self.conv, x), style)
        return styled if self.passage is None else added(styled, kept.to(x.dtype) * self.passage(x))


class WavSyncSwap(nn.Module):
    """Masked target, reference, speech and source identity in, talking swapped face out.

    Args:
        width: "small", "base" (the paper) or "large".
        px: side of the crop, one of 96, 128, 192, 256, 384, 512.
        skips: "none" (the paper) or "adain": encoder features reach the decoder through ID-conditioned AdaIN.
        stride8: keep three down-samplings whatever px is (quality studies).
        id_dim: length of the identity vector.
        blend: also predict, pixel by pixel, how much of the drawn picture replaces what is already there (target above,
            reference below), so that hair, clothes and background need not be drawn again (spec section 9).
        keep: an identity vector of zeros keeps the target's own face: lip sync alone. Needs `skips="adain"`.

    Raises:
        ValueError: an option has an unknown value, or `keep` lacks skips.
    """

    def __init__(
        self,
        width: str = "base",
        px: int = 96,
        skips: str = "none",
        stride8: bool = False,
        id_dim: int = 512,
        blend: bool = False,
        keep: bool = False,
    ) -> None:
        super().__init__()
        if width not in PRESETS or px not in SIZES or skips not in ("none", "adain"):
            raise ValueError(
                f"wavsyncswap knows width {sorted(PRESETS)}, px {list(SIZES)} and skips ['none', 'adain']; "
                f"got width={width!r}, px={px!r}, skips={skips!r}."
            )
        if keep and skips == "none":
            raise ValueError("wavsyncswap with keep=True needs skips='adain': what is kept has no other way.")
        preset = PRESETS[width]
        downs = 3 if stride8 else math.ceil(math.log2(px / 16))
        widths = [max(preset.bottleneck >> level, preset.narrowest) for level in range(downs + 1)]  # bottleneck first
        style_dim = preset.style_dim or id_dim
        self.config: dict[str, Any] = {
            "width": width, "px": px, "skips": skips, "stride8": stride8, "id_dim": id_dim, "blend": blend,
            "keep": keep,
        }  # fmt: skip
        self.px, self.blend, self.keep = px, blend, keep

        self.audio_encoder = audio_tower(preset.audio_width)
        self.audio_map = _audio_map(preset.audio_map, px >> downs)
        self.face_encoder = nn.ModuleList([nn.Sequential(ReflectionPad(3), ConvBlock(6, widths[-1], 7))])
        for inputs, outputs in zip(widths[:0:-1], widths[-2::-1], strict=True):
            self.face_encoder.append(ConvBlock(inputs, outputs, 3, 2, 1))
        self.style_projection = nn.Linear(id_dim, preset.style_dim) if preset.style_dim else nn.Identity()
        self.identity_blocks = nn.ModuleList(IdentityBlock(widths[0], style_dim) for _ in range(preset.blocks))
        self.fuse = nn.Sequential(
            TransposedBlock(widths[0] + preset.audio_map[-1], widths[0]), TransposedBlock(widths[0], widths[0])
        )
        self.decoder = nn.ModuleList(
            TransposedBlock(inputs, outputs, stride=2) for inputs, outputs in zip(widths, widths[1:], strict=False)
        )
        self.skips = nn.ModuleList(IdentitySkip(w, style_dim, keep) for w in widths[1:] if skips == "adain")
        tail = max(widths[-1] // 2, 16)
        self.output_block = nn.Sequential(
            ConvBlock(widths[-1], widths[-1], 3, 1, 1),
            ConvBlock(widths[-1], tail, 3, 1, 1),
            nn.Conv2d(tail, 4 if blend else 3, 3, 1, 1),
        )

    def styles(self, embedding: Tensor) -> list[Tensor]:
        """All AdaIN styles of an identity; one identity per clip means this runs once, not per frame.

        Args:
            embedding: [B, id_dim] unit-norm vectors of the recogniser the weights were trained with; with `keep` also
                zeros.

        Returns:
            List of [B, 2, C, 1, 1], in the order `modulated` takes them; last comes [B, 1, 1, 1], 1 for zeros.
        """
        vector = self.style_projection(embedding)
        blocks = cast("list[IdentityBlock]", self.identity_blocks)
        skips = cast("list[IdentitySkip]", self.skips)
        result = [style for block in blocks for style in block.styles(vector)]
        kept = (embedding == 0).all(1).to(embedding.dtype)[:, None, None, None]
        return [*result, *(skip.style(vector) for skip in skips), kept]

    def modulated(self, crops: Tensor, mel: Tensor, styles: list[Tensor]) -> Tensor:
        """Forward pass with styles computed beforehand; shapes as in `forward`."""
        features = []
        x = crops.to(next(self.face_encoder.parameters()).dtype)  # blending wants the crops as they came
        for layer in self.face_encoder:
            x = layer(x)
            features.append(x)
        for i, block in enumerate(cast("list[IdentityBlock]", self.identity_blocks)):
            x = block.modulated(x, styles[2 * i], styles[2 * i + 1])
        sound = self.audio_map(self.audio_encoder(mel))
        x = self.fuse(torch.cat([x, sound], 1))
        for i, up in enumerate(self.decoder):
            x = up(x)
            if self.skips:
                x = added(x, self.skips[i](features[-2 - i], styles[2 * len(self.identity_blocks) + i], styles[-1]))
        drawn = torch.sigmoid(self.output_block(x).float())
        if not self.blend:
            return drawn
        half = self.px // 2
        there = torch.cat([crops[:, :3, :half], crops[:, 3:, half:]], 2).float()
        return torch.lerp(there, drawn[:, :3], drawn[:, 3:])

    def forward(self, crops: Tensor, mel: Tensor, embedding: Tensor) -> Tensor:
        """Generate frames.

        Args:
            crops: [B, 6, px, px] RGB in [0, 1]: target with its lower half zeroed, then the reference.
            mel: [B, 1, 80, 16] mel windows.
            embedding: [B, id_dim] unit-norm identity vectors, or zeros, see `styles`.

        Returns:
            float32 [B, 3, px, px] RGB in [0, 1].
        """
        return self.modulated(crops, mel, self.styles(embedding))


def _audio_map(channels: tuple[int, int, int], side: int) -> nn.Sequential:
    """512 x 1 x 1 -> channels[-1] x side x side (side 12 or 16; 24 or 32 with `stride8` takes a third doubling)."""
    first = {12: 3, 16: 4, 24: 3, 32: 4}[side]
    layers = [TransposedBlock(512, channels[0], first, 1, 0), TransposedBlock(channels[0], channels[1], stride=2)]
    if side > 16:
        layers.append(TransposedBlock(channels[1], channels[1], stride=2))
    layers.append(TransposedBlock(channels[1], channels[2], stride=2))
    return nn.Sequential(*layers)


def mask_lower_half(crops: Tensor) -> Tensor:
    """Copy of [..., H, W] with rows from H // 2 on set to 0 (spec A12)."""
    masked = crops.clone()
    masked[..., crops.shape[-2] // 2 :, :] = 0
    return masked
