"""The sound of a track: its samples, its stretch of the mel spectrogram, and the windows of its frames at any lag."""

from __future__ import annotations

import io
import wave
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from models import audio
from models.resample import SAMPLE_RATE

from ..clips import FPS

REACH = 20  # frames of sound kept on both sides, so that lags and offsets find what they need
PACKED_REACH = 10  # of these in shards, whose sound is in sync: for the lags that trainers want
SAMPLES = SAMPLE_RATE // int(FPS)  # of a frame
EDGE = 4  # mel columns whose 50 ms of sound lie beyond the ends of a cut


@dataclass(frozen=True)
class TrackSound:
    """Part of a recording's mel.

    Attributes:
        mel: float32 [80, T] in [-4, 4].
        column: number of its first column in the recording.
        columns: how many columns the recording has.
        first: frame of the recording, at 25 fps, whose sound goes with the track's first picture.
        frames: length of the track.
    """

    def in_sync(self, offset: int) -> TrackSound:
        """The sound that belongs to the pictures, with `PACKED_REACH` frames round it.

        Args:
            offset: frames by which the sound comes late, at most `REACH - PACKED_REACH` either way.
        """
        first = self.first + offset
        asked = self.frames + 2 * PACKED_REACH
        starts = audio.window_starts(asked, FPS, self.columns, -PACKED_REACH, first)
        low, high = int(starts[0]), int(starts[-1]) + audio.WINDOW_COLUMNS
        mel = np.ascontiguousarray(self.mel[:, low - self.column : high - self.column])
        return TrackSound(mel, low, self.columns, first, self.frames)

    def arrays(self) -> dict[str, np.ndarray]:
        """As a shard stores it; `packed_sound` reads it."""
        numbers = {name: np.int64(getattr(self, name)) for name in ("column", "columns", "first")}
        return {"mel": self.mel, **numbers}

    mel: NDArray[np.float32]
    column: int
    columns: int
    first: int
    frames: int

    def windows_around(self, reach: int) -> NDArray[np.float32]:
        """Windows of `reach` frames before the track, of its own, and of `reach` frames after it."""
        before, after = self.windows(-reach)[:reach], self.windows(reach)[-reach:]
        return np.concatenate([before, self.windows(), after])

    def windows(self, lag: int = 0) -> NDArray[np.float32]:
        """The windows that `models.audio.mel_windows` cuts out of the whole recording, float32 [frames, 80, 16].

        Args:
            lag: frames by which the windows are moved, at most `REACH` either way.
        """
        starts = audio.window_starts(self.frames, FPS, self.columns, lag, self.first).numpy() - self.column
        columns = starts[:, None] + np.arange(audio.WINDOW_COLUMNS)
        return np.ascontiguousarray(self.mel[:, columns].transpose(1, 0, 2))


def track_sound(sound: torch.Tensor, first: int, frames: int) -> TrackSound:
    """The mel of a track and a little more; only that stretch is computed.

    Args:
        sound: float32 [S], the recording at 16 kHz.
        first: the track's first frame.
        frames: its length.
    """
    columns = 1 + len(sound) // audio.HOP
    starts = audio.window_starts(frames + 2 * REACH, FPS, columns, -REACH, first)
    low, high = int(starts[0]), int(starts[-1]) + audio.WINDOW_COLUMNS
    begin = max(0, low - EDGE)
    part = sound[begin * audio.HOP : (high + EDGE) * audio.HOP]
    mel = audio.mel_spectrogram(part)[:, low - begin : high - begin]
    return TrackSound(mel.numpy(), low, columns, first, frames)


def cut_samples(sound: NDArray[np.int16], first: int, frames: int) -> NDArray[np.int16]:
    """The samples of some frames of a recording, int16 [frames * 640]; zeros before its beginning and after its end."""
    start, stop = first * SAMPLES, (first + frames) * SAMPLES
    inside = sound[max(0, start) : max(0, stop)]
    before = min(max(0, -start), stop - start)
    return np.pad(inside, (before, stop - start - before - len(inside)))


def samples_in_sync(around: NDArray[np.int16], offset: int) -> NDArray[np.int16]:
    """What belongs to the pictures out of the samples of a track and of `REACH` frames before and after it."""
    return cut_samples(around, REACH + offset, len(around) // SAMPLES - 2 * REACH)


def wav(samples: NDArray[np.int16]) -> bytes:
    """A WAV file of 16 kHz mono."""
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        file.writeframes(samples.astype("<i2").tobytes())
    return buffer.getvalue()


def packed_sound(arrays: dict[str, np.ndarray], frames: int) -> TrackSound:
    """The sound of a shard's track, in sync already, out of its arrays."""
    return sound_from(arrays, int(arrays["first"]), frames)


def sound_from(arrays: dict[str, np.ndarray], first: int, frames: int) -> TrackSound:
    """The sound of a track out of its stored arrays `mel`, `column` and `columns`."""
    return TrackSound(arrays["mel"], int(arrays["column"]), int(arrays["columns"]), first, frames)
