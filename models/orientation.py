"""How a picture has to be turned, and mirrored, to stand upright: what its display matrix says."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def upright(picture: NDArray[np.uint8], frame: Any) -> NDArray[np.uint8]:
    """A decoded picture [H, W, 3] as it is to be shown; `frame` is what it was made of, PyAV's."""
    turns = round(getattr(frame, "rotation", 0) / 90) % 4
    matrix = _mirroring(frame)
    if matrix is not None:  # PyAV's angle is that of a matrix that only turns
        a, b, *_ = matrix
        picture, turns = picture[:, ::-1], round(math.atan2(b, -a) / (math.pi / 2)) % 4
    elif not turns:
        return picture
    return np.ascontiguousarray(np.rot90(picture, turns))


def is_mirrored(frame: Any) -> bool:
    """Whether a decoded frame is shown mirrored."""
    return _mirroring(frame) is not None


def _mirroring(frame: Any) -> tuple[int, int, int, int] | None:
    """The four numbers of the display matrix that turn and mirror, None where it does not mirror."""
    from av.sidedata.sidedata import Type

    try:
        data = frame.side_data.get(Type.DISPLAYMATRIX)
    except ValueError:  # there is more of a kind that this PyAV does not know, such as a photograph's EXIF
        return None
    if data is None:
        return None
    a, b, _, c, d = (int(number) for number in np.frombuffer(data, np.int32)[:5])
    return (a, b, c, d) if a * d - b * c < 0 else None
