"""Other systems' crops inside ours."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.geometry import CROP_TEMPLATE, GEOMETRY_ID, crop_matrices, warp_crops
from models.layouts import SIMSWAP_FFHQ, SIMSWAP_FIVE, WAV2LIP_BOX
from models.regions import Region, Whole, region
from models.simswap_identity import FFHQ, FRONT, POSES, cut, pose_matrices

GEOMETRIES = [WAV2LIP_BOX, SIMSWAP_FIVE, SIMSWAP_FFHQ]


def smooth_picture(height: int, width: int) -> np.ndarray:
    """float32 [height, width, 3] in 0..1 without an edge that resampling could shift."""
    y, x = np.mgrid[:height, :width]
    waves = [0.5 + 0.4 * np.sin(x / 17 + i) * np.cos(y / 13 - i) for i in range(3)]
    return np.stack(waves, -1).astype(np.float32)


def as_tensor(picture: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(picture).movedim(-1, 0)[None]


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("side", [96, 224])
def test_cut_and_put_back_is_nearly_nothing(geometry, side):
    place = region(geometry)
    crops = as_tensor(smooth_picture(224, 224))
    again = place.put(place.cut(crops, side), crops)
    assert again.shape == crops.shape
    difference = (again - crops).abs()[..., 12:-12, 12:-12]  # what is pasted into the frame
    assert difference.max() < 0.03
    assert difference.mean() < 0.005


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_what_is_put_covers_the_face_softly_and_nothing_outside(geometry):
    place = region(geometry)
    crops = torch.zeros(1, 3, 160, 160)
    alpha = place.put(torch.ones(1, 3, 96, 96), crops)[0, 0]
    torch.testing.assert_close(alpha, place.alpha(160))
    points = (CROP_TEMPLATE * 160).astype(int)
    assert all(alpha[y, x] > 0.999 for x, y in points)
    if geometry != SIMSWAP_FFHQ:  # which is larger than our crop
        assert (alpha[-1] == 0).all()
    assert alpha.diff(dim=0).abs().max() < 0.3  # no hard edge
    assert alpha.diff(dim=1).abs().max() < 0.3


def test_simswaps_crop_is_the_one_its_own_program_cuts():
    """A frontal face: cut out of our crop, and straight out of the frame by the five poses."""
    frame = (smooth_picture(400, 500) * 255).round().astype(np.uint8)
    turn = np.array([[0.98, -0.17], [0.17, 0.98]])
    points = (CROP_TEMPLATE * 240) @ turn.T + (130, 60)
    ours = warp_crops(frame[None], crop_matrices(points[None] + 0.5), 256)[0]
    mine = region(SIMSWAP_FIVE).cut(as_tensor(ours) / 255, 224)[0].movedim(0, -1).numpy()
    theirs = cut(frame[None], pose_matrices(points[None]), 224)[0].astype(np.float32) / 255
    inside = slice(30, -5), slice(10, -10)  # theirs sees more forehead than our crop holds
    assert np.abs(mine[inside] - theirs[inside]).mean() < 0.004


@pytest.mark.parametrize(("geometry", "template"), [(SIMSWAP_FIVE, POSES[FRONT] / 112), (SIMSWAP_FFHQ, FFHQ / 512)])
def test_landmarks_land_near_the_other_template(geometry, template):
    matrix = region(geometry).matrix
    placed = CROP_TEMPLATE @ matrix[:, :2].T + matrix[:, 2]
    assert np.abs(placed - template).max() < 0.025


def test_sides_that_lose_no_pixel():
    assert region(WAV2LIP_BOX).side_here(96) == 144
    assert region(SIMSWAP_FIVE).side_here(224) == 224
    assert region(SIMSWAP_FIVE).side_here(96) == 96
    assert region(GEOMETRY_ID).side_here(96) == 96


def test_large_crops_are_averaged_before_they_are_cut():
    """Stripes of one pixel at 576 px are grey at 96 px, not stripes of another width."""
    crops = torch.zeros(1, 3, 576, 576)
    crops[..., ::2] = 1
    found = region(WAV2LIP_BOX).cut(crops, 96)
    assert (found - 0.5).abs().max() < 0.1


def test_the_whole_crop_is_only_resized():
    place = region(GEOMETRY_ID)
    assert isinstance(place, Whole)
    crops = torch.rand(2, 3, 96, 96)
    assert torch.equal(place.cut(crops, 96), crops)
    made = torch.rand(2, 3, 96, 96)
    assert torch.equal(place.put(made, crops), made)
    assert place.put(made, torch.rand(2, 3, 128, 128)).shape == (2, 3, 128, 128)


def test_unknown_geometry_is_named():
    with pytest.raises(ValueError, match=r"'squares' are unknown; known: similarity5-unit-v1, wav2lip-box"):
        region("squares")


def test_beyond_our_crop_its_border_is_repeated():
    """Black would be drawn into the face."""
    place = Region(np.array([[0.5, 0, 0.25], [0, 0.5, 0.25]]))  # twice our crop
    assert place.cut(torch.ones(1, 3, 64, 64), 64).min() == 1
