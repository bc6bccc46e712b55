"""Vectors of pictures, for distances between sets of them."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class PictureFeatures(Protocol):
    """A network that describes pictures.

    Attributes:
        name: of the network and its file, for reports.
        dim: length of a vector.
    """

    name: str
    dim: int

    def __call__(self, pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Pictures uint8 [N, S, S, 3] RGB -> one vector each, [N, dim]."""
        ...
