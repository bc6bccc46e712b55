"""Pasting: nothing outside the mask changes, no seam, any crop size, colours of the frame's own skin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from models import geometry
from models.blend import paste_faces, paste_into

cv2 = pytest.importorskip("cv2")


@dataclass
class Track:
    """As much of a FaceTrack as pasting looks at."""

    present: np.ndarray
    matrices: np.ndarray
    frame_size: tuple[int, int]

    def __len__(self) -> int:
        return len(self.present)


def _track(frames: np.ndarray, *places: tuple[float, float, float, float] | None) -> Any:
    """Crops given as (centre x, centre y, side, degrees) in pixels; None = absent."""
    matrices = []
    for place in places:
        x, y, side, degrees = place or (0.0, 0.0, 50.0, 0.0)
        cos, sin = side * np.cos(np.deg2rad(degrees)), side * np.sin(np.deg2rad(degrees))
        linear = np.array([[cos, -sin], [sin, cos]])
        matrices.append(np.column_stack([linear, (x, y) - linear @ (0.5, 0.5)]))
    present = np.array([place is not None for place in places])
    return Track(present, geometry.invert(np.array(matrices)), frames.shape[2:0:-1])


def _smooth_frames(count: int = 1, height: int = 240, width: int = 320) -> np.ndarray:
    y, x = np.mgrid[:height, :width] + 0.5
    waves = [np.sin(x / 37 + k) * np.cos(y / 29 - k) for k in range(3)]
    return np.repeat(np.float32(0.5 + 0.2 * np.stack(waves, -1))[None], count, 0)


def _noise(shape: tuple[int, ...], dtype: str = "uint8") -> np.ndarray:
    values = np.random.default_rng(0).uniform(0, 1, shape)
    return np.uint8(255 * values) if dtype == "uint8" else np.float32(values)


def _flat(count: int, size: int, value: float = 1.0) -> np.ndarray:
    return np.full((count, size, size, 3), value, np.float32)


def _unit(track: Any, i: int = 0) -> np.ndarray:
    """Unit-crop coordinates of every frame pixel, [H, W, 2]."""
    width, height = track.frame_size
    y, x = np.mgrid[:height, :width] + 0.5
    return np.stack([x, y], -1) @ track.matrices[i][:, :2].T + track.matrices[i][:, 2]


PLACE = (150.3, 110.8, 120.0, 12.0)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
@pytest.mark.parametrize("colour_match", ["off", "lab"])
def test_outside_the_mask_every_bit_is_kept(dtype, colour_match):
    frames = _noise((3, 240, 320, 3), dtype)
    if dtype == "float32":
        frames[0, :5], frames[1, -5:] = -0.25, 1.75  # numbers beyond the range must survive too
    before, track = frames.copy(), _track(frames, PLACE, None, (60, 200, 90, -30))
    pasted, masks = paste_faces(frames, _flat(3, 64), track, colour_match=colour_match)
    np.testing.assert_array_equal(frames, before)
    assert pasted.dtype == frames.dtype and pasted.shape == frames.shape
    assert masks.dtype == np.float32 and masks.shape == frames.shape[:3]
    assert masks.min() >= 0 and masks.max() <= 1
    np.testing.assert_array_equal(pasted[masks == 0], before[masks == 0])
    assert (pasted[masks == 1] != before[masks == 1]).any()
    assert not np.shares_memory(pasted, frames)


def test_absent_frames_are_untouched_and_their_mask_is_empty():
    frames = _noise((2, 100, 100, 3))
    pasted, masks = paste_faces(frames, _flat(2, 32), _track(frames, None, None))
    np.testing.assert_array_equal(pasted, frames)
    assert not masks.any() and not np.shares_memory(pasted, frames)


def test_mask_is_empty_before_the_crop_ends_and_full_inside():
    frames = _smooth_frames()
    track = _track(frames, PLACE)
    _, masks = paste_faces(frames, _flat(1, 64), track, feather=0.05, erode=0.06, colour_match="off")
    unit = _unit(track)
    to_border = np.minimum(unit, 1 - unit).min(-1)
    assert not masks[0][to_border < 0.055].any()
    middle = np.hypot(*(unit - 0.5).transpose(2, 0, 1)) < 0.35
    assert (masks[0][middle] == 1).all()
    corners = (np.abs(unit - 0.5) > 0.42).all(-1)
    assert not masks[0][corners].any()  # rounded


def test_wider_feather_means_a_gentler_mask():
    frames = _smooth_frames()
    track = _track(frames, PLACE)
    steepest = []
    for feather in (0.0, 0.02, 0.05, 0.1, 0.2, 0.5):
        mask = paste_faces(frames, _flat(1, 64), track, feather=feather)[1][0]
        assert mask.max() > 0.95
        steepest.append(float(np.abs(np.diff(mask, axis=1)).max()))
    assert steepest == sorted(steepest, reverse=True) and steepest[-1] < 0.3 * steepest[0]


@pytest.mark.parametrize("size", [48, 96, 256, 700])
def test_the_mask_does_not_depend_on_the_crops_resolution(size):
    frames = _smooth_frames()
    track = _track(frames, PLACE)
    masks = [paste_faces(frames, _flat(1, side), track, colour_match="off")[1] for side in (8, size)]
    np.testing.assert_allclose(*masks, atol=0.02)


@pytest.mark.parametrize("size", [96, 128, 256, 512])
@pytest.mark.parametrize("colour_match", ["off", "lab"])
def test_a_crop_pasted_where_it_was_cut_changes_nothing_visible(size, colour_match):
    frames = _smooth_frames()
    track = _track(frames, PLACE)
    crops = geometry.warp_crops(frames, track.matrices, size)
    pasted, masks = paste_faces(frames, crops, track, colour_match=colour_match)
    assert masks.max() == 1
    assert np.abs(pasted - frames).max() < 0.004  # 1 / 255; a shift of a quarter of a pixel gives more


def test_large_crops_are_averaged_down():
    """Fine stripes in an upscaled crop give grey, not a pattern."""
    frames = _smooth_frames()
    crops = np.zeros((1, 1024, 1024, 3), np.float32)
    crops[:, :, ::2] = 1
    pasted, masks = paste_faces(frames, crops, _track(frames, (160, 120, 100, 0)), colour_match="off")
    inner = pasted[masks == 1]
    assert inner.mean() == pytest.approx(0.5, abs=0.02) and inner.std() < 0.05


def test_small_crops_are_enlarged_smoothly():
    """A ramp in a crop a quarter of its place's size stays a ramp: no blocks, no steps."""
    frames = _smooth_frames()
    crops = np.repeat(np.linspace(0.2, 0.8, 40, dtype=np.float32)[None, None, :, None], 40, 1).repeat(3, -1)
    pasted, masks = paste_faces(frames, crops, _track(frames, (160, 120, 160, 0)), colour_match="off")
    row = pasted[0, 120, masks[0, 120] == 1, 0]
    steps = np.diff(row)
    assert len(row) > 100 and steps.min() > 0.5 * steps.mean() and steps.max() < 1.5 * steps.mean()


@pytest.mark.parametrize("gain, shift", [(0.85, (-8, 3, -4)), (1.15, (8, -3, 4))])
def test_no_seam(gain, shift):
    """A crop of other colours, matched: in the ring of the seam nothing is steeper than the source is there."""
    frames = _smooth_frames()
    track = _track(frames, PLACE)
    lab = cv2.cvtColor(geometry.warp_crops(frames, track.matrices, 128)[0], cv2.COLOR_RGB2Lab)
    mean = lab.mean((0, 1))
    crops = cv2.cvtColor(np.float32((lab - mean) * gain + mean + shift), cv2.COLOR_Lab2RGB)[None]
    pasted, masks = paste_faces(frames, crops, track, colour_match="lab")
    ring = cv2.dilate(np.uint8((masks[0] > 0) & (masks[0] < 1)), np.ones((3, 3), np.uint8)).astype(bool)

    def steepest(picture: np.ndarray) -> float:
        return float(max(np.abs(g)[ring].max() for g in np.gradient(picture.mean(-1))))

    assert steepest(pasted[0]) <= steepest(frames[0]) + 0.5 / 255  # half a grey level: two warps, far colours
    raw, _ = paste_faces(frames, crops, track, colour_match="off")
    assert steepest(raw[0]) > 3 * steepest(frames[0])  # there was something to mend


def test_colour_match_brings_the_skin_to_the_frames():
    frames = np.full((1, 240, 320, 3), (0.75, 0.55, 0.45), np.float32) + 0.02 * (_noise((1, 240, 320, 3), "f4") - 0.5)
    crops = np.full((1, 96, 96, 3), (0.45, 0.50, 0.70), np.float32) + 0.02 * (_noise((1, 96, 96, 3), "f4") - 0.5)
    track = _track(frames, PLACE)
    pasted, masks = paste_faces(frames, crops, track, colour_match="lab")
    np.testing.assert_allclose(pasted[masks == 1].mean(0), (0.75, 0.55, 0.45), atol=0.02)
    raw, _ = paste_faces(frames, crops, track, colour_match="off")
    np.testing.assert_allclose(raw[masks == 1].mean(0), (0.45, 0.50, 0.70), atol=0.02)


def test_colour_match_leaves_a_wall_behind_the_face_alone():
    """Skin of too little contrast is stretched; a colour far from skin is not stretched with it."""
    frames = np.full((1, 240, 320, 3), (0.25, 0.35, 0.70), np.float32)
    track = _track(frames, PLACE)
    face = (((_unit(track) - (0.5, 0.5)) / (0.28, 0.38)) ** 2).sum(-1) < 1
    skin = np.float32((0.75, 0.55, 0.45)) * (1 + 0.3 * (_noise((240, 320, 1), "f4") - 0.5))
    frames[0][face] = skin[face]
    flat = frames.copy()
    flat[0][face] = np.float32((0.75, 0.55, 0.45)) + 0.2 * (skin[face] - np.float32((0.75, 0.55, 0.45)))
    pasted, masks = paste_faces(frames, geometry.warp_crops(flat, track.matrices, 128), track)
    wall = (masks[0] > 0) & ~cv2.dilate(np.uint8(face), np.ones((9, 9), np.uint8)).astype(bool)
    assert wall.sum() > 500
    assert np.abs(pasted[0] - frames[0])[wall].max() < 0.06
    assert pasted[0][face].std(0).mean() > 1.2 * flat[0][face].std(0).mean()


def test_channels_stay_in_order():
    frames = _smooth_frames()
    crops = np.zeros((1, 64, 64, 3), np.float32)
    crops[..., 0] = 1
    pasted, masks = paste_faces(frames, crops, _track(frames, PLACE), colour_match="off")
    np.testing.assert_allclose(pasted[masks == 1].mean(0), (1, 0, 0), atol=1e-3)


def test_users_mask_protects():
    frames = _noise((2, 240, 320, 3))
    track = _track(frames, PLACE, (160, 120, 100, 0))
    mask = np.ones((1, 240, 320), np.float32)
    mask[:, :, :150] = 0
    pasted, masks = paste_faces(frames, _flat(2, 64), track, mask)
    np.testing.assert_array_equal(pasted[:, :, :150], frames[:, :, :150])
    assert not masks[:, :, :150].any() and masks[:, :, 150:].max() == 1


def test_users_mask_cannot_reach_beyond_the_crop():
    frames = _noise((1, 240, 320, 3))
    track = _track(frames, PLACE)
    pasted, masks = paste_faces(frames, _flat(1, 64), track, np.ones((1, 240, 320), np.float32))
    outside = (np.minimum(_unit(track), 1 - _unit(track)).min(-1)) < 0
    assert not masks[0][outside].any()
    np.testing.assert_array_equal(pasted[0][outside], frames[0][outside])


def test_a_mask_for_each_frame():
    frames = _noise((2, 240, 320, 3))
    mask = np.stack([np.zeros((240, 320), np.float32), np.ones((240, 320), np.float32)])
    pasted, masks = paste_faces(frames, _flat(2, 64), _track(frames, PLACE, PLACE), mask)
    np.testing.assert_array_equal(pasted[0], frames[0])
    assert not masks[0].any() and masks[1].any()


@pytest.mark.parametrize("place", [(2, 3, 120, 20), (318, 238, 60, 0), (160, 120, 900, 45), (-900, 50, 100, 0)])
@pytest.mark.parametrize("colour_match", ["off", "lab"])
def test_faces_at_or_beyond_the_frames_edge(place, colour_match):
    frames = _noise((1, 240, 320, 3))
    pasted, masks = paste_faces(frames, _flat(1, 64, 0.5), _track(frames, place), colour_match=colour_match)
    assert np.isfinite(masks).all()
    np.testing.assert_array_equal(pasted[masks == 0], frames[masks == 0])


def test_chunks_do_not_matter():
    frames = _noise((4, 240, 320, 3))
    track = _track(frames, *[(150 + i, 110, 120, i) for i in range(4)])
    crops = _noise((4, 64, 64, 3), "f4")
    whole, masks = paste_faces(frames, crops, track)
    for i in range(4):
        one = Track(track.present[i : i + 1], track.matrices[i : i + 1], track.frame_size)
        part, mask = paste_faces(frames[i : i + 1], crops[i : i + 1], one)  # type: ignore[arg-type]
        np.testing.assert_array_equal(part[0], whole[i])
        np.testing.assert_array_equal(mask[0], masks[i])


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_many_frames_side_by_side_equal_one_after_the_other(dtype, monkeypatch):
    monkeypatch.setattr("models.parallel.threads", lambda: 8)
    frames = _noise((24, 240, 320, 3), dtype)
    places = [None if i % 5 == 0 else (150 + i, 110 - i, 100 + i, i) for i in range(24)]
    track, crops = _track(frames, *places), _noise((24, 64, 64, 3), "f4")
    together, masks = paste_faces(frames, crops, track)
    into = frames.copy()
    paste_into(into, crops, track)
    monkeypatch.setattr("models.parallel.threads", lambda: 1)
    alone, alone_masks = paste_faces(frames, crops, track)
    np.testing.assert_array_equal(together, alone)
    np.testing.assert_array_equal(masks, alone_masks)
    np.testing.assert_array_equal(into, alone)
    np.testing.assert_array_equal(together[::5], frames[::5])
    assert masks[~track.present].max() == 0 and (masks[track.present].max((1, 2)) == 1).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("colour_match", ["off", "lab"])
def test_a_broken_crop_is_refused_and_no_frame_touched(value, colour_match):
    frames, crops = _noise((2, 240, 320, 3), "uint8"), _flat(2, 64, 0.5)
    crops[1, 5, 6, 0], before = value, frames.copy()
    track = _track(frames, PLACE)
    for paste in (paste_faces, paste_into):
        with pytest.raises(ValueError, match="crops hold NaN or infinite.*Check the node"):
            paste(frames, crops, track, colour_match=colour_match)
    np.testing.assert_array_equal(frames, before)


@pytest.mark.parametrize(
    "frames, crops, mask, options, words",
    [
        ((2, 40, 40, 3), (1, 8, 8, 3), None, {}, "2"),
        ((1, 40, 40, 3), (1, 8, 8, 3), None, {}, "40"),
        ((1, 240, 320, 3), (1, 8, 8, 3), (1, 9, 9), {}, "mask"),
        ((1, 240, 320, 3), (1, 8, 8, 3), None, {"colour_match": "rgb"}, "rgb"),
    ],
)
def test_what_does_not_fit_is_refused(frames, crops, mask, options, words):
    track = _track(np.empty((1, 240, 320, 3)), PLACE)
    user = None if mask is None else np.ones(mask, np.float32)
    with pytest.raises(ValueError, match=words):
        paste_faces(_noise(frames), np.zeros(crops, np.float32), track, user, **options)
