"""Wav2Lip's sync expert: does this mouth belong to this sound? (Prajwal et al. 2020; specification section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .blocks import ConvBlock, audio_tower

FRAMES = 5  # consecutive frames of one window, 200 ms at 25 fps = 16 mel columns
HEIGHT, WIDTH = 48, 96  # lower half of a 96 px crop


class SyncNetExpert(nn.Module):
    """Two towers that meet in one space of D = 512 * width dimensions; key layout of the public lipsync_expert file.

    The public weights saw BGR; callers with RGB use `frames_to_expert`.

    Args:
        width: factor on all channels; 1 is the public network.
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        self.width = width
        a, b, c, d, e = (round(channels * width) for channels in (32, 64, 128, 256, 512))
        self.dim = e
        self.face_encoder = nn.Sequential(
            ConvBlock(3 * FRAMES, a, 7, 1, 3),
            ConvBlock(a, b, 5, (1, 2), 1),
            *_residuals(b, 2),
            ConvBlock(b, c, 3, 2, 1),
            *_residuals(c, 3),
            ConvBlock(c, d, 3, 2, 1),
            *_residuals(d, 2),
            ConvBlock(d, e, 3, 2, 1),
            *_residuals(e, 2),
            ConvBlock(e, e, 3, 2, 1),
            ConvBlock(e, e, 3, 1, 0),
            ConvBlock(e, e, 1, 1, 0),
        )
        self.audio_encoder = audio_tower(width, e)

    def embed_audio(self, mel: Tensor) -> Tensor:
        """Mel windows [B,1,80,16] in [-4,4] -> [B,D] unit norm."""
        _check("mel", mel, (1, 80, 16))
        return functional.normalize(self.audio_encoder(mel).flatten(1).float(), dim=1)

    def embed_face(self, frames: Tensor) -> Tensor:
        """Lower halves of five frames [B,15,48,96] in [0,1], frame-major BGR -> [B,D] unit norm."""
        _check("frames", frames, (3 * FRAMES, HEIGHT, WIDTH))
        return functional.normalize(self.face_encoder(frames).flatten(1).float(), dim=1)

    def forward(self, mel: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Embed both sides of B windows.

        Args:
            mel: [B,1,80,16] float in [-4,4].
            frames: [B,15,48,96] float in [0,1]; lower halves of five consecutive frames, frame-major BGR.

        Returns:
            (audio, face), each float32 [B,D] with unit norm. Their dot product lies in [0,1] and is the probability
            of sync; rounding can exceed 1, see `sync_probability`.

        Raises:
            ValueError: if a shape differs.
        """
        return self.embed_audio(mel), self.embed_face(frames)


def sync_probability(audio: Tensor, face: Tensor) -> Tensor:
    """Cosine of unit vectors [B,D], kept inside (0,1) so that its logarithm and BCE stay finite -> float32 [B]."""
    return (audio.float() * face.float()).sum(1).clamp(1e-7, 1 - 1e-7)


def frames_to_expert(windows: Tensor) -> Tensor:
    """RGB windows [B,5,3,H,W] (whole crops, [0,1]) -> the expert's [B,15,48,96] BGR lower halves; differentiable.

    Crops of another size than 96 px are resized (antialiased) to 96 before they are halved.

    Raises:
        ValueError: if the shape is not [B,5,3,H,W].
    """
    if windows.ndim != 5 or tuple(windows.shape[1:3]) != (FRAMES, 3):
        raise ValueError(f"frames_to_expert expects RGB windows [B,{FRAMES},3,H,W], got {list(windows.shape)}.")
    frames = windows.flip(2).flatten(1, 2)
    if tuple(frames.shape[2:]) != (WIDTH, WIDTH):
        frames = functional.interpolate(frames, (WIDTH, WIDTH), mode="bilinear", align_corners=False, antialias=True)
    return frames[:, :, WIDTH - HEIGHT :]


def _residuals(channels: int, count: int) -> list[ConvBlock]:
    return [ConvBlock(channels, channels, 3, 1, 1, residual=True) for _ in range(count)]


def _check(name: str, value: torch.Tensor, shape: tuple[int, ...]) -> None:
    if value.ndim != 4 or tuple(value.shape[1:]) != shape:
        raise ValueError(f"The sync expert expects {name} [B,{','.join(map(str, shape))}], got {list(value.shape)}.")
