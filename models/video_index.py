"""Which frames a video file holds, at which times, and from where they can be decoded: read from packet headers."""

from __future__ import annotations

from array import array
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .clock import LONGEST_HOLE, Clock, continued
from .video_open import describe, fault, faults, open_container, picture_stream, sound_stream, undecodable

STILL_RATE = Fraction(25)
STANDARD_RATES = (
    *(Fraction(rate * 1000, 1001) for rate in (24, 30, 48, 60, 120)),
    *(Fraction(rate) for rate in (24, 25, 30, 48, 50, 60, 100, 120, 10, 12, 15, 20)),
)
SAME_RATE = Fraction(1, 100_000)  # 2997/100 announced means 30000/1001
LARGEST = 2**31 - 1  # containers and coders keep both halves of a rate in 32 bits
JUMP_BACK = Fraction(1, 10)  # s; less is rounding
JITTER = 1e-3  # s; time stamps rounded to milliseconds are still a constant rate


@dataclass(frozen=True)
class FrameIndex:
    """Times of all frames in the order in which they are shown.

    Attributes:
        pts: int64 [N] time stamps as the file has them, in units of the stream's time base; all 0 where it has none.
        times: int64 [N] rising, the time stamps with their jumps left out.
        keys: int64 [K] numbers of frames from which decoding can start, the first is 0.
        fps: frames per second.
        clock: what the sound goes by.
        notes: remarks for people.
    """

    pts: NDArray[np.int64]
    times: NDArray[np.int64]
    keys: NDArray[np.int64]
    fps: Fraction
    clock: Clock
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pts)

    @property
    def timed(self) -> bool:
        """Whether time stamps tell the frames apart."""
        return bool(self.times[-1] > self.times[0])

    def anchor(self, number: int) -> int:
        """Number of the last key frame at or before a frame."""
        return int(self.keys[np.searchsorted(self.keys, number, "right") - 1])

    def number_of(self, pts: int, start: int = 0) -> int | None:
        """Number of the first frame from `start` on that has a time stamp, None if none has."""
        found = np.flatnonzero(self.pts[start:] == pts)
        return start + int(found[0]) if len(found) else None


def scan(source: Any) -> FrameIndex:
    """Index a file.

    Packet headers suffice for nearly every file; where they leave doubt (no time stamps, or some that go back, hidden
    frames, a cut before the first key frame) the frames are counted by decoding.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: no video in it, none that can be decoded, or damaged.
    """
    name = describe(source)
    with open_container(source) as container:
        stream = picture_stream(container)
        if stream is None:
            raise ValueError(f"{name} holds no video. Choose a video file, or connect this one as audio.")
        if stream.codec_context is None:
            codec = undecodable(container, stream)
            raise ValueError(
                f"The video of {name} cannot be decoded here: there is no decoder for {codec}. Re-encode it as H.264; "
                "protected video has to be freed of its protection first."
            )
        try:
            packets, read = _from_packets(container, stream)
        except faults() as error:
            raise fault(source, f"cannot be read to its end ({error})") from error
        announced = [Fraction(rate) for rate in (stream.average_rate, stream.guessed_rate, stream.base_rate) if rate]
        base, promised = Fraction(stream.time_base), stream.frames
    pts, keys = packets or (_from_frames(source), np.zeros(1, np.int64))
    if not len(pts):
        raise fault(source, "holds no video frame that can be decoded")
    index, held = _index(source, pts, keys, base, announced), max(read, len(pts))
    if promised > held + 1:
        missing = f"The file announces {promised} frames but holds {held}: its end is missing."
        index = replace(index, notes=(*index.notes, missing))
    return index


def _index(
    source: Any, pts: NDArray[np.int64], keys: NDArray[np.int64], base: Fraction, announced: list[Fraction]
) -> FrameIndex:
    notes = []
    times, shifts = _continued(source, pts, base)
    start = int(pts[0]) * base
    if (np.diff(times) <= 0).any():
        if np.ptp(pts):
            notes.append("The time stamps of the video cannot be used: its frames are taken to be equally long.")
        pts, times, shifts = np.zeros_like(pts), np.zeros_like(pts), [0]
        fps, constant = (announced or [STILL_RATE])[0], True
    else:
        fps, constant = choose_rate(times, base, announced)
    if not fps:
        raise fault(source, f"has time stamps that make no sense: {len(times)} frames in {int(np.ptp(times)) * base} s")
    if len(shifts) > 1:
        notes.append(
            "The time stamps of the video jump, as in recordings joined end to end: picture and sound go on there "
            "without a hole."
        )
    if not constant:
        notes.append(
            f"The video has a variable frame rate. All {len(times)} frames are kept and shown at their average of "
            f"{float(fps):.3f} fps; re-encode at a constant rate if the sound drifts."
        )
    stop = max(int(times[-1] - times[0]) * base, (len(times) - 1) / fps) + 1 / fps
    return FrameIndex(pts, times, keys, fps, Clock(start, stop, tuple(shift * base for shift in shifts)), tuple(notes))


def _continued(source: Any, pts: NDArray[np.int64], base: Fraction) -> tuple[NDArray[np.int64], list[int]]:
    """See `continued`."""
    limit, step = int(LONGEST_HOLE / base), max(1, int(np.median(np.abs(np.diff(pts))))) if len(pts) > 1 else 1
    sound: list[NDArray[np.float64] | None] = []

    def still(begin: int, end: int) -> bool:
        if not sound:
            sound.append(_sound_times(source))
        times = sound[0]
        if times is None:
            return not _is_live(source)
        here = np.count_nonzero((times > float(begin * base)) & (times < float(end * base)))
        usual = float(np.median(np.abs(np.diff(times)))) if len(times) > 1 else 0.0
        return here * usual > float((end - begin) * base) / 2

    return continued(pts, limit, step, still)


def _sound_times(source: Any) -> NDArray[np.float64] | None:
    """Seconds, in the file's own time, at which packets of sound stand; None without sound."""
    with open_container(source) as container:
        stream = sound_stream(container)
        if stream is None:
            return None
        packets = container.demux(stream)
        try:
            return np.array([float(p.pts * p.time_base) for p in packets if p.pts is not None])
        except faults() as error:
            raise fault(source, f"cannot be read to its end ({error})") from error


def _is_live(source: Any) -> bool:
    """Whether files of this kind are recordings of what is sent, in which time may jump."""
    from av.format import Flags

    with open_container(source) as container:
        return bool(container.format.flags & Flags.ts_discont.value)


def _from_packets(container: Any, stream: Any) -> tuple[tuple[NDArray[np.int64], NDArray[np.int64]] | None, int]:
    """Times and key frames from packet headers, None where they do not tell which frames will be shown.

    Returns:
        These, and the number of packets, 0 where they were not all read.
    """
    times, keys, read, decoded = array("q"), array("q"), 0, -(2**63)
    back = int(JUMP_BACK / Fraction(stream.time_base))
    cut = False  # whether decoding starts before the first frame that is shown
    for packet in container.demux(stream):
        if not packet.size:  # the end
            continue
        read += 1
        if packet.is_discard:  # cut away by an edit list
            cut |= packet.is_keyframe
            continue
        if packet.pts is None:
            return None, 0
        order = packet.dts
        if order is not None:
            if order < decoded - back:
                return None, 0
            decoded = order
        times.append(packet.pts)
        if packet.is_keyframe:
            keys.append(packet.pts)
        elif not (keys or cut):
            return None, 0
    shown, count = np.unique(np.array(times, np.int64), return_counts=True)
    hidden_frames = stream.codec_context.name.startswith("vp8") or (len(count) and count.max() > 1)
    if hidden_frames or not len(shown):
        return None, read
    numbers = np.searchsorted(shown, np.unique(np.array(keys, np.int64)))
    if cut:
        numbers = np.union1d(0, numbers)
    return (None if numbers[0] else (shown, numbers)), read


def _from_frames(source: Any) -> NDArray[np.int64]:
    """Times of the frames that the decoder gives; where it gives some no time, all have the first that is known."""
    times: list[int | None] = []
    with open_container(source) as container:
        stream = picture_stream(container)
        stream.thread_type = "AUTO"
        try:
            times.extend(frame.pts for frame in container.decode(stream))
        except faults() as error:
            raise fault(source, f"cannot be decoded past frame {len(times)}") from error
    known = [time for time in times if time is not None]
    if len(known) < len(times):
        return np.full(len(times), known[0] if known else 0, np.int64)
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
        Rate, and whether it is constant: each frame within half a frame of its number / rate. 0 when less than one
        frame stands in half an hour.
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
    return average, bool(average) and error(average) <= 0.5 / float(average)


def _snap(rate: Fraction) -> Fraction:
    return next((best for best in STANDARD_RATES if abs(rate / best - 1) < SAME_RATE), rate)
