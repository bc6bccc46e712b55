"""Crops as JPEG: 97 %, full colour resolution; what training sees is what these bytes decode to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

QUALITY = 97  # about 6 kB for 120 px; noise of the coder below that of the videos themselves


def encode(crop: NDArray[np.uint8]) -> bytes:
    """uint8 [S, S, 3] RGB -> JPEG."""
    import cv2

    parameters = [
        *(cv2.IMWRITE_JPEG_QUALITY, QUALITY),
        *(cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444),
    ]
    done, data = cv2.imencode(".jpg", np.ascontiguousarray(crop[..., ::-1]), parameters)
    if not done:
        raise RuntimeError("OpenCV was built without a JPEG encoder; install opencv-python from PyPI.")
    return data.tobytes()


def decode(data: bytes) -> NDArray[np.uint8]:
    """JPEG -> uint8 [H, W, 3] RGB.

    Raises:
        ValueError: no JPEG.
    """
    import cv2

    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) if data else None
    if picture is None:
        raise ValueError("not a JPEG")
    return np.ascontiguousarray(picture[..., ::-1])


def smaller(picture: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """A picture [H, W, 3] shrunk to fit a square of `side` pixels."""
    import cv2

    scale = min(1.0, side / max(picture.shape[:2]))
    size = (max(1, round(scale * picture.shape[1])), max(1, round(scale * picture.shape[0])))
    return np.asarray(cv2.resize(picture, size, interpolation=cv2.INTER_AREA), np.uint8)


class Strip:
    """The JPEGs of one track in a file.

    Args:
        path: the file.
        places: offset and size of each picture in bytes.
    """

    def __init__(self, path: Path, places: list[tuple[int, int]]) -> None:
        self.path, self.places = path, places

    def __len__(self) -> int:
        return len(self.places)

    def data(self) -> Iterator[bytes]:
        """All JPEGs in order."""
        with self.path.open("rb") as file:
            for offset, size in self.places:
                file.seek(offset)
                yield file.read(size)

    def middle(self) -> bytes:
        """The JPEG that stands for all."""
        return next(Strip(self.path, [self.places[len(self) // 2]]).data())

    def read(self, rows: NDArray[np.integer]) -> NDArray[np.uint8]:
        """Decoded pictures uint8 [n, S, S, 3] RGB of some rows."""
        chosen = Strip(self.path, [self.places[row] for row in rows.tolist()])
        return np.stack([decode(data) for data in chosen.data()])

    def chunks(self, size: int) -> Iterator[NDArray[np.uint8]]:
        """All pictures in order, at most `size` at a time."""
        for start in range(0, len(self), size):
            yield self.read(np.arange(start, min(start + size, len(self))))
