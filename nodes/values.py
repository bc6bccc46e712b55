"""Host values to engine values: images, audio, frame rates. Knows the host's conventions but imports nothing of it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

CHUNK = 16  # frames handled between two looks at the Cancel button


def rgb(images: Tensor, what: str = "images") -> Tensor:
    """Host IMAGE of any channel count -> float32 [N, H, W, 3] in 0..1, the same tensor where nothing has to change.

    Args:
        images: [N, H, W, C] or [H, W, C] with C = 3 (RGB), 4 (RGBA, the alpha is dropped) or 1 (grey, repeated).
        what: name of the input, for the message.

    Raises:
        ValueError: another shape, or no frame at all.
    """
    if images.ndim == 3:
        images = images.unsqueeze(0)
    if images.ndim != 4 or images.shape[-1] not in (1, 3, 4) or 0 in images.shape:
        raise ValueError(
            f"'{what}' has shape {tuple(images.shape)}; expected an image batch [frames, height, width, 3] with at"
            " least one frame. Connect the IMAGE output of a loader (grey and RGBA pictures are fine)."
        )
    images = images.float()
    return images.expand(*images.shape[:3], 3) if images.shape[-1] == 1 else images[..., :3]


def to_uint8(images: Tensor) -> NDArray[np.uint8]:
    """float32 [..., 3] in 0..1 -> uint8 array of the same shape, rounded."""
    scaled = images.detach().cpu().clamp(0, 1) * 255 + 0.5
    return scaled.to(torch.uint8).numpy()


def chunks(total: int, size: int = CHUNK) -> Iterator[tuple[int, int]]:
    """(start, stop) ranges that cover 0..total."""
    for start in range(0, total, size):
        yield start, min(start + size, total)


def exact_rate(fps: float) -> Fraction:
    """Frames per second as the host gives them (a float, or typed with two or three decimals) -> exact fraction.

    23.976 and 23.98 become 24000/1001, 29.97 becomes 30000/1001, and so on for every multiple of 24 and 30; everything
    else becomes the nearest fraction with a denominator up to 1001.

    Raises:
        ValueError: not a positive, finite number.
    """
    if not (math.isfinite(fps) and fps > 0):
        raise ValueError(
            f"fps is {fps}; expected a positive number such as 25. Connect the fps output of Get Video Components."
        )
    for nominal in (24, 30, 48, 60, 72, 90, 120, 144, 240):
        ntsc = nominal * 1000 / 1001
        if any(abs(fps - round(ntsc, digits)) < 1e-6 for digits in (2, 3, 4, 5, 12)):
            return Fraction(nominal * 1000, 1001)
    return Fraction(fps).limit_denominator(1001)


def waveform(audio: Mapping[str, Any] | None) -> tuple[Tensor, int] | None:
    """Host AUDIO -> (float32 [C, T] in -1..1, sample rate), None for None or no samples; the first of a batch is used.

    Raises:
        ValueError: not a waveform [batch, channels, samples] with a positive sample rate.
    """
    if audio is None:
        return None
    samples, rate = audio["waveform"], int(audio["sample_rate"])
    if samples.ndim == 3:
        samples = samples[:1].flatten(0, 1)
    if samples.ndim != 2 or rate <= 0:
        raise ValueError(
            f"The audio has shape {tuple(audio['waveform'].shape)} at {rate} Hz; expected [1, channels, samples] and a "
            "positive rate. Load it with the core Load Audio node."
        )
    if 0 in samples.shape:
        return None
    if samples.is_floating_point():
        return samples.detach().float().cpu(), rate
    # Loaders hand integer PCM through unscaled: int16 and int32 are signed, uint8 is centred on 128.
    info = torch.iinfo(samples.dtype)
    centre, scale = (128, 128) if info.min == 0 else (0, -info.min)
    return ((samples.double() - centre) / scale).float().cpu(), rate


def host_audio(samples: Tensor, rate: int) -> dict[str, Any]:
    """float32 [C, T] -> host AUDIO."""
    return {"waveform": samples.unsqueeze(0), "sample_rate": rate}


def pasting_mask(mask: Tensor | None, frames: int, height: int, width: int) -> Tensor | None:
    """Host MASK [N|1, H, W] -> the same, checked; None where there is nothing to use.

    A loader gives an empty 64 x 64 mask for a picture without alpha, so an empty mask of another size means "no mask".

    Raises:
        ValueError: size or count do not fit the frames.
    """
    if mask is None:
        return None
    mask = mask.unsqueeze(0) if mask.ndim == 2 else mask
    if mask.shape[1:] == (height, width) and len(mask) in (1, frames):
        return mask.float()
    if not mask.any():
        return None
    raise ValueError(
        f"The mask has {len(mask)} frame(s) of {mask.shape[2]}x{mask.shape[1]}; the video has {frames} of"
        f" {width}x{height}. Give one mask, or one for every frame, at the video's size."
    )


def require_memory(needed: int, free: int, what: str) -> None:
    """Refuse work that cannot fit before it starts.

    Args:
        needed: bytes the result will take.
        free: bytes of main memory free now.
        what: the work, for the message.

    Raises:
        ValueError: `needed` exceeds `free`.
    """
    if needed > free:
        raise ValueError(
            f"{what} needs {needed / 2**30:.1f} GiB of memory and {free / 2**30:.1f} GiB is free. "
            "Use Talking Swap Video (its memory does not grow with the clip), a shorter clip or smaller frames."
        )
