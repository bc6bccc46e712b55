"""Which frames a video file holds, at which times, and from where they can be decoded: read from packet headers."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .video_open import DAMAGED, describe, open_container, picture_stream

STILL_RATE = Fraction(25)
STANDARD_RATES = (
    *(Fraction(rate * 1000, 1001) for rate in (24, 30, 48, 60, 120)),
    *(Fraction(rate) for rate in (24, 25, 30, 48, 50, 60, 100, 120, 10, 12, 15, 20)),
)
SAME_RATE = Fraction(1, 100_000)  # 2997/100 announced means 30000/1001
LARGEST = 2**31 - 1  # containers and coders keep both halves of a rate in 32 bits
JITTER = 1e-3  # s; time stamps rounded to milliseconds are still a constant rate


@dataclass(frozen=True)
class FrameIndex:
    """Times of all frames in the order in which they are shown.

    Attributes:
        pts: int64 [N] in units of the stream's time base; empty times (a stream without) are counted up.
        keys: int64 [K] numbers of frames from which decoding can start, the first is 0.
        fps: frames per second.
        origin: seconds at which the first frame is shown, in the file's own time.
        notes: remarks for people.
    """

    pts: NDArray[np.int64]
    keys: NDArray[np.int64]
    fps: Fraction
    origin: Fraction
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pts)

    def anchor(self, number: int) -> int:
        """Number of the last key frame at or before a frame."""
        return int(self.keys[np.searchsorted(self.keys, number, "right") - 1])

    def number_of(self, pts: int) -> int | None:
        """Number of the frame shown at a time, None if none is."""
        number = int(np.searchsorted(self.pts, pts))
        return number if number < len(self.pts) and self.pts[number] == pts else None


def scan(source: Any) -> FrameIndex:
    """Index a file.

    Packet headers suffice for nearly every file; where they leave doubt (no time stamps, hidden frames, a cut before
    the first key frame) the frames are counted by decoding.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no video in it, or damaged.
    """
    import av

    name = describe(source)
    with open_container(source) as container:
        stream = picture_stream(container)
        if stream is None:
            raise ValueError(f"{name} holds no video. Choose a video file, or connect this one as audio.")
        try:
            times, keys = _from_packets(container, stream) or (None, None)
        except av.error.FFmpegError as error:
            raise ValueError(f"{name} cannot be read to its end ({error}). {DAMAGED}") from error
        announced = [stream.average_rate, stream.guessed_rate, stream.base_rate]
        base, promised = stream.time_base, stream.frames
    if times is None or keys is None:
        times = _from_frames(source, name)
        keys = np.zeros(1, np.int64)
    if not len(times):
        raise ValueError(f"{name} holds no video frame that can be decoded. {DAMAGED}")
    return _index(times, keys, base, announced, promised)


def _index(
    times: NDArray[np.int64], keys: NDArray[np.int64], base: Fraction, announced: Iterable[Any], promised: int
) -> FrameIndex:
    known = len(times) < 2 or times[-1] > times[0]
    rates = [Fraction(rate) for rate in announced if rate]
    fps, constant = choose_rate(times, base, rates) if known else ((rates or [STILL_RATE])[0], True)
    notes = []
    if not constant:
        notes.append(
            f"The video has a variable frame rate. All {len(times)} frames are kept and shown at their average of "
            f"{float(fps):.3f} fps; re-encode at a constant rate if the sound drifts."
        )
    if promised > len(times) + 1:
        notes.append(f"The file announces {promised} frames but holds {len(times)}: its end is missing.")
    origin = int(times[0]) * Fraction(base) if known else Fraction(0)
    return FrameIndex(times, keys, fps, origin, tuple(notes))


def _from_packets(container: Any, stream: Any) -> tuple[NDArray[np.int64], NDArray[np.int64]] | None:
    """Times and key frames from packet headers, None where they do not tell which frames will be shown."""
    times, keys = array("q"), array("q")
    for packet in container.demux(stream):
        if not packet.size or packet.is_discard:  # flush, or cut away by an edit list
            continue
        if packet.pts is None:
            return None
        times.append(packet.pts)
        if packet.is_keyframe:
            keys.append(packet.pts)
        elif not keys:
            return None
    shown, count = np.unique(np.array(times, np.int64), return_counts=True)
    hidden_frames = stream.codec_context.name.startswith("vp8") or (len(count) and count.max() > 1)
    if hidden_frames or not len(shown) or shown[0] < keys[0]:
        return None
    return shown, np.searchsorted(shown, np.unique(np.array(keys, np.int64)))


def _from_frames(source: Any, name: str) -> NDArray[np.int64]:
    """Times of the frames that the decoder gives; numbers where it gives no times."""
    import av

    times: list[int | None] = []
    with open_container(source) as container:
        stream = picture_stream(container)
        stream.thread_type = "AUTO"
        try:
            times.extend(frame.pts for frame in container.decode(stream))
        except av.error.FFmpegError as error:
            raise ValueError(f"{name} cannot be decoded past frame {len(times)}. {DAMAGED}") from error
    known = [time for time in times if time is not None]
    if len(known) < len(times) or any(b <= a for a, b in zip(known, known[1:], strict=False)):
        return np.zeros(len(times), np.int64)
    return np.array(known, np.int64)


def coder_rate(rate: Fraction | float) -> Fraction:
    """A frame rate that containers can store.

    Args:
        rate: frames per second; hosts make fractions of decimals, so 29.97 arrives as a quotient of 15 digits each.

    Returns:
        The rate itself where it fits, else the standard rate it means (30000/1001), else the nearest simple fraction.

    Raises:
        ValueError: not positive.
    """
    exact = Fraction(rate)
    if exact <= 0:
        raise ValueError(f"The frame rate is {float(exact):g}; expected a positive number such as 25.")
    if max(exact.numerator, exact.denominator) <= LARGEST:
        return exact
    return _snap(exact.limit_denominator(1001))


def choose_rate(times: NDArray[np.int64], base: Fraction, announced: list[Fraction]) -> tuple[Fraction, bool]:
    """Frame rate that fits the time stamps.

    Args:
        times: int64 [N] rising time stamps.
        base: seconds of one unit.
        announced: what the container says, most trusted first.

    Returns:
        Rate, and whether it is constant: each frame within half a frame of its number / rate.
    """
    if len(times) < 2:
        return next(iter(announced), STILL_RATE), True
    seconds = (times - times[0]) * float(base)
    number = np.arange(len(times))

    def error(rate: Fraction) -> float:
        return float(np.abs(seconds - number / float(rate)).max())

    for rate in [*map(_snap, announced), *STANDARD_RATES]:
        if error(rate) <= max(JITTER, float(base)):
            return rate, True
    span = int(times[-1] - times[0]) * Fraction(base)
    average = _snap(((len(times) - 1) / span).limit_denominator(1001))
    return average, error(average) <= 0.5 / float(average)


def _snap(rate: Fraction) -> Fraction:
    return next((best for best in STANDARD_RATES if abs(rate / best - 1) < SAME_RATE), rate)
