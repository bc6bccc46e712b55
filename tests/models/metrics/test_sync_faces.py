"""Face crops for sync models: SyncNet's square against its definition by padding."""

from __future__ import annotations

import numpy as np
import pytest

from models.metrics.sync_faces import interpolated_boxes, steady_squares, unbroken, wide_crop
from models.tracklets import Sighting, Tracklet

cv2 = pytest.importorskip("cv2")


def by_padding(frame: np.ndarray, x: float, y: float, half: float) -> np.ndarray:
    """The definition: a border of int(1.8 s) of grey 110, then rows and columns of the padded frame."""
    border = int(1.8 * half)
    padded = np.pad(frame, ((border, border), (border, border), (0, 0)), constant_values=110)
    rows = slice(int(y + border - half), int(y + border + 1.8 * half))
    columns = slice(int(x + border - 1.4 * half), int(x + border + 1.4 * half))
    return cv2.resize(padded[rows, columns], (224, 224))


@pytest.mark.parametrize("seed", range(8))
def test_wide_crop_is_the_padded_one(seed: int):
    random = np.random.default_rng(seed)
    frame = random.integers(0, 256, (150, 200, 3), np.uint8)
    x, y, half = random.uniform(0, 200), random.uniform(0, 150), random.uniform(20, 120)
    assert np.array_equal(wide_crop(frame, np.array([x, y, half]), 224), by_padding(frame, x, y, half))


def test_a_face_far_outside_is_grey():
    assert (wide_crop(np.zeros((50, 50, 3), np.uint8), np.array([400.0, 400.0, 20.0]), 8) == 110).all()


def face_at(*places: tuple[int, float]) -> Tracklet:
    face = Tracklet()
    for frame, x in places:
        box = np.array([x, 0, x + 100, 120])
        face.add(Sighting(frame, box, 0.9, np.zeros((5, 2), np.float32), np.zeros(4, np.float16)))
    return face


def test_boxes_between_sightings_are_filled_linearly():
    boxes = interpolated_boxes(face_at((3, 0.0), (5, 10.0), (9, 10.0)))
    assert boxes[:, 0].tolist() == [0, 5, 10, 10, 10, 10, 10]


def test_a_long_gap_parts_a_track():
    parts = unbroken(face_at((0, 0), (25, 0), (51, 0), (52, 0)), 25)
    assert [list(part.sightings) for part in parts] == [[0, 25], [51, 52]]


def test_squares_are_steadied_by_a_median():
    boxes = np.tile([10.0, 20.0, 110.0, 140.0], (40, 1))
    boxes[20] += 500  # one wrong detection
    squares = steady_squares(boxes)
    assert squares[6:-6] == pytest.approx(np.tile([60.0, 80.0, 60.0], (28, 1)))
