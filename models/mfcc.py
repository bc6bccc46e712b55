"""Cepstral coefficients as SyncNet v2 was trained with: the defaults of python_speech_features (spec 1.3)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .resample import SAMPLE_RATE

FRAME = 400  # samples, 25 ms, no window function
STEP = 160  # samples, 10 ms: 100 columns a second, four a video frame at 25 fps
N_FFT = 512
FILTERS = 26
COEFFICIENTS = 13
LIFTER = 22
PRE_EMPHASIS = 0.97
FULL_SCALE = 32768.0  # samples in [-1, 1] times this are in the unit of `mfcc`
BLOCK_FRAMES = 4096  # computed at a time, about 41 s
_EPSILON = 2.0**-52  # stands for a power of zero


def filter_edges() -> Tensor:
    """FFT bins at which the triangles begin, peak and end: even steps on the HTK mel scale, int64 [28]."""
    mel = torch.linspace(0, _to_mel(SAMPLE_RATE / 2), FILTERS + 2, dtype=torch.float64)
    hertz = 700 * (10 ** (mel / 2595) - 1)
    return torch.floor((N_FFT + 1) * hertz / SAMPLE_RATE).long()


def filter_bank() -> Tensor:
    """Triangles of height 1 over power spectra, float64 [257, 26]."""
    edges = filter_edges().double()[:, None]
    low, peak, high = edges[:-2], edges[1:-1], edges[2:]
    bins = torch.arange(N_FFT // 2 + 1, dtype=torch.float64)
    return torch.minimum((bins - low) / (peak - low), (high - bins) / (high - peak)).clamp_min(0).T


def mfcc(samples: Tensor) -> Tensor:
    """Coefficients of a mono sound at 16 kHz, 100 columns a second.

    Args:
        samples: [T] in int16 units (-32768..32767, any number type): the first coefficient is a level, so [-1, 1] would
            shift it by 20.8.

    Returns:
        float32 [1 + ceil((T - 400) / 160), 13], one row for T <= 400; 640 m samples give 4 m - 1 rows. Video frame v at
        25 fps goes with rows 4 v .. 4 v + 19.

    Raises:
        ValueError: the sound is not one-dimensional, or holds NaN or infinity.
    """
    if samples.ndim != 1:
        raise ValueError(f"mfcc takes mono [T], got shape {list(samples.shape)}. Mix it down first.")
    x = samples.double()
    if not x.isfinite().all():
        raise ValueError("mfcc got samples that are not finite numbers (NaN or infinity). Load the sound again.")
    x = torch.cat([x[:1], x[1:] - PRE_EMPHASIS * x[:-1]])
    rows = 1 + max(0, math.ceil((len(x) - FRAME) / STEP))
    x = torch.nn.functional.pad(x, (0, (rows - 1) * STEP + FRAME - len(x)))
    bank, basis = filter_bank(), _cosines()
    # In blocks, because the spectrum of an hour of sound would fill gigabytes.
    return torch.cat([_coefficients(part, bank, basis) for part in x.unfold(0, FRAME, STEP).split(BLOCK_FRAMES)])


def _coefficients(frames: Tensor, bank: Tensor, basis: Tensor) -> Tensor:
    """float64 [n, 400] samples -> float32 [n, 13]."""
    power = torch.fft.rfft(frames, N_FFT).abs().square() / N_FFT
    cepstrum = _log(power @ bank) @ basis
    cepstrum[:, 0] = _log(power.sum(1))
    return cepstrum.float()


def _cosines() -> Tensor:
    """Orthonormal DCT-II with the lifter that raises higher coefficients, float64 [26, 13]."""
    n = torch.arange(COEFFICIENTS, dtype=torch.float64)
    k = torch.arange(FILTERS, dtype=torch.float64)[:, None]
    basis = torch.cos(math.pi * n * (k + 0.5) / FILTERS) * math.sqrt(2 / FILTERS)
    basis[:, 0] *= math.sqrt(0.5)
    return basis * (1 + LIFTER / 2 * torch.sin(math.pi * n / LIFTER))


def _log(power: Tensor) -> Tensor:
    return torch.where(power == 0, _EPSILON, power).log()


def _to_mel(hertz: float) -> float:
    return 2595 * math.log10(1 + hertz / 700)
