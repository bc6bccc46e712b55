"""SimSwap's own view of who is who: its recogniser, and the five poses its faces are aligned to (spec 2.2, 3.8)."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from .geometry import Matrices, similarity_transform
from .identity import Recogniser
from .layouts import SIMSWAP_RECOGNISER
from .networks.simswap import IMAGENET_MEAN, IMAGENET_STD
from .networks.simswap_arcface import INPUT_SIZE

# Eyes, nose tip, mouth corners in a 112 px crop: profile, half profile, front, half profile and profile the other way.
POSES = np.array(
    [
        [[51.642, 50.115], [57.617, 49.990], [35.740, 69.007], [51.157, 89.050], [57.025, 89.702]],
        [[45.031, 50.118], [65.568, 50.872], [39.677, 68.111], [45.177, 86.190], [64.246, 86.758]],
        [[39.730, 51.138], [72.270, 51.138], [56.000, 68.493], [42.463, 87.010], [69.537, 87.010]],
        [[46.845, 50.872], [67.382, 50.118], [72.737, 68.111], [48.167, 86.758], [67.236, 86.190]],
        [[54.796, 49.990], [60.771, 50.115], [76.673, 69.007], [55.388, 89.702], [61.257, 89.050]],
    ]
)
FRONT = 2
# The same points in a 512 px crop of the FFHQ kind, which the 512 px networks were trained on.
FFHQ = np.array(
    [
        [192.98138, 239.94708],
        [318.90277, 240.1936],
        [256.63416, 314.01935],
        [201.26117, 371.41043],
        [313.08905, 371.15118],
    ]
)
CROP = 224  # px of the crop that every second pixel of is embedded


def pose_matrices(landmarks: NDArray[np.floating], side: int = CROP) -> Matrices:
    """Frame pixels -> pixels of SimSwap's crop, by the pose that fits best.

    Args:
        landmarks: [N,5,2] pixel positions (the middle of column j is j).
        side: of the crop in pixels.

    Returns:
        float64 [N,2,3], for `cv2.warpAffine`.
    """
    landmarks, poses = np.asarray(landmarks, np.float64), POSES * (side / 112)
    matrices = similarity_transform(landmarks[:, None], poses)  # [N,5,2,3]
    placed = landmarks[:, None] @ np.swapaxes(matrices[..., :2], -1, -2) + matrices[..., None, :, 2]
    errors = np.linalg.norm(placed - poses, axis=-1).sum(-1)
    return matrices[np.arange(len(landmarks)), errors.argmin(1)]


def ffhq_matrices(landmarks: NDArray[np.floating], side: int = 512) -> Matrices:
    """Frame pixels -> pixels of the FFHQ crop; arguments and result as `pose_matrices`."""
    return similarity_transform(landmarks, FFHQ * (side / 512))


def cut(frames: NDArray[np.uint8], matrices: Matrices, side: int) -> NDArray[np.uint8]:
    """Crops as SimSwap takes them, bilinear and black outside: uint8 [N,H,W,3] -> [N,side,side,3]."""
    import cv2

    pairs = zip(frames, matrices, strict=True)
    return np.stack([cv2.warpAffine(frame, matrix, (side, side), borderValue=0.0) for frame, matrix in pairs])


class SimSwapRecogniser(Recogniser):
    """The recogniser of all public SimSwap generators; its vectors mean nothing to other networks, nor theirs to it.

    It looks at the crop of the 224 px generators. What the programs of the others look at differs a little, and an
    identity does not know who will draw it; `upstream.simswap_identity` does.
    """

    def __init__(self, network: nn.Module, dim: int, identifier: str = SIMSWAP_RECOGNISER) -> None:
        super().__init__(identifier, network, dim)
        self._mean, self._std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))

    def align(self, frames: NDArray[np.uint8], landmarks: NDArray[np.floating]) -> NDArray[np.uint8]:
        """Every second pixel of SimSwap's 224 px crop; shapes as `Recogniser.align`."""
        step = CROP // INPUT_SIZE
        return np.ascontiguousarray(cut(frames, pose_matrices(landmarks), CROP)[:, ::step, ::step])

    def embed(self, crops112: Tensor) -> Tensor:
        """Embed faces that `align` cut; as `Recogniser.embed`."""
        pixels = (crops112 - self._mean.to(crops112)) / self._std.to(crops112)
        return functional.normalize(self.network(pixels).float(), dim=1)
