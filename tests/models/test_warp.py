"""Warps in torch against OpenCV's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models import warp
from models.geometry import crop_matrices, pixel_matrix, warp_crops

cv2 = pytest.importorskip("cv2")


def faces(frames: int, side: float) -> np.ndarray:
    """Turning, growing faces that also leave the frame, [frames, 2, 3]."""
    five = np.array([(0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.35, 0.8), (0.65, 0.8)]) - 0.5
    result = []
    for i in range(frames):
        turn = np.array([[np.cos(0.2 * i), -np.sin(0.2 * i)], [np.sin(0.2 * i), np.cos(0.2 * i)]])
        result.append(side * (1 + 0.1 * i) * five @ turn.T + (60 + 25 * i, 70))
    return crop_matrices(np.stack(result))


def pictures(frames: int, channels: int = 3) -> np.ndarray:
    """Smooth colours, uint8 [frames, 120, 160, channels]."""
    noise = np.random.default_rng(0).integers(0, 256, (frames, 12, 16, channels), np.uint8)
    return np.stack([cv2.resize(one, (160, 120), interpolation=cv2.INTER_CUBIC) for one in noise])


def as_tensor(frames: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(frames).permute(0, 3, 1, 2)


@pytest.mark.parametrize("side, size", [(20, 96), (60, 96), (90, 64), (110, 24)])  # cubic, mixed, linear, averaged
def test_crops_equal_opencvs(side, size):
    frames, matrices = pictures(5), faces(5, side)
    ours = warp.crops(as_tensor(frames), matrices, size)
    assert ours.dtype == torch.float32 and torch.equal(ours, ours.round())
    difference = np.abs(ours.permute(0, 2, 3, 1).numpy() - warp_crops(frames, matrices, size))
    assert difference.max() <= 3 and difference.mean() < 0.3  # places rounded to a 32nd of a pixel
    floats = np.float32(frames) / 255
    exact = warp.crops(as_tensor(floats), matrices, size).permute(0, 2, 3, 1).numpy()
    np.testing.assert_allclose(exact, warp_crops(floats, matrices, size), atol=8e-3)


@pytest.mark.parametrize("side", [20, 48, 140])
def test_crops_lie_in_the_frame_as_with_opencv(side):
    crops, matrices = np.float32(pictures(5)[:, :64, :64]) / 255, faces(5, side)
    places = warp.places_in_crops(matrices, 120, 160, torch.device("cpu"))
    ours = warp.sampled(as_tensor(crops), places, "bicubic").permute(0, 2, 3, 1).numpy()
    for one, crop, matrix in zip(ours, crops, matrices, strict=True):
        flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
        border = cv2.BORDER_REPLICATE
        theirs = cv2.warpAffine(crop, pixel_matrix(matrix, 64), (160, 120), flags=flags, borderMode=border)
        np.testing.assert_allclose(one, theirs, atol=1.5e-2)
        assert np.abs(one - theirs).mean() < 1e-3


def test_no_pictures():
    assert warp.crops(torch.zeros(0, 3, 8, 8, dtype=torch.uint8), np.zeros((0, 2, 3)), 32).shape == (0, 3, 32, 32)
