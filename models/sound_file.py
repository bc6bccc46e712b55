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

from .clock import LONGEST_HOLE, Clock
from .resample import to_float
from .video_open import describe, fault, faults, open_container, sound_stream, undecodable

GAP = Fraction(1, 20)  # s; time stamps that jump by more are a hole in the recording, less is rounding
OVERLAP = 1  # s; where recordings are joined, the sound of one may end that much after its picture
MOST_SILENCE = 1 << 16  # samples of a hole that are made at a time
ROOM = 1 << 16  # samples there is room for at first
CODER_TAIL = 4096  # samples; a coder fills its last frames up, the file says where the sound really ends


def decode_sound(source: Any, clock: Clock) -> tuple[NDArray[np.float32], int] | None:
    """Decode the whole of the first audio stream that can be decoded.

    Args:
        source: path or file object.
        clock: says where the result begins: earlier sound is dropped, a later beginning and holes are filled with
            silence. Without a picture it begins with the first sample.

    Returns:
        float32 [C, T] in [-1, 1] and its rate in Hz; None when the file holds no sound.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: not a media file, damaged, of a kind that cannot be decoded, or not to be brought in step.
    """
    line = _Line(source, clock)
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


def open_sound(source: Any, clock: Clock) -> SoundFile | None:
    """The first audio stream, to be read block by block: sample for sample what `decode_sound` gives.

    It is decoded once from beginning to end now: only so its length is known, and damage is found before long work.

    Args:
        source: path or `GuardedFile`.
        clock: see `decode_sound`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: see `decode_sound`.
    """
    line, channels, length = _Line(source, clock), 0, 0
    for block in line.blocks():
        channels, length = len(block), length + block.shape[1]
    return SoundFile(source, clock, line.rate, channels, line.ending(length)) if length else None


class SoundFile:
    """A `SoundSource` in a file; made by `open_sound`.

    Args:
        source: path or `GuardedFile`.
        clock: see `decode_sound`.
        rate: Hz.
        channels: number of channels.
        samples: number of samples.
    """

    def __init__(self, source: Any, clock: Clock, rate: int, channels: int, samples: int) -> None:
        self._source, self._clock = source, clock
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
        return SoundFile(self._source, self._clock, self.rate, self.channels, self.samples)

    def _begin(self) -> None:
        """Stand before the first sample."""
        self._decoded = _Line(self._source, self._clock).blocks()
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

    def __init__(self, source: Any, clock: Clock) -> None:
        self._source, self._clock, self._start = source, clock, clock.start
        self._shift, self._later = clock.shifts[0], clock.shifts[1:]  # of this part of the recording, of those to come
        self._astray = Fraction(0)  # seconds to be added where time stamps tell nothing
        self._lost: int | None = None  # the sample from which on they do so beside a picture
        self._end: Fraction | None = None
        self.rate, self._channels = 0, 0
        self._length = 0  # samples laid
        self._head = 0  # where the next block begins; before the end of what is laid, its beginning is dropped

    def blocks(self) -> Iterator[NDArray[np.float32]]:
        """All samples in order, float32 [C, n] a block; none when the file holds no sound."""
        with open_container(self._source) as container:
            stream = sound_stream(container)
            if stream is None:
                self._refuse(container)
                return
            try:
                last = None
                for frame in container.decode(stream):
                    if last is not None:
                        yield from self._placed(last, frame)
                    last = frame
                if last is not None:
                    yield from self._placed(last, None)
            except faults() as error:
                raise fault(self._source, f"has sound that cannot be decoded ({error})") from error
            # Only this family of containers states the exact end; elsewhere `duration` is a guess.
            if "mp4" in container.format.name and None not in (stream.start_time, stream.duration):
                self._end = (stream.start_time + stream.duration) * stream.time_base

    def ending(self, length: int) -> int:
        """Samples of a line of that length that belong to the sound, when all blocks were made."""
        if self._end is None or self._start is None:
            return length
        stated = round((self._end + self._shift - self._start) * self.rate)
        return max(0, stated) if 0 < length - stated <= CODER_TAIL else length

    def _refuse(self, container: Any) -> None:
        """There is no sound, or none that can be decoded: that is an error."""
        if container.streams.audio:
            codec = undecodable(container, container.streams.audio[0])
            raise ValueError(
                f"The sound of {describe(self._source)} cannot be decoded here: there is no decoder for {codec}. "
                "Convert it to AAC or WAV."
            )

    def _placed(self, frame: Any, following: Any) -> Iterator[NDArray[np.float32]]:
        """What a decoded frame adds to the line; `following` is the one after it, None at the end."""
        if self._lost is not None and self._head - self._lost > OVERLAP * self.rate:
            raise self._unrelated(self._lost)
        block, time = _samples(frame), _time(frame)
        if not self.rate:
            self.rate, self._channels = frame.sample_rate, len(block)
            self._start = time if self._start is None else self._start
        block = _fit_channels(block, self._channels)
        begin = self._head
        if time is not None and self._start is not None:
            due = self._due(time)
            if not self._head:
                begin = due
            if abs(due - self._head) > GAP * self.rate:
                begin = self._jumped(time, _goes_on(frame, following))
        self._head = begin + block.shape[1]
        while self._length < begin:
            hole = min(MOST_SILENCE, begin - self._length)
            self._length += hole
            yield np.zeros((self._channels, hole), np.float32)
        block = block[:, self._length - begin :]
        if block.shape[1]:
            self._length += block.shape[1]
            yield block

    def _due(self, time: Fraction) -> int:
        """The sample at which something stands by its time stamp."""
        assert self._start is not None
        return round((time + self._shift + self._astray - self._start) * self.rate)

    def _nearest(self, time: Fraction) -> int:
        """As `_due`, in this part of the recording or a later one: the one where it best follows what is laid."""
        parts = (self._shift, *self._later)

        def distance(part: int) -> int:
            self._shift = parts[part]
            return abs(self._due(time) - self._head)

        part = min(range(len(parts)), key=distance)
        self._shift, self._later = parts[part], parts[part + 1 :]
        return self._due(time)

    def _jumped(self, time: Fraction, lasting: bool) -> int:
        """The sample at which a block begins that does not follow the one before.

        Args:
            time: its time stamp.
            lasting: whether time goes on from there.
        """
        astray, self._astray = self._astray, Fraction(0)
        here, most, stop = self._due(time), LONGEST_HOLE * self.rate, self._clock.stop
        if here < 0 and not self._length and -here <= most:  # from before the first frame: dropped
            return here
        if not lasting and abs(here - self._head) > OVERLAP * self.rate:
            self._astray = astray
            return self._head
        here = self._nearest(time)
        by = here - self._head
        early = here < 0 and not self._length
        near = (0 if stop is None else -OVERLAP * self.rate) <= by <= most
        meanwhile = stop is not None and 0 < by and here <= stop * self.rate + most  # the picture goes on
        if early or near or meanwhile:
            self._lost = None
            return here
        self._astray = Fraction(-by, self.rate)
        if stop is not None and self._head < stop * self.rate and self._lost is None:
            self._lost = self._head
        return self._head

    def _unrelated(self, at: int) -> ValueError:
        """The error where nothing tells how sound and picture belong together from a sample on."""
        return ValueError(
            f"The time stamps of the sound of {describe(self._source)} jump by {float(-self._astray):.1f} s after "
            f"{at / self.rate:.1f} s, those of its picture do not: it cannot be told which sound belongs to which "
            "picture. Re-encode the parts that it was joined of one by one, then join them; or connect the sound from "
            "elsewhere."
        )


def _time(frame: Any) -> Fraction | None:
    """Seconds, in the file's own time, at which a decoded frame begins."""
    return None if frame.pts is None else frame.pts * Fraction(frame.time_base)


def _goes_on(frame: Any, following: Any) -> bool:
    """Whether a decoded frame's time stamp and that of the next agree."""
    begin, end = _time(frame), None if following is None else _time(following)
    if begin is None or end is None:
        return True
    return abs(end - begin - Fraction(frame.samples, frame.sample_rate)) <= GAP


def _samples(frame: Any) -> NDArray[np.float32]:
    """float32 [C, n] of a decoded audio frame of any sample format."""
    samples = frame.to_ndarray()
    if frame.format.is_packed:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    return to_float(torch.from_numpy(np.ascontiguousarray(samples))).numpy()


def _fit_channels(block: NDArray[np.float32], channels: int) -> NDArray[np.float32]:
    """A stream that changes its layout on the way keeps the first one."""
    return block if len(block) == channels else np.repeat(block.mean(0, keepdims=True), channels, 0)
