"""Sounds read block by block, and the mel that drives the lips made on the way: memory does not grow with the sound."""

from __future__ import annotations

import functools
from collections.abc import Callable
from fractions import Fraction
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .audio import MEL_COLUMNS_PER_SECOND, MEL_SILENCE, N_MELS, MelColumns, windows_of
from .resample import PIECE_SECONDS, SAMPLE_RATE, resampled_piece, to_float
from .speech import activity_of, gate_mel


class SoundSource(Protocol):
    """Where a sound comes from."""

    @property
    def rate(self) -> int:
        """Samples a second."""
        ...

    @property
    def channels(self) -> int:
        """Number of channels, at least one."""
        ...

    @property
    def samples(self) -> int:
        """Number of samples, exact; 0 = there is nothing to hear."""
        ...

    def read(self, start: int, stop: int) -> Tensor:
        """Samples start .. stop - 1, float32 [C, n] in [-1, 1]; fewer where the sound ends.

        Reading on is cheap; a start before that of the last call may have to begin again at the first sample.
        """
        ...

    def twin(self) -> SoundSource:
        """The same sound for another thread: reading here does not move it, nor the other way round."""
        ...


class SoundArray:
    """A sound in memory.

    Args:
        waveform: [C, T] or [T], float in [-1, 1] or integer PCM. Kept as it is; each read converts its part.
        rate: Hz.

    Raises:
        ValueError: another shape, or no rate; a read raises it for NaN and infinity.
    """

    def __init__(self, waveform: Any, rate: int) -> None:
        samples = torch.as_tensor(waveform).detach()
        samples = samples[None] if samples.ndim == 1 else samples
        if samples.ndim != 2 or not len(samples) or rate <= 0:
            raise ValueError(f"Expected sound [channels, samples], got {list(samples.shape)} at {rate} Hz.")
        self._waveform, self.rate = samples, rate
        self.channels, self.samples = samples.shape

    def read(self, start: int, stop: int) -> Tensor:
        """See `SoundSource.read`."""
        return to_float(self._waveform[:, start:stop]).float().cpu()

    def twin(self) -> SoundArray:
        """See `SoundSource.twin`."""
        return self


class Converted:
    """A sound at another rate, or mixed to one channel, made while it is read.

    Args:
        source: the sound as it is.
        rate: Hz wanted.
        mono: mix all channels to one, their mean.
    """

    def __init__(self, source: SoundSource, rate: int, mono: bool) -> None:
        self._source, self._mono = source, mono
        self.rate, self.channels = rate, 1 if mono else source.channels
        self.samples = -(-source.samples * rate // source.rate)
        # A block that is wanted may lie across two pieces, and the next one begin before its end.
        self._piece = functools.lru_cache(maxsize=2)(self._resampled)

    def read(self, start: int, stop: int) -> Tensor:
        """See `SoundSource.read`."""
        if self.rate == self._source.rate:
            return self._mixed(start, stop)
        stop, size = min(stop, self.samples), PIECE_SECONDS * self.rate
        if start >= stop:
            return torch.empty(self.channels, 0)
        first, last = start // size, -(-stop // size)
        parts = [self._piece(number)[:, max(0, start - number * size) :] for number in range(first, last)]
        return torch.cat(parts, 1)[:, : stop - start]

    def twin(self) -> Converted:
        """See `SoundSource.twin`."""
        return Converted(self._source.twin(), self.rate, self._mono)

    def _mixed(self, start: int, stop: int) -> Tensor:
        samples = self._source.read(start, stop)
        return samples.mean(0, keepdim=True) if self._mono else samples

    def _resampled(self, number: int) -> Tensor:
        return resampled_piece(self._mixed, number, self._source.rate, self.rate)


class DrivingMel:
    """The mel that drives the lips: `audio.driving_mel` of a sound, made column by column as it is asked for.

    The sound is read once now, because the gate depends on the level of the whole.

    Args:
        sound: what is heard; this object alone may read it from now on.
        speech_gate: 0 = off, 1 = silence wherever nobody speaks.
        offset: seconds by which the sound is moved; positive = the lips move later.
        alive: called every now and then while the sound is read; may raise to interrupt.

    Raises:
        ValueError: the sound is damaged, or holds NaN or infinity.
    """

    def __init__(
        self, sound: SoundSource, speech_gate: float = 0.0, offset: float = 0.0, alive: Callable[[], None] | None = None
    ) -> None:
        heard = Converted(sound, SAMPLE_RATE, mono=True)

        def read(start: int, stop: int) -> Tensor:
            return heard.read(start, stop)[0]

        def read_alive(start: int, stop: int) -> Tensor:
            if alive is not None:
                alive()
            return read(start, stop)

        self._gate, self._moved = speech_gate, round(offset * MEL_COLUMNS_PER_SECOND)
        self._activity = activity_of(read_alive, heard.samples)
        self._columns = MelColumns(read, heard.samples)

    def windows(self, frames: int, fps: Fraction, lag: int = 0, first: int = 0) -> Tensor:
        """The mel window of each frame, see `audio.driving_windows`; cheap for frames in order.

        Returns:
            float32 [frames, 1, 80, 16].
        """
        return windows_of(self._between, frames, fps, lag, first)

    def _between(self, low: int, high: int) -> Tensor:
        """Columns low .. high - 1 of the moved sound, float32 [80, n]; silence before it, fewer where it ends."""
        start, stop = (min(max(0, column - self._moved), len(self._columns)) for column in (low, high))
        silent = min(high, max(low, self._moved)) - low
        if start == stop:
            return torch.full((N_MELS, silent), MEL_SILENCE)
        made = gate_mel(self._columns.rows(start, stop).T, self._activity[start:stop], self._gate, MEL_SILENCE)
        return torch.nn.functional.pad(made, (silent, 0), value=MEL_SILENCE)


def as_sound(audio: SoundSource | tuple[Any, int]) -> SoundSource:
    """A source as it is, or samples [C, T] and their rate as one.

    Raises:
        ValueError: as `SoundArray`.
    """
    return SoundArray(*audio) if isinstance(audio, tuple) else audio


def seconds_of(sound: SoundSource) -> Fraction:
    """Length of a sound, exact."""
    return Fraction(sound.samples, sound.rate)


def whole(sound: SoundSource) -> tuple[NDArray[np.float32], int]:
    """All of a sound at once, for work that needs it so: float32 [C, T] and its rate."""
    return sound.read(0, sound.samples).numpy(), sound.rate
