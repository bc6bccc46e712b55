"""Mel front end: spectrogram, the window of a video frame, and the track that nodes pass on.

The mel is Wav2Lip's (model-spec section 1.1), computed in float64 and stored as float32: in float32 alone cancellation
near the floor costs up to 1e-3 on the [-4, 4] scale.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor

from .resample import SAMPLE_RATE, Read, Step, resample, to_float, to_mono_16k
from .speech import gate_mel, speech_activity

N_FFT = 800  # samples, 50 ms
HOP = 200  # samples, 12.5 ms
N_MELS = 80
F_MIN, F_MAX = 55.0, 7600.0  # Hz
MEL_COLUMNS_PER_SECOND = SAMPLE_RATE // HOP  # 80, exact
WINDOW_COLUMNS = 16  # 200 ms = 5 frames at 25 fps
MEL_SILENCE = -4.0
PRE_EMPHASIS = 0.97
REFERENCE_DB, MIN_DB = 20.0, -100.0
BLOCK_COLUMNS = 2048  # computed at a time, about 26 s
RESAMPLED = 0.7  # share of the time for a mel that resampling takes


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
        ValueError: the waveform is not one-dimensional, or holds NaN or infinity.
    """
    if waveform.ndim != 1:
        raise ValueError(f"mel_spectrogram takes mono [T], got shape {list(waveform.shape)}. Mix it down first.")
    return _columns(resample(to_float(waveform), sample_rate, SAMPLE_RATE)).T.contiguous()


def _columns(x: Tensor, step: Step | None = None) -> Tensor:
    """The mel of samples [T] at 16 kHz, a column a row: float32 [1 + T // 200, 80]; `step` as in `resample`."""
    made = MelColumns(lambda start, stop: x[start:stop], len(x))
    columns = torch.empty(len(made), N_MELS)
    # In blocks, because the spectrum of an hour of sound would fill gigabytes.
    for start in range(0, len(columns), BLOCK_COLUMNS):
        if step is not None:
            step(start / len(columns))
        stop = min(start + BLOCK_COLUMNS, len(columns))
        columns[start:stop] = made.rows(start, stop)
    return columns


class MelColumns:
    """Mel columns of a sound at 16 kHz, each the same whichever others are made with it.

    Args:
        read: the sound's samples, mono.
        samples: how many there are.
    """

    def __init__(self, read: Read, samples: int) -> None:
        self._read, self._samples = read, samples
        self._window, self._bank = torch.hann_window(N_FFT, dtype=torch.float64), slaney_filter_bank().double().T

    def __len__(self) -> int:
        return 1 + self._samples // HOP

    def rows(self, start: int, stop: int) -> Tensor:
        """Columns start .. stop - 1, a column a row: float32 [n, 80]."""
        if not self._samples:
            return torch.full((stop - start, N_MELS), MEL_SILENCE)
        return _mel_columns(self._emphasised(start, stop), self._window, self._bank)

    def _emphasised(self, start: int, stop: int) -> Tensor:
        """Pre-emphasised samples of the columns, reflected at the sound's ends: float64 [n, 800]."""
        last = max(self._samples, N_FFT // 2 + 1) - 1  # shorter ones are padded with zeros
        index = torch.arange(start * HOP - N_FFT // 2, (stop - 1) * HOP + N_FFT // 2).abs()
        index = last - (last - index).abs()
        low, high = max(0, int(index.min()) - 1), int(index.max()) + 1
        part = self._read(low, min(high, self._samples))
        part = torch.nn.functional.pad(part, (0, high - low - len(part))).double()
        samples = part[index - low] - PRE_EMPHASIS * part[(index - 1).clamp_min(0) - low] * (index > 0)
        return samples.unfold(0, N_FFT, HOP)


def _mel_columns(frames: Tensor, window: Tensor, bank: Tensor) -> Tensor:
    """float64 [n, 800] samples -> float32 [n, 80] normalised mel."""
    magnitude = torch.fft.rfft(frames * window).abs() @ bank
    decibel = 20 * torch.log10(magnitude.clamp_min(10 ** (MIN_DB / 20))) - REFERENCE_DB
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


@dataclass(frozen=True, eq=False)
class Mel:
    """A clip's sound as the generator hears it, with the sound itself.

    Attributes:
        values: float32 [T, 80] in [-4, 4], 80 columns a second, the first at time 0.
        activity: float32 [T] in [0, 1], see `speech_activity`.
        waveform: float32 [C, S], the sound as it came.
        sample_rate: Hz of `waveform`.
    """

    values: Tensor
    activity: Tensor
    waveform: Tensor
    sample_rate: int

    @property
    def duration(self) -> Fraction:
        """Length of the sound in seconds, exact."""
        return Fraction(self.waveform.shape[-1], self.sample_rate)


def load_mel(waveform: Any, sample_rate: int, step: Step | None = None) -> Mel:
    """Mel and speech activity of a sound of any kind.

    Args:
        waveform: [T], [C, T] or [1, C, T], float in [-1, 1] or integer PCM.
        sample_rate: Hz.
        step: called every now and then with the share that is done, 0 to 1; may raise to interrupt.

    Raises:
        ValueError: as `to_mono_16k`.
    """
    told: Step = step or (lambda share: None)
    mono = to_mono_16k(waveform, sample_rate, lambda share: told(RESAMPLED * share))
    samples = to_float(waveform).float()
    channels = samples.reshape(-1, samples.shape[-1]) if samples.ndim > 1 else samples[None]
    columns = _columns(mono, lambda share: told(RESAMPLED + (1 - RESAMPLED) * share))
    told(1.0)
    return Mel(columns, speech_activity(mono), channels, sample_rate)


def silent_mel(seconds: Fraction, step: Step | None = None) -> Mel:
    """The mel of nobody speaking for some seconds, at 16 kHz mono; `step` as in `load_mel`."""
    return load_mel(torch.zeros(max(1, round(seconds * SAMPLE_RATE))), SAMPLE_RATE, step)


def driving_mel(mel: Mel, speech_gate: float = 0.0, offset: float = 0.0) -> Tensor:
    """The mel that drives the lips: quiet where nobody speaks, moved in time.

    Args:
        mel: the sound.
        speech_gate: 0 = off, 1 = silence wherever nobody speaks.
        offset: seconds by which the sound is moved; positive = the lips move later.

    Returns:
        float32 [80, T'].
    """
    gated = gate_mel(mel.values.T, mel.activity, speech_gate, MEL_SILENCE)
    moved = max(round(offset * MEL_COLUMNS_PER_SECOND), -gated.shape[1])  # moved past its end, nothing is left
    return torch.nn.functional.pad(gated, (moved, 0), value=MEL_SILENCE) if moved else gated


def open_ended_windows(mel: Tensor, frames: int, fps: Fraction, lag: int = 0, first: int = 0) -> Tensor:
    """As `mel_windows`, but frames past the end of the sound hear silence; looks only at the columns it needs.

    Returns:
        float32 [frames, 1, 80, 16].
    """
    return windows_of(lambda low, high: mel[:, low:high], frames, fps, lag, first)


def windows_of(columns: Read, frames: int, fps: Fraction, lag: int = 0, first: int = 0) -> Tensor:
    """`open_ended_windows` of a mel that is asked once for the columns low .. high - 1, float32 [80, n]."""
    starts = window_starts(frames, fps, 2**62, lag, first)
    if not frames:
        return torch.empty(0, 1, N_MELS, WINDOW_COLUMNS)
    low, high = int(starts[0]), int(starts[-1]) + WINDOW_COLUMNS
    part = columns(low, high)
    part = torch.nn.functional.pad(part, (0, high - low - part.shape[1]), value=MEL_SILENCE)
    picked = (starts - low)[:, None] + torch.arange(WINDOW_COLUMNS)
    return part[:, picked].permute(1, 0, 2).unsqueeze(1).contiguous()


def driving_windows(
    mel: Mel, frames: int, fps: Fraction, *, speech_gate: float = 0.0, offset: float = 0.0, lag: int = 0, first: int = 0
) -> Tensor:
    """The mel window that drives each frame: `driving_mel`, then `open_ended_windows`.

    Args:
        mel: the sound.
        frames: number of frames.
        fps: frames per second, exact.
        speech_gate: see `driving_mel`.
        offset: see `driving_mel`.
        lag: frames by which the generator's windows are moved (spec A13).
        first: index of the first frame.

    Returns:
        float32 [frames, 1, 80, 16].
    """
    return open_ended_windows(driving_mel(mel, speech_gate, offset), frames, fps, lag, first)
