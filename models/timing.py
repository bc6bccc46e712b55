"""Which source frame stands at which output frame, when lengths or rates differ. Seconds are fractions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

T = TypeVar("T")

POLICIES = ("pad", "cut", "loop", "bounce", "hold")


class Readable(Protocol):
    """What `read_numbered` needs of a frame source."""

    def read(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Frames start to stop as uint8 [n, H, W, 3] RGB."""
        ...


@dataclass(frozen=True)
class LengthPlan:
    """The length of the result and where its frames come from.

    Attributes:
        frames: frames of the result.
        source_frames: frames of the source.
        policy: see `plan_length`.
        audio_seconds: length of the result's sound, always frames / fps.
        message: one line for people, empty when nothing had to be changed.
    """

    frames: int
    source_frames: int
    policy: str
    audio_seconds: Fraction
    message: str


def plan_length(
    video_frames: int, fps: Fraction, audio_seconds: Fraction | float | None, policy: str = "pad"
) -> LengthPlan:
    """Decide how long the result becomes.

    A sound that ends within the last frame counts as equally long.

    Args:
        video_frames: frames of the source, at least 1.
        fps: frames per second, exact.
        audio_seconds: length of the sound; None = there is no sound, the video keeps its length.
        policy: "pad" = the video keeps its length, sound is padded with silence or cut; "cut" = both end with the
            shorter; "loop", "bounce", "hold" = the video follows the sound by starting over, running back and forth,
            or standing still on its last frame (it is cut when the sound is shorter).

    Raises:
        ValueError: unknown policy, no frames, or a rate or length that makes no sense.
    """
    if policy not in POLICIES:
        raise ValueError(f"The length policy {policy!r} is unknown; choose one of {', '.join(POLICIES)}.")
    if video_frames < 1 or fps <= 0:
        raise ValueError(
            f"The video has {video_frames} frames at {float(fps):g} fps; at least one frame and a positive rate are "
            "needed. Check the file or the node that made it."
        )
    if audio_seconds is None:
        return LengthPlan(video_frames, video_frames, policy, video_frames / fps, "")
    if audio_seconds <= 0:
        raise ValueError("The sound has no samples. Leave it unconnected, or load it again.")
    wanted = max(1, round(Fraction(audio_seconds) * fps))
    frames = {"pad": video_frames, "cut": min(video_frames, wanted)}.get(policy, wanted)
    return LengthPlan(frames, video_frames, policy, frames / fps, _message(video_frames, wanted, frames, fps, policy))


def _message(video: int, sound: int, frames: int, fps: Fraction, policy: str) -> str:
    if video == sound:
        return ""
    what = {
        "pad": "the sound is padded with silence" if sound < video else "the sound is cut",
        "cut": "the video is cut" if sound < video else "the sound is cut",
        "loop": "the video starts over",
        "bounce": "the video runs back and forth",
        "hold": "the video's last frame is held",
    }[policy]
    what = "the video is cut" if sound < video and policy != "pad" else what
    return (
        f"The video lasts {float(video / fps):.2f} s, the sound {float(sound / fps):.2f} s: {what} ({policy}); "
        f"the result has {frames} frames, {float(frames / fps):.2f} s."
    )


def source_indices(plan: LengthPlan, start: int, stop: int) -> NDArray[np.int64]:
    """Source frame of each output frame start .. stop - 1, int64 in [0, plan.source_frames)."""
    index, last = np.arange(start, stop, dtype=np.int64), plan.source_frames - 1
    if plan.policy == "loop":
        return index % plan.source_frames
    if plan.policy == "bounce":
        # There and back without showing the turning frames twice.
        return last - np.abs(last - index % max(1, 2 * last))
    return np.minimum(index, last)


def read_planned(read: Callable[[int, int], Sequence[T]], plan: LengthPlan, start: int, stop: int) -> list[T]:
    """Output frames start .. stop - 1, read from the source run by run: `read(first, stop)` gives frames in order."""
    indices = source_indices(plan, start, stop)
    runs = np.split(indices, np.flatnonzero(np.abs(np.diff(indices)) > 1) + 1)
    frames: list[T] = []
    for run in runs:
        low = int(run.min())
        part = read(low, int(run.max()) + 1)
        frames += [part[i] for i in (run - low).tolist()]
    return frames


def frame_numbers(
    times: NDArray[np.int64], base: Fraction, start: Fraction, count: int, rate: Fraction = Fraction(25)
) -> NDArray[np.int64]:
    """The source frame nearest to each moment of another rate, the earlier one of two equally near.

    Args:
        times: int64 [M] rising times of the source's frames, the first is 0.
        base: seconds of one unit of `times`.
        start: seconds at which the result begins.
        count: frames of the result.
        rate: of the result, frames per second.

    Returns:
        int64 [count].
    """
    # Twice the time of a frame, and the sum of two neighbours, as whole numbers: no rounding decides between them.
    unit, offset = base * rate, start * rate
    wanted = 2 * unit.denominator * (offset.numerator + offset.denominator * np.arange(count, dtype=np.int64))
    middles = unit.numerator * offset.denominator * (times[:-1] + times[1:])
    return np.searchsorted(middles, wanted)


def read_numbered(source: Readable, numbers: NDArray[np.int64], size: int) -> Iterator[NDArray[np.uint8]]:
    """Source frames by number, uint8 [n <= size, H, W, 3] RGB a time; repeated frames are decoded once.

    Args:
        source: where from.
        numbers: int64 [N], never falling.
        size: frames held at a time; more are read where the result leaves out frames.
    """
    last, unread = None, 0  # the last frame read and the number after it
    for start in range(0, len(numbers), size):
        part = numbers[start : start + size]
        low, stop = int(part[0]), int(part[-1]) + 1
        begin = max(low, unread)
        frames = [] if last is None or low >= unread else [last]
        frames += [source.read(begin, stop)] if begin < stop else []
        block = frames[0] if len(frames) == 1 else np.concatenate(frames)
        last, unread = block[-1:].copy(), stop
        yield block[part - low]


def fit_audio(waveform: Any, rate: int, seconds: Fraction) -> NDArray[np.float32]:
    """A sound cut or padded with silence to exactly round(seconds * rate) samples.

    Args:
        waveform: float [C, T] or [T], array or tensor.
        rate: Hz.
        seconds: wanted length.

    Returns:
        float32 [C, round(seconds * rate)]; shares the input's memory where it need not be padded.
    """
    samples = torch.as_tensor(waveform).detach().cpu().float().numpy()
    samples = samples[None] if samples.ndim == 1 else samples
    wanted = round(seconds * rate)
    if samples.shape[1] >= wanted:
        return samples[:, :wanted]
    return np.pad(samples[:, :wanted], ((0, 0), (0, max(0, wanted - samples.shape[1]))))
