"""What consecutive frames show, each by itself: the part of tracking that can be done for many chunks at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .faces import Detection
from .parallel import each
from .shots import thumbnail

Detect = Callable[[NDArray[np.uint8], list[NDArray[np.float32]]], list[list[Detection]]]

LOOK_SIDE = 8  # px of the small picture that tells faces apart
SAMPLES = 4  # rows, and columns, of the frame that are enough for one of these


@dataclass(frozen=True, eq=False)
class Examined:
    """Consecutive frames and what they show.

    Attributes:
        frames: uint8 [n, H, W, 3] RGB.
        small: the `shots.thumbnail` of each.
        found: faces of each.
        looks: float16 [LOOK_SIDE * LOOK_SIDE * 3] of each of these, of mean 0 and unit contrast.
    """

    frames: NDArray[np.uint8]
    small: list[NDArray[np.float32]]
    found: list[list[Detection]]
    looks: list[list[NDArray[np.float16]]]


def examine(frames: NDArray[np.uint8], detect: Detect) -> Examined:
    """Find the faces of consecutive frames, and how they look.

    Args:
        frames: uint8 [n, H, W, 3] RGB.
        detect: is given the frames and their thumbnails.

    Raises:
        ValueError: another type.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
        raise ValueError(f"Frames must be uint8 [n, H, W, 3]; got {frames.dtype} {frames.shape}.")
    if not len(frames):
        return Examined(frames, [], [], [])
    small = each(thumbnail, frames)
    found = [[face for face in faces if _usable(face)] for faces in detect(frames, small)]
    looks = each(lambda frame, faces: [_look(frame, face) for face in faces], frames, found)
    return Examined(frames, small, found, looks)


def _usable(face: Detection) -> bool:
    """Landmarks that define a crop; detectors may return collapsed ones for tiny false alarms."""
    return bool(np.isfinite(face.landmarks).all() and np.linalg.norm(np.ptp(face.landmarks, axis=0)) > 2)


def _look(frame: NDArray[np.uint8], face: Detection) -> NDArray[np.float16]:
    import cv2

    limits = np.array(frame.shape[1::-1])
    x0, y0 = np.clip(np.floor(face.box[:2]), 0, limits - 1).astype(int)
    x1, y1 = np.clip(np.ceil(face.box[2:]), (x0 + 1, y0 + 1), limits).astype(int)
    step = max(1, int(min(x1 - x0, y1 - y0)) // (LOOK_SIDE * SAMPLES))
    sampled = np.ascontiguousarray(frame[y0:y1:step, x0:x1:step])
    small = cv2.resize(sampled, (LOOK_SIDE,) * 2, interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
    return ((small - small.mean()) / (small.std() + 12)).astype(np.float16)
