"""Which picture shows the generator what the lower face looks like: the mean of other frames in nearly the same pose.

With the frame itself as reference the lips keep following the old mouth; with one fixed frame the pose is wrong as soon
as the head moves. A mean of several frames shows the face and no particular mouth, and changes without jumps. In
training references are at least five frames away (spec A11), and so they are here. Earlier frames are all looked at; of
what is to come a few pictures, spread over the shot, so that its first frames too have something to choose from.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

DISTANCE = 5  # frames, at least, between a frame and its reference: their 200 ms of sound do not overlap
CAPACITY = 64  # poses kept: enough for a head, and memory that does not grow with the clip
NOVEL = 1.0  # grey levels: a pose nearer than this to one that is kept adds to its mean picture
LASTING = 8  # frames after which a mean picture forgets
NEAREST = 8  # poses that make a reference
PREVIEWED = 48  # pictures of a shot that are looked at before it begins

Preview = Callable[[int], tuple[NDArray[np.uint8], NDArray[np.integer]]]


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
class _Pose:
    """A pose, the mean picture [S, S, 3] of `count` frames in it, and the number of the last of these."""

    thumbnail: NDArray[np.float32]
    picture: NDArray[Any]  # float32, or uint8 while it is of one frame that is never added to
    frame: int
    count: int = 1

    def add(self, frame: int, crop: NDArray[np.uint8]) -> None:
        self.count = min(self.count + 1, LASTING)
        self.picture += (crop - self.picture) / self.count
        self.frame = frame


@dataclass
class References:
    """Makes references in one pass over a clip, frame after frame; what comes in one call or in many is the same.

    A shot begins anew. Frames that have nothing far enough away are their own reference.

    Attributes:
        preview: number of a shot -> some of its crops, uint8 [m, S, S, 3], and their numbers in the video, see
            `preview_rows`; None = only earlier frames are known.
    """

    preview: Preview | None = None
    _shot: int | None = None
    _previewed: list[_Pose] = field(default_factory=list)
    _kept: list[_Pose] = field(default_factory=list)
    _waiting: list[tuple[int, NDArray[np.uint8]]] = field(default_factory=list)  # too near in time to be used yet

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
                self._begin(shot)
            self._admit(frame)
            chosen[i] = self._mean_of_nearest(frame, crop)
            if all(frame != number for number, _ in self._waiting):  # a still is one frame again and again
                self._waiting.append((frame, crop.copy()))
        return chosen

    def _begin(self, shot: int) -> None:
        self._shot, self._previewed, self._kept, self._waiting = shot, [], [], []
        if self.preview is not None:
            crops, frames = self.preview(shot)
            pictures = zip(crops, frames.tolist(), strict=True)
            self._previewed = [_Pose(pose_thumbnail(crop), crop, frame) for crop, frame in pictures]

    def _admit(self, frame: int) -> None:
        """Use what has become old enough."""
        while self._waiting and abs(frame - self._waiting[0][0]) >= DISTANCE:
            number, crop = self._waiting.pop(0)
            thumbnail = pose_thumbnail(crop)
            distances = _distances(self._kept, thumbnail)
            if len(distances) and distances.min() <= NOVEL:
                self._kept[int(distances.argmin())].add(number, crop)
            else:
                self._kept = [*self._kept, _Pose(thumbnail, crop.astype(np.float32), number)][-CAPACITY:]

    def _mean_of_nearest(self, frame: int, crop: NDArray[np.uint8]) -> NDArray[np.uint8]:
        known = (*self._previewed, *self._kept)
        allowed = [pose for pose in known if abs(frame - pose.frame) >= DISTANCE]
        if not allowed:
            return crop
        nearest = np.argsort(_distances(allowed, pose_thumbnail(crop)), kind="stable")[:NEAREST]
        mean: NDArray[np.uint8] = np.mean([allowed[i].picture for i in nearest], 0).round().astype(np.uint8)
        return mean


def _distances(poses: list[_Pose], thumbnail: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean absolute differences [len(poses)] in grey levels."""
    known = np.array([pose.thumbnail for pose in poses], np.float32).reshape(len(poses), len(thumbnail))
    return np.asarray(np.abs(known - thumbnail).mean(1))


def preview_rows(rows: NDArray[np.integer]) -> NDArray[np.integer]:
    """At most `PREVIEWED` of a shot's frames [n] at even distances."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(len(rows), PREVIEWED)).round().astype(np.int64))]


def references_within(
    crops: NDArray[np.uint8], present: NDArray[np.bool_], shots: NDArray[np.integer]
) -> NDArray[np.uint8]:
    """References of a whole clip that is in memory, uint8 [N, S, S, 3].

    Args:
        crops: uint8 [N, S, S, 3] RGB.
        present: [N] frames that show the face; the others, which hold a neighbour's crop, serve as nobody's reference.
        shots: [N] number of the shot each belongs to.
    """

    def preview(shot: int) -> tuple[NDArray[np.uint8], NDArray[np.integer]]:
        rows = preview_rows(np.flatnonzero(present & (shots == shot)))
        return crops[rows], rows

    there = np.flatnonzero(present)
    result = crops.copy()
    result[there] = References(preview).choose(crops[there], there, shots[there])
    return result


def shot_numbers(cuts: tuple[int, ...], frames: NDArray[np.integer]) -> NDArray[np.int64]:
    """Number of the shot each frame belongs to; `cuts` are the first frames of all shots but the first."""
    return np.searchsorted(np.asarray(cuts, np.int64), frames, side="right")
