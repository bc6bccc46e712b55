"""Wav2Lip's generator and its visual quality discriminator (Prajwal et al. 2020; specification sections 3.1, 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from .blocks import ConvBlock, TransposedBlock, audio_tower

SIDE = 96  # px; the encoder ends in one position, so there is no other


class Wav2Lip(nn.Module):
    """Masked face, reference face and sound to a face whose lips follow the sound; key layout of the public files.

    The public weights saw BGR; `models.systems` has the adaptor.

    Args:
        width: factor on every channel count; 1 is the public layout (36.3 M parameters), 0.5 costs a quarter.
    """

    def __init__(self, width: float = 1.0) -> None:
        super().__init__()
        a, b, c, d, e, f = (round(channels * width) for channels in (16, 32, 64, 128, 256, 512))
        self.width = width
        self.face_encoder_blocks = nn.ModuleList(
            [
                nn.Sequential(ConvBlock(6, a, 7, 1, 3)),
                _stage(ConvBlock(a, b, 3, 2, 1), b, 2),
                _stage(ConvBlock(b, c, 3, 2, 1), c, 3),
                _stage(ConvBlock(c, d, 3, 2, 1), d, 2),
                _stage(ConvBlock(d, e, 3, 2, 1), e, 2),
                _stage(ConvBlock(e, f, 3, 2, 1), f, 1),
                nn.Sequential(ConvBlock(f, f, 3, 1, 0), ConvBlock(f, f, 1, 1, 0)),
            ]
        )
        self.audio_encoder = audio_tower(width, f, last_residuals=1)
        g = round(384 * width)
        self.face_decoder_blocks = nn.ModuleList(
            [
                nn.Sequential(ConvBlock(f, f, 1, 1, 0)),
                _stage(TransposedBlock(f + f, f, 3, 1, 0), f, 1),  # each takes the layer before and the encoder's
                _stage(TransposedBlock(f + f, f, 3, 2, 1), f, 2),
                _stage(TransposedBlock(f + e, g, 3, 2, 1), g, 2),
                _stage(TransposedBlock(g + d, e, 3, 2, 1), e, 2),
                _stage(TransposedBlock(e + c, d, 3, 2, 1), d, 2),
                _stage(TransposedBlock(d + b, c, 3, 2, 1), c, 2),
            ]
        )
        self.output_block = nn.Sequential(ConvBlock(c + a, b, 3, 1, 1), nn.Conv2d(b, 3, 1))

    def forward(self, mel: Tensor, faces: Tensor) -> Tensor:
        """Generate faces.

        Args:
            mel: [B,1,80,16] mel windows in [-4,4], or [B,T,1,80,16], or these with time folded as in `fold_time`.
            faces: [B,6,96,96] in [0,1]: the face with its lower half zeroed, then the reference; or [B,6,T,96,96].

        Returns:
            float32 [B,3,96,96] in (0,1), or [B,3,T,96,96].

        Raises:
            ValueError: a shape differs.
        """
        if faces.ndim == 5:
            windows = mel.transpose(0, 1).flatten(0, 1) if mel.ndim == 5 else mel
            return _unfold(self(windows, fold_time(faces)), len(faces))
        _check("mel", mel, (1, 80, 16))
        _check("faces", faces, (6, SIDE, SIDE))
        features = []
        for block in self.face_encoder_blocks:
            faces = block(faces)
            features.append(faces)
        x = self.audio_encoder(mel)
        for block in self.face_decoder_blocks:
            x = torch.cat([block(x), features.pop()], 1)
        return torch.sigmoid(self.output_block(x).float())


class Wav2LipQuality(nn.Module):
    """Does the lower half of a face look real? Key layout of the public visual_quality_disc.pth; it saw BGR."""

    def __init__(self) -> None:
        super().__init__()
        self.face_encoder_blocks = nn.ModuleList(
            [
                nn.Sequential(_Plain(3, 32, 7, 1, 3)),
                nn.Sequential(_Plain(32, 64, 5, (1, 2), 2), _Plain(64, 64, 5, 1, 2)),
                nn.Sequential(_Plain(64, 128, 5, 2, 2), _Plain(128, 128, 5, 1, 2)),
                nn.Sequential(_Plain(128, 256, 5, 2, 2), _Plain(256, 256, 5, 1, 2)),
                nn.Sequential(_Plain(256, 512, 3, 2, 1), _Plain(512, 512, 3, 1, 1)),
                nn.Sequential(_Plain(512, 512, 3, 2, 1), _Plain(512, 512, 3, 1, 1)),
                nn.Sequential(_Plain(512, 512, 3, 1, 0), _Plain(512, 512, 1, 1, 0)),
            ]
        )
        self.binary_pred = nn.Sequential(nn.Conv2d(512, 1, 1))

    def forward(self, faces: Tensor) -> Tensor:
        """Whole faces [B,3,96,96] or [B,3,T,96,96] in [0,1] -> float32 probability of being real, [B] or [T*B].

        Time is folded time-major (index t * B + b).

        Raises:
            ValueError: the shape differs.
        """
        x = fold_time(faces) if faces.ndim == 5 else faces
        _check("faces", x, (3, SIDE, SIDE))
        x = x[:, :, SIDE // 2 :]
        for block in self.face_encoder_blocks:
            x = block(x)
        return torch.sigmoid(self.binary_pred(x).float()).flatten()


class _Plain(nn.Module):
    """Convolution and leaky ReLU without a norm."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int | tuple[int, int], padding: int) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, padding))

    def forward(self, x: Tensor) -> Tensor:
        return functional.leaky_relu(self.conv_block(x), 0.01)


def fold_time(frames: Tensor) -> Tensor:
    """[B,C,T,H,W] -> [T*B,C,H,W], time-major: index t * B + b (spec A9)."""
    return frames.permute(2, 0, 1, 3, 4).flatten(0, 1)


def _unfold(frames: Tensor, batch: int) -> Tensor:
    """[T*B,C,H,W] -> [B,C,T,H,W]; undoes `fold_time`."""
    return frames.unflatten(0, (-1, batch)).permute(1, 2, 0, 3, 4)


def _stage(first: nn.Module, channels: int, residuals: int) -> nn.Sequential:
    return nn.Sequential(first, *(ConvBlock(channels, channels, 3, 1, 1, residual=True) for _ in range(residuals)))


def _check(name: str, value: Tensor, shape: tuple[int, ...]) -> None:
    if value.ndim != 4 or tuple(value.shape[1:]) != shape:
        raise ValueError(f"Wav2Lip expects {name} [B,{','.join(map(str, shape))}], got {list(value.shape)}.")
