"""Frames reduced in windows only, against the same windows of frames reduced as a whole."""

from __future__ import annotations

import numpy as np
import pytest

from models.letterbox import GREY, GRID, Letterbox

WINDOWS = [(0, 0, 64, 64), (96, 32, 160, 128), (256, 96, 320, 192), (128, 160, 160, 192), (0, 0, 320, 192)]


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height).integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize(
    "height, width, size",
    [(720, 1280, (320, 180)), (480, 854, (320, 180)), (180, 320, (320, 180)), (1, 7, (7, 1)), (2000, 10, (2, 320))],
)
def test_frames_fit_and_keep_their_shape(height, width, size):
    box = Letterbox.of(noise(height, width), 320)
    assert box.size == size
    assert all(side % GRID == 0 and 0 <= side - inner < GRID for side, inner in zip(box.canvas, box.size, strict=True))
    np.testing.assert_allclose(box.ratio, (width / size[0], height / size[1]))


@pytest.mark.parametrize("height, width", [(720, 1280), (480, 854), (180, 320), (360, 640)])
def test_windows_show_what_the_whole_shows(height, width):
    frame = noise(height, width)
    box = Letterbox.of(frame, 320)
    whole = box.whole(frame)
    assert whole.shape == (192, 320, 3)
    assert (whole[180:] == GREY).all()
    for (left, top, right, bottom), part in zip(WINDOWS, box.parts(frame, WINDOWS), strict=True):
        np.testing.assert_array_equal(part, whole[top:bottom, left:right])


def test_a_window_in_the_border_is_grey():
    frame = noise(320, 330)
    assert (Letterbox.of(frame, 400).parts(frame, [(352, 0, 384, 32)])[0] == GREY).all()
