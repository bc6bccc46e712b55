from __future__ import annotations

import numpy as np
import pytest

from models.faces import load_detector
from models.geometry import ARCFACE_TEMPLATE, crop_matrices, warp_crops
from training.clips import with_margin
from training.data.quality import face_share, objection, sharpness, turn

GOOD = {"side": 200.0, "sharpness": 0.1, "turn": 0.1, "silence": 0.2, "faces": 1.0}


def test_good_numbers_raise_no_objection():
    assert objection(GOOD, 96) == ""


@pytest.mark.parametrize(
    "name, value, word",
    [
        ("side", 60.0, "small"),
        ("sharpness", 0.003, "blurred"),
        ("turn", 0.8, "turned away"),
        ("silence", 0.95, "silent"),
        ("faces", 0.5, "no face"),
    ],
)
def test_each_bad_number_is_told_by_name(name, value, word):
    assert objection({**GOOD, name: value}, 96).startswith(word)


def test_the_least_side_grows_with_the_trained_size():
    assert objection({**GOOD, "side": 100.0}, 96) == ""
    assert objection({**GOOD, "side": 100.0}, 256).startswith("small")


def test_a_blurred_picture_is_less_sharp_whatever_its_contrast(astronaut):
    import cv2

    face = astronaut[50:170, 165:285]
    blurred = cv2.GaussianBlur(face, (0, 0), 3)
    pale = (128 + 0.5 * (face.astype(float) - 128)).round().astype(np.uint8)
    assert sharpness(blurred) < 0.006 < 0.02 < sharpness(face)
    assert abs(sharpness(pale) / sharpness(face) - 1) < 0.1


def test_turn_is_none_for_the_template_and_does_not_see_tilt():
    template = ARCFACE_TEMPLATE[None]
    assert turn(template)[0] < 0.05
    aside = template.copy()
    aside[:, 2, 0] += 20
    cos, sin = np.cos(0.5), np.sin(0.5)
    tilted = aside @ np.array([[cos, sin], [-sin, cos]])
    assert turn(aside)[0] > 0.5
    assert np.isclose(turn(tilted)[0], turn(aside)[0])


def test_a_face_is_found_again_where_its_crop_puts_it_and_a_collar_is_none(astronaut):
    detector = load_detector()
    landmarks = detector.detect(astronaut[None])[0][0].landmarks[None].astype(np.float64) + 0.5
    there = warp_crops(astronaut[None], with_margin(crop_matrices(landmarks)), 120)
    below = warp_crops(astronaut[None], with_margin(crop_matrices(landmarks + np.array([0, 140]))), 120)
    assert face_share(np.concatenate([there, there, below, below]), detector) == 0.5
