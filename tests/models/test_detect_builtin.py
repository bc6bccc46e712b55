from __future__ import annotations

import csv

import numpy as np
import pytest
import skimage.data

from models import detect_builtin
from models.checkpoints import bundled_path
from models.detect_builtin import BuiltinDetector
from models.networks.facedetector import suppress

# Eyes, nose tip and mouth corners of the NASA portrait, read off the picture.
ASTRONAUT = np.array([[204, 101], [246, 103], [222, 131], [199, 137], [246, 140]])


@pytest.fixture(scope="module")
def detector() -> BuiltinDetector:
    return BuiltinDetector()


@pytest.fixture(scope="module")
def astronaut() -> np.ndarray:
    return skimage.data.astronaut()


def test_finds_the_astronaut_and_her_landmarks(detector, astronaut):
    best = detector.detect(astronaut[None])[0][0]
    assert best.score > 0.6
    assert np.linalg.norm(best.landmarks - ASTRONAUT, axis=1).max() < 0.12 * 42  # of the distance between the eyes


@pytest.mark.parametrize("name", ["rocket", "brick", "page", "moon", "coffee", "chelsea"])
def test_sees_no_face_where_there_is_none(detector, name):
    picture = getattr(skimage.data, name)()
    picture = np.repeat(picture[..., None], 3, 2) if picture.ndim == 2 else picture
    assert detector.detect(np.ascontiguousarray(picture)[None]) == [[]]


def test_a_batch_finds_what_single_frames_find(detector, astronaut):
    frames = np.stack([astronaut, np.zeros_like(astronaut), astronaut[:, ::-1], *[astronaut] * 8])
    together, alone = detector.detect(frames), [detector.detect(frame[None])[0] for frame in frames]
    for a, b in zip(together, alone, strict=True):
        assert len(a) == len(b)
        assert all(np.allclose(x.landmarks, y.landmarks, atol=0.05) for x, y in zip(a, b, strict=True))


def test_blank_pictures_that_fill_a_call_change_nothing(detector, astronaut, monkeypatch):
    frames = np.stack([astronaut, astronaut[:, ::-1], astronaut])
    before = detector.detect(frames)
    monkeypatch.setitem(detect_builtin.MULTIPLE, "cpu", 8)
    for a, b in zip(before, detector.detect(frames), strict=True):
        np.testing.assert_allclose([f.box for f in a], [f.box for f in b], atol=0.01)
        np.testing.assert_allclose([f.landmarks for f in a], [f.landmarks for f in b], atol=0.01)


def test_no_frames_and_odd_sizes(detector, astronaut):
    assert detector.detect(np.zeros((0, 10, 10, 3), np.uint8)) == []
    assert detector.detect(np.zeros((1, 1, 7, 3), np.uint8)) == [[]]
    assert detector.detect(astronaut[None, :333, :501])[0]


@pytest.mark.parametrize("scale", [0.25, 0.5, 2, 4])
def test_landmarks_scale_with_the_picture(detector, astronaut, scale):
    import cv2

    picture = cv2.resize(astronaut, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    best = detector.detect(picture[None])[0][0]
    assert np.linalg.norm(best.landmarks / scale - ASTRONAUT, axis=1).mean() < 0.12 * 42


def test_a_mirrored_face_has_mirrored_landmarks(detector, astronaut):
    straight = detector.detect(astronaut[None])[0][0].landmarks
    mirrored = detector.detect(np.ascontiguousarray(astronaut[None, :, ::-1]))[0][0].landmarks
    back = np.column_stack([511 - mirrored[:, 0], mirrored[:, 1]])[[1, 0, 2, 4, 3]]
    assert np.linalg.norm(back - straight, axis=1).max() < 0.1 * 42


def test_finds_every_face_of_the_labelled_stills(detector, shared_data):
    """Recall and landmark error over all photographs with one face; measured 100 % and 3 % of the eye distance."""
    import cv2

    hits, errors = [], []
    for row in csv.DictReader((shared_data / "faces" / "manifest.csv").open(newline="")):
        if row["kind"] != "photo" or row["faces"] != "1":
            continue
        picture = np.ascontiguousarray(cv2.imread(str(shared_data / "faces" / row["file"]))[:, :, ::-1])
        truth = np.array(row["kps5"].split(), np.float32).reshape(5, 2)
        eyes = np.linalg.norm(truth[1] - truth[0])
        found = detector.detect(picture[None])[0]
        error = min((np.linalg.norm(f.landmarks - truth, axis=1).mean() / eyes for f in found), default=np.inf)
        hits.append(error < 0.25)
        errors.append(error)
    assert np.mean(hits) > 0.95
    assert np.median(errors) < 0.06


def test_doubles_are_suppressed_and_neighbours_kept():
    import torch

    boxes = torch.tensor([[0, 0, 10, 10], [1, 1, 11, 11], [20, 0, 30, 10], [21, 1, 25, 5]]).float()
    assert suppress(boxes) == [0, 2]
    assert suppress(boxes[:0]) == []


def test_weights_are_small():
    assert bundled_path("detector.safetensors").stat().st_size < 3e6
