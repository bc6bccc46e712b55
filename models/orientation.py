"""How a picture has to be turned, and mirrored, to stand upright: what its display matrix says."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Orientation:
    """What is done with the pictures of a video, in this order.

    Attributes:
        mirrored: left and right are exchanged.
        turns: quarter turns counter-clockwise, 0 to 3.
    """

    mirrored: bool = False
    turns: int = 0

    def upright(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """A decoded picture [H, W, 3] as it is to be shown."""
        if self == Orientation():
            return picture
        picture = picture[:, ::-1] if self.mirrored else picture
        return np.ascontiguousarray(np.rot90(picture, self.turns))


def orientation(frame: Any) -> Orientation:
    """Of a video's first decoded frame, PyAV's.

    Not to be asked of every frame: with its side data PyAV makes a circle of references, which keeps a frame in memory
    until Python's collector finds it.
    """
    turns = round(getattr(frame, "rotation", 0) / 90) % 4
    matrix = _mirroring(frame)
    if matrix is None:
        return Orientation(False, turns)
    a, b = matrix  # PyAV's angle is that of a matrix that only turns
    return Orientation(True, round(math.atan2(b, -a) / (math.pi / 2)) % 4)


def _mirroring(frame: Any) -> tuple[int, int] | None:
    """The first two numbers of the display matrix, None where it does not mirror."""
    from av.sidedata.sidedata import Type

    try:
        data = frame.side_data.get(Type.DISPLAYMATRIX)
    except ValueError:  # there is more of a kind that this PyAV does not know, such as a photograph's EXIF
        return None
    if data is None:
        return None
    a, b, _, c, d = (int(number) for number in np.frombuffer(data, np.int32)[:5])
    return (a, b) if a * d - b * c < 0 else None
