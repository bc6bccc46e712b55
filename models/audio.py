"""16 kHz mono front end: mel spectrogram, the window of a video frame, speech activity.

The mel is Wav2Lip's (model-spec section 1.1), computed in float64 and stored as float32: in float32 alone cancellation
near the floor costs up to 1e-3 on the [-4, 4] scale.
"""

from __future__ import annotations

from fractions import Fraction

import torch
from torch import Tensor

SAMPLE_RATE = 16_000  # Hz
N_FFT = 800  # samples, 50 ms
HOP = 200  # samples, 12.5 ms
N_MELS = 80
F_MIN, F_MAX = 55.0, 7600.0  # Hz
MEL_COLUMNS_PER_SECOND = SAMPLE_RATE // HOP  # 80, exact
WINDOW_COLUMNS = 16  # 200 ms = 5 frames at 25 fps
MEL_SILENCE = -4.0
PRE_EMPHASIS = 0.97
REFERENCE_DB, MIN_DB = 20.0, -100.0


def slaney_filter_bank() -> Tensor:
    """Slaney-normalised triangles on the Slaney mel scale, float64 rounded to float32, shape [80, 401]."""

    def to_mel(hz: Tensor) -> Tensor:
        linear = hz * 3 / 200
        return torch.where(hz < 1000, linear, 15 + torch.log(hz.clamp_min(1e-9) / 1000) * 27 / torch.log(_f64(6.4)))

    def to_hz(mel: Tensor) -> Tensor:
        return torch.where(mel < 15, mel * 200 / 3, 1000 * torch.exp((mel - 15) * torch.log(_f64(6.4)) / 27))

    low, high = to_mel(_f64(F_MIN)), to_mel(_f64(F_MAX))
    edges = to_hz(low + (high - low) * torch.arange(N_MELS + 2, dtype=torch.float64) / (N_MELS + 1))
    bins = torch.arange(N_FFT // 2 + 1, dtype=torch.float64) * SAMPLE_RATE / N_FFT
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    triangles = torch.minimum(rising, falling).clamp_min(0)
    return (triangles * (2 / (edges[2:] - edges[:-2]))[:, None]).float()


def _f64(value: float) -> Tensor:
    return torch.tensor(value, dtype=torch.float64)


def mel_spectrogram(waveform: Tensor, sample_rate: int = SAMPLE_RATE) -> Tensor:
    """Mel spectrogram of a mono waveform (spec 1.1).

    Args:
        waveform: [T] float in [-1, 1], at least one sample; shorter than 401 samples is zero-padded.
        sample_rate: Hz; anything but 16 000 is resampled first.

    Returns:
        float32 [80, 1 + T16k // 200] in [-4, 4]; silence is exactly -4.

    Raises:
        ValueError: the waveform is not one-dimensional or holds NaN or infinity.
    """
    if waveform.ndim != 1:
        raise ValueError(f"mel_spectrogram takes a mono waveform [T], got shape {tuple(waveform.shape)}. Mix it down first.")
    if sample_rate != SAMPLE_RATE:
        raise NotImplementedError
    x = waveform.double()
    if not torch.isfinite(x).all():
        raise ValueError("The waveform holds NaN or infinity; re-export the audio.")
    x = torch.cat([x[:1], x[1:] - PRE_EMPHASIS * x[:-1]])
    columns = 1 + len(x) // HOP
    x = torch.nn.functional.pad(x, (0, max(0, N_FFT // 2 + 1 - len(x))))
    window = torch.hann_window(N_FFT, dtype=torch.float64)
    spectrum = torch.stft(x, N_FFT, HOP, window=window, center=True, pad_mode="reflect", return_complex=True).abs()
    power = slaney_filter_bank().double() @ spectrum[:, :columns]
    decibel = 20 * torch.log10(power.clamp_min(10 ** (MIN_DB / 20))) - REFERENCE_DB
    return (8 * (decibel - MIN_DB) / -MIN_DB - 4).clamp(-4, 4).float()


def window_starts(frames: int, fps: Fraction, columns: int, lag: int = 0, first: int = 0) -> Tensor:
    """First mel column of each frame's window: floor((first + i + lag) * 80 / fps), clamped into the spectrogram.

    Integer arithmetic throughout (spec 1.2), so a ten-hour clip drifts no more than a short one.

    Args:
        frames: number of video frames.
        fps: frames per second, exact.
        columns: number of mel columns.
        lag: frames by which the window is moved, -1 = as trained (spec 1.2).
        first: index of the first frame.

    Returns:
        int64 [frames] in [0, max(0, columns - 16)].
    """
    index = torch.arange(first + lag, first + lag + frames, dtype=torch.int64)
    starts = torch.div(index * MEL_COLUMNS_PER_SECOND * fps.denominator, fps.numerator, rounding_mode="floor")
    return starts.clamp(0, max(0, columns - WINDOW_COLUMNS))


def mel_windows(mel: Tensor, frames: int, fps: Fraction, lag: int = 0, first: int = 0) -> Tensor:
    """One 200 ms mel window per video frame.

    Args:
        mel: float32 [80, T].
        frames: number of video frames.
        fps: frames per second, exact.
        lag: see `window_starts`.
        first: index of the first frame.

    Returns:
        float32 [frames, 1, 80, 16]; a spectrogram shorter than 16 columns is padded with silence.
    """
    mel = torch.nn.functional.pad(mel, (0, max(0, WINDOW_COLUMNS - mel.shape[1])), value=MEL_SILENCE)
    starts = window_starts(frames, fps, mel.shape[1], lag, first)
    columns = starts[:, None] + torch.arange(WINDOW_COLUMNS)
    return mel[:, columns].permute(1, 0, 2).unsqueeze(1).contiguous()
