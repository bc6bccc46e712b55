from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from models.face_track import FaceTrack
from models.geometry import CROP_TEMPLATE, crop_matrices, invert
from models.overlay import ABSENT, POINTS, PRESENT, UNIT_CORNERS, draw_track, preview_size


@pytest.fixture
def track() -> FaceTrack:
    points = np.repeat((CROP_TEMPLATE * 80 + (60, 30))[None], 3, 0).astype(np.float32)
    present = np.array([True, False, True])
    return FaceTrack(present, crop_matrices(points + 0.5), points, np.ones(3, np.float32), (200, 150), Fraction(25))


def test_outline_points_and_absence_are_drawn(track):
    frames = np.full((3, 150, 200, 3), 90, np.uint8)
    before = frames.copy()
    drawn = draw_track(frames, track)
    np.testing.assert_array_equal(frames, before)
    assert drawn.shape == frames.shape and drawn.dtype == np.uint8
    for x, y in track.landmarks[0].round().astype(int):
        assert tuple(drawn[0, y, x]) == POINTS
    back = invert(track.matrices)[0]
    x, y = (UNIT_CORNERS[:2].mean(0) @ back[:, :2].T + back[:, 2]).astype(int)  # middle of the upper edge
    assert tuple(drawn[0, y, x]) == PRESENT
    assert (drawn[1, 75, 0] == ABSENT).all() and (drawn[1, 0, 100] == ABSENT).all()
    assert (drawn[1, 60:80, 60:140] == 90).all()
    assert (drawn[0, 140, 190] == 90).all()


def test_another_size_and_faces_beyond_the_frame(track):
    far = track.slice(0, 3)
    far.matrices[2] = crop_matrices(track.landmarks[2:3] + 1e7)[0]
    drawn = draw_track(np.zeros((3, 150, 200, 3), np.uint8), far, size=(100, 75), first=99)
    assert drawn.shape == (3, 75, 100, 3)
    x, y = (track.landmarks[0, 0] / 2).round().astype(int)
    assert tuple(drawn[0, y, x]) == POINTS


def test_counts_must_agree(track):
    with pytest.raises(ValueError, match="2 frames and a track of 3"):
        draw_track(np.zeros((2, 150, 200, 3), np.uint8), track)
    assert len(draw_track(np.zeros((0, 150, 200, 3), np.uint8), track.slice(0, 0))) == 0


def test_previews_are_small_and_even():
    assert preview_size(1920, 1080) == (480, 270)
    assert preview_size(333, 251) == (332, 252)
    assert preview_size(1, 5000) == (2, 480)
