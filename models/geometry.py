"""Templates, similarity transforms and warps between frame pixels and the resolution-free unit crop.

Continuous coordinates: the centre of pixel column j lies at j + 0.5, so a unit-crop coordinate u sits in a crop of
size S at pixel u * S - 0.5, whatever S is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from .parallel import each

Matrices = NDArray[np.float64]

GEOMETRY_ID = "similarity5-unit-v1"

# ArcFace's five points in a 112 x 112 crop: left eye, right eye, nose tip, left and right mouth corner (spec 2.2).
ARCFACE_TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)

# The generator's crop in unit coordinates: the same five points, eyes 0.30 apart with their midpoint at (0.5, 0.37).
# Chin and forehead fit, the lower half (the masked one) begins between eyes and nose tip and holds mouth and jaw.
_EYES = ARCFACE_TEMPLATE[:2]
CROP_TEMPLATE = (ARCFACE_TEMPLATE - _EYES.mean(0)) * (0.30 / np.linalg.norm(_EYES[1] - _EYES[0])) + (0.5, 0.37)


def similarity_transform(src: NDArray[np.floating], dst: NDArray[np.floating]) -> Matrices:
    """Least-squares similarity (rotation, uniform scale, translation; never a reflection) from `src` to `dst`.

    Umeyama's closed form in two dimensions, batched (spec 2.2).

    Args:
        src: [..., P, 2] points.
        dst: [P, 2] or [..., P, 2] points.

    Returns:
        float64 [..., 2, 3] with dst ~= matrix[:, :2] @ src + matrix[:, 2].
    """
    src, dst = np.broadcast_arrays(np.asarray(src, np.float64), np.asarray(dst, np.float64))
    src_mean, dst_mean = src.mean(-2, keepdims=True), dst.mean(-2, keepdims=True)
    a, b = src - src_mean, dst - dst_mean
    # In 2-D the optimum is one complex number: scale * exp(i * angle) = <a, b> / <a, a>.
    norm = np.maximum((a**2).sum((-2, -1)), 1e-12)
    real = (a * b).sum((-2, -1)) / norm
    imaginary = (a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]).sum(-1) / norm
    linear = np.stack([np.stack([real, -imaginary], -1), np.stack([imaginary, real], -1)], -2)
    shift = dst_mean[..., 0, :] - np.einsum("...ij,...j->...i", linear, src_mean[..., 0, :])
    return np.concatenate([linear, shift[..., None]], -1)


def crop_matrices(landmarks: NDArray[np.floating]) -> Matrices:
    """Frame pixels -> unit crop, from five landmarks.

    Args:
        landmarks: [N, 5, 2] continuous frame coordinates in pixels, order of `ARCFACE_TEMPLATE`.

    Returns:
        float64 [N, 2, 3].
    """
    return similarity_transform(landmarks, CROP_TEMPLATE)


def invert(matrices: Matrices) -> Matrices:
    """Inverse of affine matrices [..., 2, 3]."""
    linear = np.linalg.inv(matrices[..., :2])
    return np.concatenate([linear, -(linear @ matrices[..., 2:])], -1)


def pixel_matrix(matrix: Matrices, size: int) -> Matrices:
    """Frame-to-unit matrix [2, 3] -> matrix between pixel indices (centres at integers) for a crop of `size`."""
    linear = matrix[:, :2] * size
    shift = matrix[:, 2] * size + linear @ (0.5, 0.5) - 0.5
    return np.concatenate([linear, shift[:, None]], 1)


def smooth_matrices(
    matrices: Matrices, present: NDArray[np.bool_], cuts: Sequence[int] = (), strength: float = 0.5
) -> Matrices:
    """Zero-phase Gaussian smoothing of crop transforms, within one shot and one unbroken presence only.

    Position, log scale and angle are smoothed apart, so the result stays a similarity. Borders are extended by odd
    reflection, which keeps constant velocity.

    Args:
        matrices: [N, 2, 3] frame pixels -> unit crop.
        present: [N] frames that hold a face; others are returned unchanged.
        cuts: first frames of shots.
        strength: 0 (off) to 1 (sigma of 4 frames).

    Returns:
        float64 [N, 2, 3].
    """
    result = matrices.copy()
    if strength <= 0:
        return result
    breaks = set(cuts) | {i for i in range(1, len(present)) if present[i] != present[i - 1]} | {0, len(present)}
    edges = sorted(breaks)
    for start, stop in zip(edges[:-1], edges[1:], strict=True):
        if stop - start > 1 and present[start]:
            result[start:stop] = _smooth_segment(matrices[start:stop], 4 * strength)
    return result


def _smooth_segment(matrices: Matrices, sigma: float) -> Matrices:
    inverse = invert(matrices)
    centre = inverse[:, :, :2] @ (0.5, 0.5) + inverse[:, :, 2]
    scale = np.log(np.hypot(inverse[:, 0, 0], inverse[:, 1, 0]))
    angle = np.unwrap(np.arctan2(inverse[:, 1, 0], inverse[:, 0, 0]))
    values = np.column_stack([centre, scale, angle])
    radius = min(int(np.ceil(3 * sigma)), len(values) - 1)
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    padded = np.pad(values, ((radius, radius), (0, 0)), mode="reflect", reflect_type="odd")
    smooth = np.stack([np.convolve(column, kernel / kernel.sum(), "valid") for column in padded.T], 1)
    size, cos, sin = np.exp(smooth[:, 2]), np.cos(smooth[:, 3]), np.sin(smooth[:, 3])
    linear = np.stack([np.stack([size * cos, -size * sin], -1), np.stack([size * sin, size * cos], -1)], -2)
    shift = smooth[:, :2] - linear @ (0.5, 0.5)
    return invert(np.concatenate([linear, shift[..., None]], -1))


def warp_crops(frames: NDArray, matrices: Matrices, size: int) -> NDArray:
    """Cut the unit crop out of every frame.

    Shrinking by more than two is done in two steps (supersampling, then area averaging) so that nothing aliases;
    outside the frame the border pixel is repeated.

    Args:
        frames: uint8 or float32 [N, H, W, C].
        matrices: [N, 2, 3] frame pixels -> unit crop.
        size: side of the crop in pixels.

    Returns:
        Same dtype [N, size, size, C].
    """
    crops = each(lambda frame, matrix: _warp_crop(frame, matrix, size), frames, matrices)
    return np.stack(crops) if crops else np.empty((0, size, size, frames.shape[-1]), frames.dtype)


def supersampling(matrix: Matrices, size: int) -> tuple[int, bool]:
    """How a crop of `size` is sampled: so many times as finely along a side, and whether linearly or (False) cubically.

    Args:
        matrix: [2, 3] frame pixels -> unit crop.
        size: side of the crop in pixels.
    """
    source_side = 1 / np.hypot(matrix[0, 0], matrix[1, 0])
    factor = int(np.clip(np.floor(source_side / size), 1, 8))
    return factor, bool(factor > 1 or source_side >= size)


def _warp_crop(frame: NDArray, matrix: Matrices, size: int) -> NDArray:
    import cv2

    factor, smooth = supersampling(matrix, size)
    flags = cv2.INTER_LINEAR if smooth else cv2.INTER_CUBIC
    warped = cv2.warpAffine(
        frame,
        pixel_matrix(matrix, size * factor),
        (size * factor,) * 2,
        flags=flags,
        borderMode=cv2.BORDER_REPLICATE,
    )
    crop = warped if factor == 1 else cv2.resize(warped, (size, size), interpolation=cv2.INTER_AREA)
    crop = crop.reshape(size, size, frame.shape[-1])  # OpenCV drops a single channel
    return crop.clip(0, 1) if frame.dtype == np.float32 else crop
