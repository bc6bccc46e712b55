"""How a followed face is cut out of whole frames for a sync model: each model wants what it was trained with."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..geometry import warp_crops
from ..tracklets import Tracklet
from .sync_model import SyncModel

if TYPE_CHECKING:
    from ..tracks import FaceTracker

# number of a frame of the clip, the frame uint8 [H, W, 3] -> the face, uint8 [side, side, 3] RGB
Cutter = Callable[[int, NDArray[np.uint8]], NDArray[np.uint8]]

MEDIAN = 13  # frames
SCALE = 0.4  # by which SyncNet's crop is wider than the box on each side, in box sides
FILL = 110  # grey outside the frame


def cutter(model: SyncModel, tracker: FaceTracker, face: Tracklet) -> Cutter:
    """What cuts this face out for this model; asks for frames from the face's first to its last one."""
    first, side = face.first.frame, model.side
    if model.geometry == "unit":
        matrices = tracker.follow(face).matrices
        return lambda frame, picture: warp_crops(picture[None], matrices[frame][None], side)[0]
    boxes = interpolated_boxes(face)
    if model.geometry == "box":
        return lambda frame, picture: _box_crop(picture, boxes[frame - first], side)
    squares = steady_squares(boxes)
    return lambda frame, picture: wide_crop(picture, squares[frame - first], side)


def unbroken(face: Tracklet, longest: int) -> list[Tracklet]:
    """A face's stretches in which no two sightings follow each other by more than `longest` frames."""
    parts = [Tracklet()]
    for sighting in face.sightings.values():
        if parts[-1].sightings and sighting.frame - parts[-1].last.frame > longest:
            parts.append(Tracklet())
        parts[-1].add(sighting)
    return parts


def interpolated_boxes(face: Tracklet) -> NDArray[np.float64]:
    """Boxes of all frames from the first sighting to the last, gaps filled linearly, [n, 4]."""
    seen = np.array(list(face.sightings))
    boxes = np.array([sighting.box for sighting in face.sightings.values()], np.float64)
    frames = np.arange(seen[0], seen[-1] + 1)
    return np.stack([np.interp(frames, seen, column) for column in boxes.T], 1)


def steady_squares(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centre x, y and half of the longer side of each box, each median-filtered over 13 frames, [n, 3].

    The filter takes zeros beyond both ends, as the original's does.
    """
    from scipy.signal import medfilt

    half = (boxes[:, 2:] - boxes[:, :2]).max(1) / 2
    columns = [*((boxes[:, :2] + boxes[:, 2:]) / 2).T, half]
    return np.stack([medfilt(column, MEDIAN) for column in columns], 1)


def wide_crop(picture: NDArray[np.uint8], square: NDArray[np.float64], side: int) -> NDArray[np.uint8]:
    """SyncNet's square: from `half` above the centre to 1.8 `half` below it, 1.4 `half` to both sides.

    Args:
        picture: uint8 [H, W, 3] RGB.
        square: x, y of the centre and `half`, px.
        side: px of the result.

    Returns:
        uint8 [side, side, 3]; grey 110 outside the frame.
    """
    import cv2

    x, y, half = square
    border = int(half * (1 + 2 * SCALE))  # rounding is done with the border in place, as in the original
    top, bottom = int(y + border - half) - border, int(y + border + half * (1 + 2 * SCALE)) - border
    left, right = (int(x + border + sign * half * (1 + SCALE)) - border for sign in (-1, 1))
    canvas = np.full((max(1, bottom - top), max(1, right - left), 3), FILL, np.uint8)
    (r0, r1), (c0, c1) = np.clip((top, bottom), 0, len(picture)), np.clip((left, right), 0, picture.shape[1])
    canvas[r0 - top : r1 - top, c0 - left : c1 - left] = picture[r0:r1, c0:c1]
    return np.asarray(cv2.resize(canvas, (side, side)), np.uint8)


def _box_crop(picture: NDArray[np.uint8], box: NDArray[np.float64], side: int) -> NDArray[np.uint8]:
    """The box as Wav2Lip cuts it: clipped at the frame, whole pixels, stretched to a square."""
    import cv2

    limits = np.array([picture.shape[1], picture.shape[0]])
    x0, y0 = np.clip(box[:2].astype(int), 0, limits - 1)
    x1, y1 = np.clip(box[2:].astype(int), (x0 + 1, y0 + 1), limits)
    return np.asarray(cv2.resize(picture[y0:y1, x0:x1], (side, side)), np.uint8)
