"""Preview pictures: what a track believes, drawn over its frames."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .face_track import FaceTrack
from .geometry import invert

PRESENT, POINTS, ABSENT = (80, 255, 120), (255, 210, 60), (255, 60, 60)  # RGB
UNIT_CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0], [0.0, 1.0]])
LONGEST = 480  # px of a preview: enough to see a wrong face, small enough for a long clip
SHIFT = 4  # fractional bits of OpenCV's drawing coordinates


def preview_size(width: int, height: int) -> tuple[int, int]:
    """Even (width, height) of the preview of a frame."""
    scale = min(1.0, LONGEST / max(width, height))
    return max(2, 2 * round(width * scale / 2)), max(2, 2 * round(height * scale / 2))


def draw_track(
    frames: NDArray[np.uint8], track: FaceTrack, size: tuple[int, int] | None = None, first: int = 0
) -> NDArray[np.uint8]:
    """Crop outline, five landmarks and number on every frame; frames without the face get a red border.

    Args:
        frames: uint8 [N, H, W, 3] RGB; not modified.
        track: the same N frames.
        size: (width, height) of the pictures; the frames' own by default. Lines keep their width whatever it is.
        first: number of the first frame, for the label.

    Returns:
        uint8 [N, height, width, 3].

    Raises:
        ValueError: numbers of frames differ.
    """
    import cv2

    if len(frames) != len(track):
        raise ValueError(
            f"There are {len(frames)} frames and a track of {len(track)}; give the frames that were tracked."
        )
    width, height = size or (frames.shape[2], frames.shape[1])
    scale = np.array([width / frames.shape[2], height / frames.shape[1]])
    pictures = np.empty((len(frames), height, width, 3), np.uint8)
    for i, back in enumerate(invert(track.matrices)):
        canvas = cv2.resize(frames[i], (width, height), interpolation=cv2.INTER_AREA)
        colour = PRESENT if track.present[i] else ABSENT
        if track.present[i]:
            corners = _fixed((UNIT_CORNERS @ back[:, :2].T + back[:, 2]) * scale - 0.5)
            cv2.polylines(canvas, [corners], True, colour, 2, cv2.LINE_AA, SHIFT)
            for point in _fixed((track.landmarks[i] + 0.5) * scale - 0.5):
                cv2.circle(canvas, point.tolist(), 2 << SHIFT, POINTS, -1, cv2.LINE_AA, SHIFT)
        else:
            cv2.rectangle(canvas, (1, 1), (width - 2, height - 2), colour, 3)
        label = f"{first + i}" if track.present[i] else f"{first + i} absent"
        cv2.putText(canvas, label, (8, 20), cv2.FONT_HERSHEY_SIMPLEX, 0.5, colour, 1, cv2.LINE_AA)
        pictures[i] = canvas
    return pictures


def _fixed(points: NDArray[np.floating]) -> NDArray[np.int32]:
    """Pixel positions as OpenCV's fixed-point numbers; far outside ones are kept within its range."""
    return np.rint(np.clip(points, -1e6, 1e6) * (1 << SHIFT)).astype(np.int32)
