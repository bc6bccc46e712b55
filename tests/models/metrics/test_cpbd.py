"""CPBD against the specification's values, and its runs against a plain loop."""

from __future__ import annotations

import numpy as np
import pytest

from models.metrics.cpbd import cpbd, edge_widths

pytest.importorskip("skimage")
gaussian_filter = pytest.importorskip("scipy.ndimage").gaussian_filter


def blurred_noise(sigma: float) -> np.ndarray:
    picture = gaussian_filter(np.random.RandomState(12).uniform(0, 255, (192, 192)), sigma)
    return np.rint((picture - picture.min()) / np.ptp(picture) * 255)


@pytest.mark.parametrize("sigma, expected", [(1.0, 0.636616), (1.5, 0.261997)])
def test_golden_values(sigma: float, expected: float):
    assert cpbd(blurred_noise(sigma)) == pytest.approx(expected, abs=1e-6)
    assert cpbd(blurred_noise(sigma).astype(np.uint8)) == cpbd(blurred_noise(sigma))


def test_blur_lowers_it(astronaut: np.ndarray):
    grey = astronaut @ [0.299, 0.587, 0.114]
    scores = [cpbd(gaussian_filter(grey, sigma)) for sigma in (0.5, 1.0, 2.0, 4.0)]
    assert scores == sorted(scores, reverse=True)
    # The package cpbd 1.0.7, with its one removed import mended, says the same.
    assert cpbd(grey) == pytest.approx(0.3472426085, abs=1e-9)


def test_only_whole_blocks_count(astronaut: np.ndarray):
    face = astronaut[60:156, 180:276] @ [0.299, 0.587, 0.114]
    inside, outside = face.copy(), face.copy()
    outside[64:], outside[:, 64:] = gaussian_filter(face, 2)[64:], gaussian_filter(face, 2)[:, 64:]
    inside[:64, :64] = gaussian_filter(face, 2)[:64, :64]
    # What lies outside the one whole block counts only in the threshold, which is the whole picture's.
    assert cpbd(outside) == pytest.approx(cpbd(face), abs=0.03)
    assert cpbd(inside) < cpbd(face) - 0.1
    assert cpbd(face[:63]) == 0


@pytest.mark.parametrize("flat", [0, 128])
def test_a_flat_picture_has_no_edge(flat: int):
    assert cpbd(np.full((128, 128), flat)) == 0


def test_widths_by_hand():
    """The steepest pixel is 140: two steps lead down to the left of 60, one leads up to the right of 190."""
    row = np.array([10.0] * 8 + [20, 60, 140, 190, 200] + [200.0] * 8)
    widths = edge_widths(np.tile(row, (16, 1)))
    assert (widths[1:-1, 10] == (2 + 1) + (1 + 1)).all()
    assert np.count_nonzero(widths) == 14
    assert np.array_equal(edge_widths(np.tile(row[::-1], (16, 1)))[:, ::-1], widths)


def test_runs_are_those_of_a_loop():
    image = blurred_noise(1.0)[:64, :80]
    widths = edge_widths(image)
    angle = np.degrees(np.arctan2(*np.gradient(image)))
    for y, x in np.argwhere(widths):
        sign = 1 if abs(angle[y, x]) < 22.5 or np.gradient(image)[1][y, x] == 0 else -1
        left = right = 0
        while x - 2 - left >= 0 and sign * (image[y, x - 2 - left] - image[y, x - 1 - left]) < 0:
            left += 1
        while x + 2 + right < image.shape[1] and sign * (image[y, x + 2 + right] - image[y, x + 1 + right]) > 0:
            right += 1
        assert widths[y, x] == left + right + 2
