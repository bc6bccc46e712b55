"""From the detector's maps to candidates."""

from __future__ import annotations

import numpy as np
import torch

from models.networks.facedetector import UNIT, FaceDetector, decode, joined, suppress

EMPTY = -20.0  # logit


def values(*pictures: dict[int, float]) -> np.ndarray:
    """Maps of 64 x 32 px, joined: 32 cells of stride 8, 8 of 16, 2 of 32; logits of some cells, the rest of all 0."""
    result = np.zeros((len(pictures), 15, 42), np.float32)
    result[:, 0] = EMPTY
    for picture, logits in zip(result, pictures, strict=True):
        for cell, logit in logits.items():
            picture[0, cell] = logit
    return result


def test_cells_become_boxes_and_points_in_pixels():
    maps = values({9: 3.0})  # second row and column of the finest level
    maps[0, 5:, 9] = np.arange(10) / 10
    picture, scores, boxes, points = decode(maps, 64, 32, 0.5)
    side = np.log(2) * UNIT * 8
    assert picture.tolist() == [0]
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-3)), rtol=1e-6)
    np.testing.assert_allclose(boxes, [[12 - side, 12 - side, 12 + side, 12 + side]], rtol=1e-6)
    np.testing.assert_allclose(points[0], 12 + np.arange(10).reshape(5, 2) / 10 * UNIT * 8, rtol=1e-6)
    coarse = decode(values({41: 1.0}), 64, 32, 0.5)[2]
    np.testing.assert_allclose((coarse[0, :2] + coarse[0, 2:]) / 2, (48, 16), rtol=1e-6)


def test_candidates_are_sorted_and_limited_picture_by_picture():
    maps = values({3: 1.0, 30: 4.0, 40: 2.0}, {}, {7: 5.0, 8: 0.4})
    picture, scores, *_ = decode(maps, 64, 32, 0.5)
    assert picture.tolist() == [0, 0, 0, 2, 2]
    assert (np.diff(scores)[[0, 1, 3]] < 0).all()
    picture, scores, *_ = decode(maps, 64, 32, 0.5, most=1)
    assert picture.tolist() == [0, 2]
    np.testing.assert_allclose(scores, 1 / (1 + np.exp(-np.array([4.0, 5.0]))), rtol=1e-6)
    assert [len(part) for part in decode(maps, 64, 32, 0.999)] == [0, 0, 0, 0]


def test_joined_levels_are_in_the_order_of_the_cells():
    network = FaceDetector().eval()
    with torch.inference_mode():
        maps = network(torch.rand(2, 3, 32, 64))
    together = joined(maps).numpy()
    assert together.shape == (2, 15, 42)
    np.testing.assert_array_equal(together[1, :, 32 + 5], maps[1][1, :, 1, 1].numpy())
    assert len(decode(together, 64, 32, 0.0)[0]) == 84


def test_a_face_inside_a_better_one_falls_and_a_worse_one_around_too():
    boxes = np.array([[0, 0, 10, 10], [2, 2, 6, 6], [-20, -20, 30, 30], [9, 0, 19, 10]], np.float32)
    assert suppress(boxes) == [0, 3]
