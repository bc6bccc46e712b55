"""Where to look for faces between two frames that were searched as a whole.

A detector sees most of a video's frames only in windows around the faces before and after. Windows lie on the grid of
the network's coarsest cells, so that what is found in them is what is found in the whole frame. Where that is not safe,
after a cut, for a face that comes, goes or gets lost, the whole frame is searched.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .faces import Detection
from .letterbox import GRID, Window
from .shots import LIKELY, change

Boxes = list[NDArray[np.float64]]

EVERY = 8  # frames from one whole search to the next
AROUND = 0.6  # of a face's larger side, looked at beyond its box on each side
MOVED = 1.0  # face sizes between two whole searches up to which it may be the same face


def key_frames(count: int) -> list[int]:
    """Frames that are searched as a whole: every `EVERY`th and the last."""
    return sorted({*range(0, count, EVERY), count - 1}) if count else []


def same_shot(small: Sequence[NDArray[np.float32]]) -> bool:
    """Whether nothing between these `shots.thumbnail`s looks like a cut."""
    pictures = np.stack(small)
    return bool((change(pictures[:-1], pictures[1:]) <= LIKELY).all())


def joint_boxes(before: list[Detection], after: list[Detection]) -> Boxes | None:
    """For each face the box around its two boxes; None unless each face of one frame is a face of the other."""
    if len(before) != len(after):
        return None
    left = list(after)
    result: Boxes = []
    for face in before:
        size = max(1.0, face.area**0.5)
        nearest = min(left, key=lambda other: _distance(face, other))
        if _distance(face, nearest) > MOVED * size:
            return None
        left = [other for other in left if other is not nearest]
        low, high = np.minimum(face.box, nearest.box)[:2], np.maximum(face.box, nearest.box)[2:]
        result.append(np.concatenate([low, high]).astype(np.float64))
    return result


def windows(boxes: Boxes, width: int, height: int) -> list[Window]:
    """Windows on the grid around boxes, in a picture of this size (sides divisible by `GRID`); none overlap."""
    found: list[Window] = []
    for box in boxes:
        more = AROUND * max(box[2] - box[0], box[3] - box[1])
        low = np.clip(np.floor((box[:2] - more) / GRID) * GRID, 0, (width - GRID, height - GRID))
        high = np.clip(np.ceil((box[2:] + more) / GRID) * GRID, low + GRID, (width, height))
        left, top, right, bottom = (int(side) for side in (*low, *high))
        one = (left, top, right, bottom)
        while touching := [other for other in found if _overlap(one, other)]:
            found = [other for other in found if other not in touching]
            together = np.array([one, *touching])
            one = (*map(min, together.T[:2].tolist()), *map(max, together.T[2:].tolist()))  # type: ignore[assignment]
        found.append(one)
    return found


def area(windows: list[Window]) -> int:
    """Pixels of all windows together."""
    return sum((right - left) * (bottom - top) for left, top, right, bottom in windows)


def _overlap(a: Window, b: Window) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def _distance(a: Detection, b: Detection) -> float:
    return float(np.linalg.norm((a.box[:2] + a.box[2:] - b.box[:2] - b.box[2:]) / 2))
