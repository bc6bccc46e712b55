"""Which picture shows the generator what the lower face looks like: an earlier frame in nearly the same pose.

With the frame itself as reference the lips keep following the old mouth; with one fixed frame the pose is wrong as soon
as the head moves. In training the reference is at least five frames away (spec A11), and so it is here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

DISTANCE = 5  # frames, at least, between a frame and its reference: their 200 ms of sound do not overlap
CAPACITY = 64  # pictures kept: enough for the poses of a head, and memory that does not grow with the clip
NOVEL = 1.0  # grey levels: poses nearer than this to one that is kept are not kept too
GAIN = 1.5  # grey levels: another picture must be nearer by this, since each change is a small jump in the result


def pose_thumbnail(crop: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Upper half of a crop, uint8 [S, S, 3], as 12 x 6 grey levels around their mean, float32 [72].

    Near pictures are near in pose, whatever a flickering lamp does.
    """
    import cv2

    upper = np.ascontiguousarray(crop[: len(crop) // 2])
    small = cv2.resize(upper, (12, 6), interpolation=cv2.INTER_AREA)
    grey = small.astype(np.float32).mean(2).ravel()
    return grey - grey.mean()


@dataclass
class _Kept:
    frame: int
    crop: NDArray[np.uint8]
    pose: NDArray[np.float32]


@dataclass
class References:
    """Chooses references in one pass over a clip, frame after frame; what comes in one call or in many is the same.

    A shot begins anew. The first frames of a shot, which have nothing earlier, are their own reference.
    """

    _shot: int | None = None
    _kept: list[_Kept] = field(default_factory=list)
    _waiting: list[_Kept] = field(default_factory=list)  # too near in time to be used yet
    _current: _Kept | None = None

    def choose(
        self, crops: NDArray[np.uint8], frames: NDArray[np.integer], shots: NDArray[np.integer]
    ) -> NDArray[np.uint8]:
        """References of the next crops.

        Args:
            crops: uint8 [n, S, S, 3] RGB.
            frames: their numbers in the video, [n]. Going back in time (loops) is allowed.
            shots: number of the shot each belongs to, [n].

        Returns:
            uint8 [n, S, S, 3], one a crop.
        """
        chosen = np.empty_like(crops)
        for i, (crop, frame, shot) in enumerate(zip(crops, frames.tolist(), shots.tolist(), strict=True)):
            if shot != self._shot:
                self._shot, self._kept, self._waiting, self._current = shot, [], [], None
            pose = pose_thumbnail(crop)
            self._admit(frame)
            self._current = self._nearest(frame, pose)
            chosen[i] = crop if self._current is None else self._current.crop
            if all(frame != waiting.frame for waiting in self._waiting):  # a still is one frame again and again
                self._waiting.append(_Kept(frame, crop.copy(), pose))
        return chosen

    def _admit(self, frame: int) -> None:
        """Keep what has become old enough and shows a new pose."""
        while self._waiting and abs(frame - self._waiting[0].frame) >= DISTANCE:
            picture = self._waiting.pop(0)
            if all(_between(picture.pose, kept.pose) > NOVEL for kept in self._kept):
                self._kept = [*self._kept, picture][-CAPACITY:]

    def _nearest(self, frame: int, pose: NDArray[np.float32]) -> _Kept | None:
        """The kept picture nearest in pose and far enough in time; the current one unless that is clearly nearer."""
        allowed = [kept for kept in self._kept if abs(frame - kept.frame) >= DISTANCE]
        if not allowed:
            return None
        best = min(allowed, key=lambda kept: _between(pose, kept.pose))
        current = self._current
        if current is None or abs(frame - current.frame) < DISTANCE:
            return best
        return best if _between(pose, best.pose) < _between(pose, current.pose) - GAIN else current


def _between(a: NDArray[np.float32], b: NDArray[np.float32]) -> float:
    return float(np.abs(a - b).mean())


def shot_numbers(cuts: tuple[int, ...], frames: NDArray[np.integer]) -> NDArray[np.int64]:
    """Number of the shot each frame belongs to; `cuts` are the first frames of all shots but the first."""
    return np.searchsorted(np.asarray(cuts, np.int64), frames, side="right")
