"""The memory of PyAV's frames in 4:2:0."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .colours import CODED


def planes(frame: Any) -> list[NDArray[np.uint8]]:
    """Y, U and V of a 4:2:0 frame, uint8 [h, w]: views of its memory."""
    return [
        np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[: plane.height, : plane.width]
        for plane in frame.planes
    ]


def copied(frame: Any) -> Any:
    """A frame of its own: whoever gave it goes on using it."""
    import av

    copy = av.VideoFrame(frame.width, frame.height, CODED)
    for mine, its in zip(planes(copy), planes(frame), strict=True):
        mine[:] = its
    return copy
