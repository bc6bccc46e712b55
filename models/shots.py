"""Where shots begin: frames whose small colour picture has little to do with the one before."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

THUMBNAIL = (32, 18)  # px; small enough for hands and heads to count little
SAMPLED = 180  # rows of a frame, and columns as far apart, that are enough to see a cut
FLOOR = 0.02  # standard deviation (of 0..1) below which a picture counts as flat
SURE, LIKELY = 0.4, 0.2  # change (0 equal, 1 unrelated); real cuts measured 0.80 to 0.96, movement at most 0.29
SURE_RATIO, LIKELY_RATIO = 2.0, 10.0  # how far a cut stands out from the changes around it
REACH = 4  # frames on each side that a change is compared with


def thumbnail(frame: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What is kept of a frame uint8 [H, W, 3] RGB: a small picture of mean 0, float32 [18, 32, 3]."""
    import cv2

    height, width = frame.shape[:2]
    step = max(1, height // SAMPLED)
    size = max(1, width // step), max(1, height // step)
    cut = frame[: size[1] * step, : size[0] * step]
    sampled = cv2.resize(cut, size, interpolation=cv2.INTER_NEAREST) if step > 1 else frame
    small = np.float32(cv2.resize(sampled, THUMBNAIL, interpolation=cv2.INTER_AREA)) / 255
    return small - small.mean((0, 1))


class ShotFinder:
    """Collects frames chunk by chunk and keeps two numbers of each, whatever their size.

    The change between two thumbnails is |a - b|^2 / (|a|^2 + |b|^2) with their mean colours taken out: fades and
    exposure hardly count, and two unrelated pictures give about 1. A whip pan changes as much as a cut, but so do
    its neighbours; after a flash the next frame is the old picture again. Both are no cuts.
    """

    def __init__(self) -> None:
        self._thumbnails: list[NDArray[np.floating]] = []
        self._changes: list[tuple[float, float]] = []

    def add(self, small: Sequence[NDArray[np.floating]]) -> None:
        """Take the next frames, as `thumbnail` gives them."""
        known = np.stack([*self._thumbnails, *small])
        one, two = ([0.0] * back + change(known[:-back], known[back:]).tolist() for back in (1, 2))
        self._changes += list(zip(one, two, strict=False))[len(self._thumbnails) :]
        self._thumbnails = [*self._thumbnails, *small][-2:]

    def cuts(self) -> tuple[int, ...]:
        """First frames of all shots but the first, ascending."""
        if not self._changes:
            return ()
        one, two = np.array(self._changes).T
        return tuple(
            i for i in range(1, len(one)) if one[i] > LIKELY and _stands_out(one, i) and not _flash(one, two, i)
        )


def change(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.floating]:
    """Change between thumbnails [..., 18, 32, 3] of mean 0: [...], 0 = equal, about 1 = unrelated, 2 = inverted."""
    picture = (-3, -2, -1)
    flat = 2 * np.prod(a.shape[-3:]) * FLOOR**2
    return ((a - b) ** 2).sum(picture) / ((a**2).sum(picture) + (b**2).sum(picture) + flat)


def _stands_out(one: NDArray[np.float64], i: int) -> bool:
    around = np.concatenate([one[max(1, i - REACH) : i], one[i + 1 : i + 1 + REACH]])
    if len(around) < 2:
        return bool(one[i] > SURE)
    # The largest may be another cut; small ones say little, as films brought to another rate repeat frames.
    ratio = one[i] / max(float(np.sort(around)[-2]), 1e-6)
    return bool(ratio > LIKELY_RATIO or (one[i] > SURE and ratio > SURE_RATIO))


def _flash(one: NDArray[np.float64], two: NDArray[np.float64], i: int) -> bool:
    """Frame i + 1 shows what i - 1 showed, or i itself what i - 2 showed."""
    begins = i + 1 < len(one) and two[i + 1] < one[i] / 2 and one[i + 1] > LIKELY
    ends = i > 1 and two[i] < one[i] / 2 and one[i - 1] > LIKELY
    return bool(begins or ends)
