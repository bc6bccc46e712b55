from __future__ import annotations

import numpy as np
import pytest

from models.clock import continued

LIMIT, STEP = 250, 1  # frames of 25 a second


def still(begin: int, end: int) -> bool:
    return False


@pytest.mark.parametrize(
    ("pts", "shifts"),
    [
        ([0, 1, 2, 3, 4], [0]),
        ([7, 8, 9, 200, 201], [0]),  # a pause is no jump
        ([5, 6, 7, 5, 6], [0, 3]),  # twice the same recording
        ([5, 6, 7, 5, 6, 7, 5], [0, 3, 6]),
        ([2500, 2501, 30, 31], [0, 2472]),  # the later part first
        ([0, 1, 2, 2500, 2501], [0, -2497]),  # a hole
        ([0, 1, 2, 1, 2, 3], [0, 2]),  # the second part begins within the first
        ([40, 41, 99999, 43, 44], [0, 42 - 99999, 0]),  # one wrong stamp
        ([40, 41, 12, 43, 44], [0, 42 - 12, 0]),
    ],
)
def test_time_stamps_that_jump_are_continued(pts, shifts):
    times, found = continued(np.array(pts), LIMIT, STEP, still)
    assert found == shifts
    assert continued(np.array(pts), LIMIT, STEP, lambda begin, end: True)[1] == shifts or 2500 in pts
    assert (np.diff(times) > 0).all()
    assert np.diff(times).max() <= (191 if 200 in pts else 1)


def test_a_picture_that_stands_still_while_the_sound_goes_on_is_no_jump():
    asked = []
    pts = np.array([0, 1, 2, 1000, 1001])
    times, shifts = continued(pts, LIMIT, STEP, lambda begin, end: asked.append((begin, end)) or True)
    assert (times.tolist(), shifts, asked) == (pts.tolist(), [0], [(2, 1000)])
