"""Any waveform -> mono float32 at 16 kHz."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

SAMPLE_RATE = 16_000  # Hz
# A long Kaiser-windowed sinc (spec 1.1): torchaudio's default filter moves the top mel bands by more than 1 of 8 units.
ZERO_CROSSINGS, ROLLOFF, BETA = 64, 0.99, 14.769656459379492
PIECE_SECONDS = 10  # of sound that are resampled at a time
OVERLAP_SECONDS = 1  # on each side of a piece, far more than the filter reaches
LARGEST_TABLE = 10_000_000
Read = Callable[[int, int], Tensor]  # samples start .. stop - 1 of a sound, [..., n], fewer where it ends
Step = Callable[[float], None]  # is told the share that is done, 0 to 1; may raise to interrupt
_INTEGER_SCALE = {torch.uint8: 128, torch.int8: 128, torch.int16: 32768, torch.int32: 2147483648}


def to_float(waveform: Any) -> Tensor:
    """Samples of any type as float32 (float64 stays) in [-1, 1], same shape; uint8 is centred at 128 as in WAV files.

    Raises:
        ValueError: NaN or infinity among the samples.
    """
    samples = torch.as_tensor(waveform)
    if samples.dtype in _INTEGER_SCALE:
        centred = samples.double() - (128 if samples.dtype == torch.uint8 else 0)
        return (centred / _INTEGER_SCALE[samples.dtype]).float()
    samples = samples if samples.dtype == torch.float64 else samples.float()
    if not torch.isfinite(samples).all():
        raise ValueError("The waveform holds NaN or infinity. Export the audio again, or check the node that made it.")
    return samples


def to_mono_16k(waveform: Any, sample_rate: int, step: Step | None = None) -> Tensor:
    """Mix down and resample.

    Args:
        waveform: [T], [C, T] or [1, C, T] array or tensor, float in [-1, 1] or integer PCM; channels are averaged.
        sample_rate: Hz.
        step: see `resample`.

    Returns:
        float32 [ceil(T * 16000 / sample_rate)].

    Raises:
        ValueError: another shape, a batch of several waveforms, or samples that are not finite.
    """
    samples = to_float(waveform).float()
    if samples.ndim == 3 and len(samples) == 1:
        samples = samples[0]
    if samples.ndim not in (1, 2):
        found = list(samples.shape)
        raise ValueError(f"Expected a waveform [T], [C, T] or [1, C, T], got {found}. Pass one clip's sound.")
    mono = samples if samples.ndim == 1 else samples.mean(0)
    return resample(mono, sample_rate, SAMPLE_RATE, step)


def resample(waveform: Tensor, source_rate: int, target_rate: int, step: Step | None = None) -> Tensor:
    """Band-limited resampling along the last axis, in step with the input's first sample.

    torchaudio where it imports; otherwise scipy with the same filter, which agrees to 1e-4.

    Args:
        waveform: float32 [..., T].
        source_rate: Hz.
        target_rate: Hz.
        step: called before every piece of a long sound.

    Returns:
        float32 [..., ceil(T * target_rate / source_rate)].

    Raises:
        ValueError: a rate that is not positive.
    """
    if source_rate <= 0 or target_rate <= 0:
        raise ValueError(f"Sample rates must be positive, got {source_rate} and {target_rate} Hz.")
    if source_rate == target_rate or waveform.shape[-1] == 0:
        return waveform
    if waveform.shape[-1] > (PIECE_SECONDS + 2 * OVERLAP_SECONDS) * source_rate:
        count = -(-waveform.shape[-1] // (PIECE_SECONDS * source_rate))
        read = lambda start, stop: waveform[..., start:stop]  # noqa: E731  # named for its type
        pieces = []
        for piece in range(count):
            if step is not None:
                step(piece / count)
            pieces.append(resampled_piece(read, piece, source_rate, target_rate))
        return torch.cat(pieces, -1)
    # torchaudio's table grows with the product of the two rates over their common divisor: gigabytes for 44 099 Hz.
    table = source_rate * target_rate // math.gcd(source_rate, target_rate) ** 2
    functional = _torchaudio() if table <= LARGEST_TABLE else None
    if functional is None:
        return _scipy_resample(waveform, source_rate, target_rate)
    return functional.resample(
        waveform,
        source_rate,
        target_rate,
        lowpass_filter_width=ZERO_CROSSINGS,
        rolloff=ROLLOFF,
        resampling_method="sinc_interp_kaiser",
        beta=BETA,
    )


def resampled_piece(read: Read, number: int, source_rate: int, target_rate: int) -> Tensor:
    """Piece `number` of a resampled sound, so that what is computed on the way does not grow with the sound.

    Pieces are whole seconds, in which both rates have whole samples, and overlap: joined, they equal the whole.

    Args:
        read: the sound at its own rate.
        number: of the piece, from 0.
        source_rate: Hz.
        target_rate: Hz.

    Returns:
        float32 [..., PIECE_SECONDS * target_rate], shorter at the sound's end.
    """
    start = number * PIECE_SECONDS
    first, stop = max(0, start - OVERLAP_SECONDS), start + PIECE_SECONDS + OVERLAP_SECONDS
    made = resample(read(first * source_rate, stop * source_rate), source_rate, target_rate)
    return made[..., (start - first) * target_rate :][..., : PIECE_SECONDS * target_rate]


def _torchaudio() -> Any:
    """torchaudio.functional, or None: beside a torch of another version it fails to import in several ways."""
    try:
        from torchaudio import functional
    except (ImportError, OSError, RuntimeError, AttributeError):
        return None
    return functional


def _scipy_resample(waveform: Tensor, source_rate: int, target_rate: int) -> Tensor:
    from scipy.signal import resample_poly
    from scipy.special import i0

    divisor = math.gcd(source_rate, target_rate)
    up, down = target_rate // divisor, source_rate // divisor
    step = min(up, down) * ROLLOFF / (up * down)  # zero crossings between two taps of the common, up-sampled grid
    half = math.ceil(ZERO_CROSSINGS / step)
    crossings = np.arange(-half, half + 1) * step
    inside = np.clip(1 - (crossings / ZERO_CROSSINGS) ** 2, 0, None)
    taps = np.sinc(crossings) * i0(BETA * np.sqrt(inside)) / i0(BETA) * step  # scipy multiplies by `up` itself
    out = resample_poly(waveform.double().numpy(), up, down, axis=-1, window=taps)
    return torch.from_numpy(np.ascontiguousarray(out)).float()
