"""The sound of a media file, sample-exact against the picture."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from .resample import to_float
from .video_open import DAMAGED, describe, open_container

GAP = Fraction(1, 20)  # s; time stamps that jump by more are a hole in the recording, less is rounding
CODER_TAIL = 4096  # samples; a coder fills its last frames up, the file says where the sound really ends


def decode_sound(source: Any, start: Fraction | None) -> tuple[NDArray[np.float32], int] | None:
    """Decode the first audio stream.

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
    import av

    name = describe(source)
    with open_container(source) as container:
        if not container.streams.audio:
            return None
        stream = container.streams.audio[0]
        line = _Line(start)
        try:
            for frame in container.decode(stream):
                line.add(frame)
        except av.error.FFmpegError as error:
            raise ValueError(f"The sound of {name} cannot be decoded ({error}). {DAMAGED}") from error
        # Only this family of containers states the exact end; elsewhere `duration` is a guess.
        exact = "mp4" in container.format.name and stream.duration is not None
        end = (stream.start_time + stream.duration) * stream.time_base if exact else None
    return line.result(end)


ROOM = 1 << 16  # samples there is room for at first


class _Line:
    """Decoded blocks laid on one line of samples by their time stamps."""

    def __init__(self, start: Fraction | None) -> None:
        self._start, self._rate = start, 0
        self._laid: NDArray[np.float32] | None = None  # [room, C]; grows in place, as lists of blocks would not
        self._length = 0  # samples laid
        self._head = 0  # where the next block begins; before the end of what is laid, its beginning is dropped

    def add(self, frame: Any) -> None:
        block = _samples(frame)
        time = None if frame.pts is None else frame.pts * Fraction(frame.time_base)
        if self._laid is None:
            self._rate = frame.sample_rate
            self._start = time if self._start is None else self._start
            self._laid = np.empty((ROOM, len(block)), np.float32)
        block = _fit_channels(block, self._laid.shape[1])
        begin = self._head
        if time is not None and self._start is not None:
            due = round((time - self._start) * self._rate)
            if not self._head or abs(due - begin) > GAP * self._rate:
                begin = due
        self._head = begin + block.shape[1]
        if begin > self._length:
            self._append(np.zeros((len(block), begin - self._length), np.float32))
        self._append(block[:, self._length - begin :])

    def _append(self, block: NDArray[np.float32]) -> None:
        assert self._laid is not None
        stop = self._length + block.shape[1]
        if stop > len(self._laid):
            self._laid.resize((max(stop, 2 * len(self._laid)), len(block)), refcheck=False)
        self._laid[self._length : stop] = block.T
        self._length = stop

    def result(self, end: Fraction | None) -> tuple[NDArray[np.float32], int] | None:
        if not self._length or self._laid is None:
            return None
        samples = self._laid[: self._length].T
        if end is not None and self._start is not None:
            stated = round((end - self._start) * self._rate)
            if 0 < samples.shape[1] - stated <= CODER_TAIL:
                samples = samples[:, :stated]
        return samples, self._rate


def _samples(frame: Any) -> NDArray[np.float32]:
    """float32 [C, n] of a decoded audio frame of any sample format."""
    samples = frame.to_ndarray()
    if frame.format.is_packed:
        samples = samples.reshape(-1, frame.layout.nb_channels).T
    return to_float(torch.from_numpy(np.ascontiguousarray(samples))).numpy()


def _fit_channels(block: NDArray[np.float32], channels: int) -> NDArray[np.float32]:
    """A stream that changes its layout on the way keeps the first one."""
    return block if len(block) == channels else np.repeat(block.mean(0, keepdims=True), channels, 0)
