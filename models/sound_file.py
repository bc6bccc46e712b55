"""The sound of a media file, sample-exact against the picture."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .resample import to_float
from .video_open import DAMAGED, describe, open_container

GAP = Fraction(1, 20)  # s; time stamps that jump by more are a hole in the recording, less is rounding
MOST_SILENCE = 1 << 16  # samples of a hole that are made at a time
ROOM = 1 << 16  # samples there is room for at first
CODER_TAIL = 4096  # samples; a coder fills its last frames up, the file says where the sound really ends


def decode_sound(source: Any, start: Fraction | None) -> tuple[NDArray[np.float32], int] | None:
    """Decode the whole of the first audio stream.

    Args:
        source: path or file object.
        start: seconds, in the file's own time, at which the result begins: earlier sound is dropped, a later
            beginning and holes are filled with silence. None = the first sample.

    Returns:
        float32 [C, T] in [-1, 1] and its rate in Hz; None when the file holds no sound.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a media file, or damaged.
    """
    line = _Line(source, start)
    laid, length = np.empty((0, 0), np.float32), 0  # [room, C]; grows in place, as lists of blocks would not
    for block in line.blocks():
        stop = length + block.shape[1]
        if not length:
            laid = np.empty((max(ROOM, stop), len(block)), np.float32)
        elif stop > len(laid):
            laid.resize((max(stop, 2 * len(laid)), len(block)), refcheck=False)
        laid[length:stop] = block.T
        length = stop
    return (laid[: line.ending(length)].T, line.rate) if length else None


def open_sound(source: Any, start: Fraction | None) -> SoundFile | None:
    """The first audio stream, to be read block by block: sample for sample what `decode_sound` gives.

    It is decoded once from beginning to end now: only so its length is known, and damage is found before long work.

    Args:
        source: path or `GuardedFile`.
        start: see `decode_sound`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a media file, or damaged.
    """
    line, channels, length = _Line(source, start), 0, 0
    for block in line.blocks():
        channels, length = len(block), length + block.shape[1]
    return SoundFile(source, start, line.rate, channels, line.ending(length)) if length else None


class SoundFile:
    """A `SoundSource` in a file; made by `open_sound`.

    Args:
        source: path or `GuardedFile`.
        start: see `decode_sound`.
        rate: Hz.
        channels: number of channels.
        samples: number of samples.
    """

    def __init__(self, source: Any, start: Fraction | None, rate: int, channels: int, samples: int) -> None:
        self._source, self._start = source, start
        self.rate, self.channels, self.samples = rate, channels, samples
        self._begin()

    def read(self, start: int, stop: int) -> Tensor:
        """See `SoundSource.read`.

        Raises:
            ValueError: the file has been changed since it was opened.
        """
        stop = min(stop, self.samples)
        if start >= stop:
            return torch.empty(self.channels, 0)
        if start < self._first:
            self._begin()
        self._let_go(start)
        while self._next < stop:
            block = next(self._decoded, None)
            if block is None:
                raise ValueError(f"The sound of {describe(self._source)} ends early: the file was changed meanwhile.")
            self._held.append(block)
            self._next += block.shape[1]
            self._let_go(start)
        held = np.concatenate(self._held, 1)
        return torch.from_numpy(held[:, start - self._first : stop - self._first])

    def twin(self) -> SoundFile:
        """See `SoundSource.twin`."""
        return SoundFile(self._source, self._start, self.rate, self.channels, self.samples)

    def _begin(self) -> None:
        """Stand before the first sample."""
        self._decoded = _Line(self._source, self._start).blocks()
        self._held: deque[NDArray[np.float32]] = deque()
        self._first = self._next = 0  # sample at which what is held begins, and the one after it

    def _let_go(self, start: int) -> None:
        """Forget blocks that end before a sample."""
        while self._held and self._first + self._held[0].shape[1] <= start:
            self._first += self._held.popleft().shape[1]


class _Line:
    """Decoded blocks laid on one line of samples by their time stamps.

    Attributes:
        rate: Hz, known with the first block.
    """

    def __init__(self, source: Any, start: Fraction | None) -> None:
        self._source, self._start = source, start
        self._end: Fraction | None = None
        self.rate, self._channels = 0, 0
        self._length = 0  # samples laid
        self._head = 0  # where the next block begins; before the end of what is laid, its beginning is dropped

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """All samples in order, float32 [C, n] a block; none when the file holds no sound."""
        import av

        with open_container(self._source) as container:
            if not container.streams.audio:
                return
            stream = container.streams.audio[0]
            try:
                for frame in container.decode(stream):
                    yield from self._placed(frame)
            except av.error.FFmpegError as error:
                name = describe(self._source)
                raise ValueError(f"The sound of {name} cannot be decoded ({error}). {DAMAGED}") from error
            # Only this family of containers states the exact end; elsewhere `duration` is a guess.
            if "mp4" in container.format.name and stream.duration is not None:
                self._end = (stream.start_time + stream.duration) * stream.time_base

    def ending(self, length: int) -> int:
        """Samples of a line of that length that belong to the sound, when all blocks were made."""
        if self._end is None or self._start is None:
            return length
        stated = round((self._end - self._start) * self.rate)
        return max(0, stated) if 0 < length - stated <= CODER_TAIL else length

    def _placed(self, frame: Any) -> Iterator[NDArray[np.float32]]:
        """What a decoded frame adds to the line."""
        block = _samples(frame)
        time = None if frame.pts is None else frame.pts * Fraction(frame.time_base)
        if not self.rate:
            self.rate, self._channels = frame.sample_rate, len(block)
            self._start = time if self._start is None else self._start
        block = _fit_channels(block, self._channels)
        begin = self._head
        if time is not None and self._start is not None:
            due = round((time - self._start) * self.rate)
            if not self._head or abs(due - begin) > GAP * self.rate:
                begin = due
        self._head = begin + block.shape[1]
        while self._length < begin:
            hole = min(MOST_SILENCE, begin - self._length)
            self._length += hole
            yield np.zeros((self._channels, hole), np.float32)
        block = block[:, self._length - begin :]
        if block.shape[1]:
            self._length += block.shape[1]
            yield block


def _samples(frame: Any) -> NDArray[np.float32]:
    """float32 [C, n] of a decoded audio frame of any sample format."""
    samples = frame.to_ndarray()
    if frame.format.is_packed:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    return to_float(torch.from_numpy(np.ascontiguousarray(samples))).numpy()


def _fit_channels(block: NDArray[np.float32], channels: int) -> NDArray[np.float32]:
    """A stream that changes its layout on the way keeps the first one."""
    return block if len(block) == channels else np.repeat(block.mean(0, keepdims=True), channels, 0)
