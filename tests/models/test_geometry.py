"""Transforms against a second implementation, warps against torch and kornia, what smoothing promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models import geometry

GOLDEN_POINTS = np.array([(201.3, 150.2), (262.9, 148.7), (233.4, 190.1), (207.8, 221.6), (259.2, 220.3)])


def _moved(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    return points @ matrix[:, :2].T + matrix[:, 2]


def _similarity(scale: float, degrees: float, x: float, y: float) -> np.ndarray:
    cos, sin = scale * np.cos(np.deg2rad(degrees)), scale * np.sin(np.deg2rad(degrees))
    return np.array([[cos, -sin, x], [sin, cos, y]])


def _faces(count: int, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """Crop matrices of a face that drifts, grows and turns evenly, with detection noise in frame pixels."""
    rng = np.random.default_rng(seed)
    landmarks = []
    for i in range(count):
        place = _similarity(120 + 0.3 * i, -8 + 0.2 * i, 60 + 1.5 * i, 40 + 0.7 * i)
        landmarks.append(_moved(place, geometry.CROP_TEMPLATE) + noise * rng.standard_normal((5, 2)))
    return geometry.crop_matrices(np.array(landmarks))


def _smooth_picture(height: int = 240, width: int = 320) -> np.ndarray:
    y, x = np.mgrid[:height, :width] + 0.5
    waves = [np.sin(x / 23 + k) * np.cos(y / 31 - k) for k in range(3)]
    return np.float32(0.5 + 0.4 * np.stack(waves, -1))


# --- similarity transforms ---------------------------------------------------------------------------------------


def test_transform_meets_the_golden_values():
    matrix = geometry.similarity_transform(GOLDEN_POINTS, geometry.ARCFACE_TEMPLATE)
    wanted = [[0.567883, -0.009088, -74.553010], [0.009088, 0.567883, -35.944471]]
    np.testing.assert_allclose(matrix, wanted, atol=1e-6)


def test_transform_equals_scikit_image():
    skimage = pytest.importorskip("skimage.transform")
    rng = np.random.default_rng(1)
    source = rng.uniform(0, 1000, (50, 5, 2))
    ours = geometry.similarity_transform(source, geometry.ARCFACE_TEMPLATE)
    for points, matrix in zip(source, ours, strict=True):
        theirs = skimage.SimilarityTransform.from_estimate(points, geometry.ARCFACE_TEMPLATE).params[:2]
        np.testing.assert_allclose(matrix, theirs, rtol=1e-9, atol=1e-9)


def test_transform_finds_a_known_similarity_and_its_inverse_undoes_it():
    known = _similarity(2.5, 137.0, -40.0, 900.0)
    matrix = geometry.similarity_transform(GOLDEN_POINTS, _moved(known, GOLDEN_POINTS))
    np.testing.assert_allclose(matrix, known, atol=1e-9)
    back = geometry.invert(matrix[None])[0]
    np.testing.assert_allclose(_moved(back, _moved(matrix, GOLDEN_POINTS)), GOLDEN_POINTS, atol=1e-9)


def test_mirrored_points_never_give_a_reflection():
    mirrored = GOLDEN_POINTS * (-1, 1)
    matrix = geometry.similarity_transform(mirrored, geometry.ARCFACE_TEMPLATE)
    assert np.linalg.det(matrix[:, :2]) >= 0


def test_crop_template_puts_the_eyes_where_the_geometry_says():
    eyes = geometry.CROP_TEMPLATE[:2]
    np.testing.assert_allclose(eyes.mean(0), (0.5, 0.37))
    assert np.linalg.norm(eyes[1] - eyes[0]) == pytest.approx(0.30)
    assert (geometry.CROP_TEMPLATE[2:, 1] > 0.5).all()  # nose tip and mouth lie in the half that is generated
    assert (geometry.CROP_TEMPLATE > 0.2).all() and (geometry.CROP_TEMPLATE < 0.8).all()


# --- warps -------------------------------------------------------------------------------------------------------


def test_pixel_matrix_follows_the_pixel_centre_convention():
    matrix, size = _faces(1)[0], 96
    column_row = np.array([[17.0, 33.0], [200.0, 101.5]])
    unit = _moved(matrix, column_row + 0.5)
    np.testing.assert_allclose(_moved(geometry.pixel_matrix(matrix, size), column_row), size * unit - 0.5, atol=1e-9)


def test_identity_crop_is_the_picture_itself():
    picture = np.random.default_rng(2).integers(0, 256, (1, 64, 64, 3), dtype=np.uint8)
    matrix = np.array([[[1 / 64, 0, 0], [0, 1 / 64, 0]]])
    np.testing.assert_array_equal(geometry.warp_crops(picture, matrix, 64), picture)


@pytest.mark.parametrize("size", [64, 96, 200])
def test_warp_equals_torch_and_kornia(size):
    picture, matrix = _smooth_picture(), _faces(1)[0]
    ours = geometry.warp_crops(picture[None], matrix[None], size)[0]
    height, width = picture.shape[:2]
    tensor = torch.from_numpy(picture).permute(2, 0, 1)[None]

    unit = (np.stack(np.meshgrid(np.arange(size), np.arange(size)), -1) + 0.5) / size
    frame = _moved(geometry.invert(matrix[None])[0], unit.reshape(-1, 2)) / (width, height) * 2 - 1
    grid = torch.from_numpy(frame.reshape(1, size, size, 2)).float()
    sampled = torch.nn.functional.grid_sample(tensor, grid, padding_mode="border", align_corners=False)
    np.testing.assert_allclose(ours, sampled[0].permute(1, 2, 0).numpy(), atol=4e-3)

    kornia = pytest.importorskip("kornia.geometry")
    pixels = torch.from_numpy(geometry.pixel_matrix(matrix, size)).float()[None]
    warped = kornia.warp_affine(tensor, pixels, (size, size), padding_mode="border", align_corners=True)
    np.testing.assert_allclose(ours, warped[0].permute(1, 2, 0).numpy(), atol=4e-3)


def test_shrinking_averages_instead_of_aliasing():
    stripes = np.zeros((1, 512, 512, 3), np.uint8)
    stripes[:, :, ::2] = 255
    matrix = np.array([[[1 / 512, 0, 0], [0, 1 / 512, 0]]])
    crop = geometry.warp_crops(stripes, matrix, 64).astype(float)
    assert crop.mean() == pytest.approx(127.5, abs=2)
    assert crop.std() < 3


def test_outside_the_frame_the_border_is_repeated():
    grey = np.full((1, 50, 50, 3), 77, np.uint8)
    beside = np.array([[[1 / 80, 0, 0.5], [0, 1 / 80, 0.5]]])
    assert (geometry.warp_crops(grey, beside, 32) == 77).all()


@pytest.mark.parametrize("size", [96, 128, 256, 512])
def test_there_and_back_at_any_resolution(size):
    """Unit coordinates: a crop of any size, laid back through the same matrix, shows the frame again."""
    cv2 = pytest.importorskip("cv2")
    picture, matrix = _smooth_picture(), _faces(1)[0]
    crop = geometry.warp_crops(picture[None], matrix[None], size)[0]
    flags = cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP
    back = cv2.warpAffine(crop, geometry.pixel_matrix(matrix, size), picture.shape[1::-1], flags=flags)
    y, x = np.mgrid[: picture.shape[0], : picture.shape[1]] + 0.5
    unit = _moved(matrix, np.stack([x, y], -1))
    inside = ((unit > 0.05) & (unit < 0.95)).all(-1)
    assert inside.sum() > 5000
    assert np.abs(back - picture)[inside].max() < 0.002  # half a pixel of shift would give 0.01


def test_warp_leaves_its_input_alone_and_keeps_the_type():
    for picture in (_smooth_picture(), np.uint8(255 * _smooth_picture())):
        before = picture.copy()
        crop = geometry.warp_crops(picture[None], _faces(1), 300)
        assert crop.dtype == picture.dtype and crop.shape == (1, 300, 300, 3)
        np.testing.assert_array_equal(picture, before)


# --- smoothing ---------------------------------------------------------------------------------------------------


def _corners(matrices: np.ndarray) -> np.ndarray:
    unit = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], float)
    back = geometry.invert(matrices)
    return unit @ back[:, :, :2].transpose(0, 2, 1) + back[:, None, :, 2]


def _jitter(matrices: np.ndarray) -> float:
    return float(np.abs(np.diff(_corners(matrices), n=2, axis=0)).mean())


def test_smoothing_off_changes_nothing_and_never_works_in_place():
    noisy = _faces(40, noise=2.0)
    before = noisy.copy()
    here = np.ones(40, bool)
    np.testing.assert_array_equal(geometry.smooth_matrices(noisy, here, (), 0), before)
    geometry.smooth_matrices(noisy, here, (), 1.0)
    np.testing.assert_array_equal(noisy, before)


def test_more_strength_means_less_jitter():
    noisy, here = _faces(80, noise=2.0), np.ones(80, bool)
    jitters = [_jitter(geometry.smooth_matrices(noisy, here, (), s)) for s in (0.0, 0.25, 0.5, 1.0)]
    assert jitters == sorted(jitters, reverse=True)
    assert jitters[2] < 0.1 * jitters[0]


def test_smoothing_brings_noisy_crops_nearer_to_the_truth():
    truth, noisy, here = _faces(80), _faces(80, noise=2.0), np.ones(80, bool)
    smooth = geometry.smooth_matrices(noisy, here, (), 0.5)
    assert np.abs(_corners(smooth) - _corners(truth)).mean() < 0.6 * np.abs(_corners(noisy) - _corners(truth)).mean()


def test_steady_movement_is_kept_without_delay():
    """Constant velocity, growth and turn pass unchanged, also at both ends."""
    y = np.arange(60)
    place = np.stack([_similarity(100 * 1.004**i, 0.5 * i, 0, 0) for i in y])
    place[:, :, 2] = np.column_stack([30 + 2.0 * y, 50 - 0.5 * y]) - place[:, :, :2] @ (0.5, 0.5)
    matrices = geometry.invert(place)
    smooth = geometry.smooth_matrices(matrices, np.ones(60, bool), (), 1.0)
    np.testing.assert_allclose(_corners(smooth), _corners(matrices), atol=1e-6)


def test_smoothing_is_the_same_forwards_and_backwards():
    noisy, here = _faces(50, noise=2.0), np.ones(50, bool)
    forwards = geometry.smooth_matrices(noisy, here, (), 0.7)
    backwards = geometry.smooth_matrices(noisy[::-1], here, (), 0.7)[::-1]
    np.testing.assert_allclose(forwards, backwards, atol=1e-12)


def test_smoothing_crosses_neither_cuts_nor_gaps():
    noisy = _faces(60, noise=2.0)
    present = np.ones(60, bool)
    present[40:45] = False
    whole = geometry.smooth_matrices(noisy, present, (20,), 1.0)
    for start, stop in ((0, 20), (20, 40), (45, 60)):
        alone = geometry.smooth_matrices(noisy[start:stop], np.ones(stop - start, bool), (), 1.0)
        np.testing.assert_allclose(whole[start:stop], alone, atol=1e-12)
    np.testing.assert_array_equal(whole[40:45], noisy[40:45])


def test_the_result_is_still_a_similarity():
    smooth = geometry.smooth_matrices(_faces(30, noise=3.0), np.ones(30, bool), (), 1.0)[:, :, :2]
    np.testing.assert_allclose(smooth[:, 0, 0], smooth[:, 1, 1], atol=1e-12)
    np.testing.assert_allclose(smooth[:, 0, 1], -smooth[:, 1, 0], atol=1e-12)


def test_turning_through_half_a_circle_is_continuous():
    """Angles near +-180 degrees: the average of 179 and -179 is 180, not 0."""
    place = np.stack([_similarity(100, 170 + i, 200, 200) for i in range(20)])
    matrices = geometry.invert(place)
    smooth = geometry.smooth_matrices(matrices, np.ones(20, bool), (), 1.0)
    assert np.abs(_corners(smooth) - _corners(matrices)).max() < 20
    assert np.abs(np.diff(_corners(smooth), axis=0)).max() < 5


@pytest.mark.parametrize("count", [1, 2, 3])
def test_very_short_shots(count):
    smooth = geometry.smooth_matrices(_faces(count, noise=1.0), np.ones(count, bool), (), 1.0)
    assert smooth.shape == (count, 2, 3) and np.isfinite(smooth).all()
