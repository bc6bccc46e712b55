"""Frames reduced for a network that wants sides divisible by its coarsest cells: as a whole, or only in windows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Window = tuple[int, int, int, int]  # left, top, right, bottom

GRID = 32  # px: the coarsest cells
GREY = 127  # of what lies outside the frame


@dataclass(frozen=True)
class Letterbox:
    """How frames of one size are reduced.

    Attributes:
        frame: width and height of the frames.
        size: width and height that they are reduced to, never enlarged.
    """

    frame: tuple[int, int]
    size: tuple[int, int]

    @classmethod
    def of(cls, frame: NDArray[np.uint8], long_side: int) -> Letterbox:
        """Frames of the size of this one, [H, W, 3], reduced until no side is longer than `long_side`."""
        height, width = frame.shape[:2]
        scale = min(1.0, long_side / max(height, width))
        return cls((width, height), (max(1, round(width * scale)), max(1, round(height * scale))))

    @property
    def canvas(self) -> tuple[int, int]:
        """Width and height with the grey border on the right and below."""
        return -(-self.size[0] // GRID) * GRID, -(-self.size[1] // GRID) * GRID

    @property
    def ratio(self) -> NDArray[np.float32]:
        """Frame pixels per pixel of the canvas (x, y)."""
        return np.array([self.frame[0] / self.size[0], self.frame[1] / self.size[1]], np.float32)

    def whole(self, frame: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The canvas of a frame uint8 [H, W, 3]: uint8 [h, w, 3]."""
        return self.parts(frame, [(0, 0, *self.canvas)])[0]

    def parts(self, frame: NDArray[np.uint8], windows: Sequence[Window]) -> list[NDArray[np.uint8]]:
        """What a frame's canvas shows in windows, uint8 [bottom - top, right - left, 3] each.

        Where pixels are means of whole blocks of the frame, as mostly, nothing outside the windows is computed.
        """
        x, y = (a // b for a, b in zip(self.frame, self.size, strict=True))
        if (x * self.size[0], y * self.size[1]) != self.frame:
            frame, x, y = _resized(frame, self.size), 1, 1
        result = []
        for left, top, right, bottom in windows:
            part = np.full((bottom - top, right - left, 3), GREY, np.uint8)
            width, height = min(right, self.size[0]) - left, min(bottom, self.size[1]) - top
            if width > 0 and height > 0:
                shown = frame[top * y : (top + height) * y, left * x : (left + width) * x]
                part[:height, :width] = _resized(shown, (width, height))
            result.append(part)
        return result


def _resized(picture: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    import cv2

    if picture.shape[1::-1] == size:
        return picture
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
