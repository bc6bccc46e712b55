"""Where other systems' face crops lie in ours: cutting them out of our crop, and laying the result back in.

A Wav2Lip crop is a detector's box, a SimSwap crop follows another template (specification 2.1, 2.2). Between crops of
one upright face such differences are constant maps of unit coordinates.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .generator import resized
from .geometry import CROP_TEMPLATE, GEOMETRY_ID, Matrices, invert, similarity_transform
from .identity import aligned_crops_torch
from .layouts import SIMSWAP_FFHQ, SIMSWAP_FIVE, WAV2LIP_BOX
from .simswap_identity import CROP, FFHQ, FRONT, POSES

# Left, top, right, bottom in our unit crop, forehead to chin as detectors of the WIDER FACE kind draw it: median over
# 106 photos of upright faces (deviation 0.03 to 0.04).
FACE_BOX = (0.162, -0.002, 0.837, 0.944)
PAD = 0.048  # Wav2Lip's 10 px below the chin, on the median crop of these photos
FEATHER = 0.05  # soft border inside a region, as a share of its side


@dataclass(frozen=True)
class Region:
    """Another crop inside ours.

    Attributes:
        matrix: float64 [2, 3], our unit coordinates -> the region's.
    """

    matrix: Matrices

    def side_here(self, side: int) -> int:
        """Side that our crop needs so that the region in it has about `side` pixels, a multiple of 16."""
        return 16 * math.ceil(side * np.linalg.norm(self.matrix[:, :2], axis=1).max() / 16 - 0.1)

    def cut(self, crops: Tensor, side: int) -> Tensor:
        """The region of our crops [n, 3, S, S] as [n, 3, side, side]; beyond our crop its border is repeated."""
        most = self.side_here(side)
        crops = resized(crops, most) if crops.shape[-1] > 1.25 * most else crops.float()
        return aligned_crops_torch(crops, _of_pixels(self.matrix, crops.shape[-1]), side)

    def put(self, made: Tensor, crops: Tensor) -> Tensor:
        """New pictures [n, 3, s, s] of the region laid softly into our crops [n, 3, S, S]; same shape as these."""
        side = crops.shape[-1]
        placed = aligned_crops_torch(made.float(), _of_pixels(invert(self.matrix), made.shape[-1]), side)
        return torch.lerp(crops.float(), placed, self.alpha(side).to(placed))

    def alpha(self, side: int) -> Tensor:
        """How much the region covers each pixel of our crop, float32 [side, side]; smooth inside, 0 outside."""
        centres = (torch.arange(side, dtype=torch.float64) + 0.5) / side
        x, y = centres[None, :], centres[:, None]
        inside = [a * x + b * y + c for a, b, c in self.matrix.tolist()]
        depth = torch.minimum(*(torch.minimum(axis, 1 - axis) for axis in inside))
        t = (depth / FEATHER).clamp(0, 1)
        return (t * t * (3 - 2 * t)).float()


@dataclass(frozen=True)
class Whole:
    """Our crop itself, for networks that were trained on it."""

    def side_here(self, side: int) -> int:
        """See `Region`."""
        return side

    def cut(self, crops: Tensor, side: int) -> Tensor:
        """See `Region`."""
        return resized(crops, side)

    def put(self, made: Tensor, crops: Tensor) -> Tensor:
        """See `Region`."""
        return resized(made, crops.shape[-1])


def region(geometry: str) -> Region | Whole:
    """The place of another geometry's crop in ours.

    Raises:
        ValueError: the geometry is unknown.
    """
    if geometry == GEOMETRY_ID:
        return Whole()
    if geometry == WAV2LIP_BOX:
        left, top, right, bottom = FACE_BOX
        width, height = right - left, bottom + PAD - top
        return Region(np.array([[1 / width, 0, -left / width], [0, 1 / height, -top / height]]))
    if geometry in (SIMSWAP_FIVE, SIMSWAP_FFHQ):
        # Templates count pixels by their middles, unit coordinates from the crop's edge.
        template = (POSES[FRONT] * 2 + 0.5) / CROP if geometry == SIMSWAP_FIVE else (FFHQ + 0.5) / 512
        return Region(similarity_transform(CROP_TEMPLATE, template))
    known = ", ".join((GEOMETRY_ID, WAV2LIP_BOX, SIMSWAP_FIVE, SIMSWAP_FFHQ))
    raise ValueError(f"Crops of geometry {geometry!r} are unknown; known: {known}. Update the pack or the weights.")


def _of_pixels(matrix: Matrices, side: int) -> Matrices:
    """A map of unit coordinates as one of a picture's continuous pixel coordinates, [1, 2, 3]."""
    return np.concatenate([matrix[:, :2] / side, matrix[:, 2:]], 1)[None]
