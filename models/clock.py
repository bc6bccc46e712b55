"""A file's own time: where its first frame stands, and how time stamps that jump are continued, as players do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

LONGEST_HOLE = Fraction(10)  # s; what is missing for longer was never there: two recordings were joined


@dataclass(frozen=True)
class Clock:
    """What the sound has to know of the picture to be in step with it.

    Attributes:
        start: seconds, in the file's own time, at which the first frame is shown; None without a picture.
        stop: seconds from there to the end of the last frame, jumps left out; None without a picture.
        shifts: seconds to be added to the file's time in each part of a recording whose time stamps jump, in order.
    """

    start: Fraction | None = None
    stop: Fraction | None = None
    shifts: tuple[Fraction, ...] = (Fraction(0),)


def continued(
    pts: NDArray[np.int64], limit: int, step: int, still: Callable[[int, int], bool]
) -> tuple[NDArray[np.int64], list[int]]:
    """Time stamps without their jumps: backwards, or forward by more than a limit.

    Args:
        pts: int64 [N >= 1] in the order in which the frames are shown.
        limit: the longest hole.
        step: time from frame to frame.
        still: whether the picture really stands still from one stamp to another, because the sound goes on.

    Returns:
        int64 [N], and what was added in each part, in order: [0] when nothing jumps.
    """
    times, shifts = pts.copy(), [0]
    starts = _starts(pts, limit)
    for begin, end in zip(starts, [*starts[1:], len(pts)], strict=True):
        if begin:
            before, first, last = int(pts[begin - 1]), int(pts[begin]), int(times[begin - 1])
            # A stamp that is wrong for a moment only: the next ones go on where those before it ended.
            returns = end < len(pts) and 0 < pts[end] - before <= limit
            if returns or first - before <= limit or not still(before, first):
                fits = [shift for shift in shifts if 0 < first + shift - last <= limit]
                shifts.append(min(fits, default=last + step - first))
        times[begin:end] += shifts[-1]
    return times, shifts


def _starts(pts: NDArray[np.int64], limit: int) -> list[int]:
    """Numbers of the frames from which on time stamps go on from elsewhere; the first is 0."""
    change = np.diff(pts)
    jumps = (change < 0) | (change > limit)
    # One frame behind both of its neighbours: what follows it is a part of its own, too.
    jumps[1:] |= (change[:-1] < 0) & (pts[2:] > pts[:-2])
    return [0, *(np.flatnonzero(jumps) + 1).tolist()]
