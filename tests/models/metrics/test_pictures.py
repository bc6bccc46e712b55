"""Metrics of pictures: seam, CPBD on the face square, features of sets; what must match between two videos."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from models.frames import FrameArray
from models.metrics import metric
from models.metrics.frechet import distance, normal
from models.metrics.seam import across
from models.metrics.subject import Subject, Tools
from tests.models.metrics.stage import FPS, MarkDetector, scene


def pair(made: np.ndarray, given: np.ndarray, **tools) -> Subject:
    return Subject(FrameArray(made, FPS), Tools(MarkDetector(), **tools), reference=FrameArray(given, FPS))


def test_gradient_across_an_edge():
    mask = np.zeros((20, 30))
    mask[:, 15:] = 1
    picture = np.zeros((20, 30, 3), np.uint8)
    picture[:, 15:] = 80
    assert across(picture, mask) == pytest.approx(40)  # half of the step at each of the two pixels beside it
    assert across(picture.transpose(1, 0, 2), mask.T) == pytest.approx(40)
    along = np.zeros((20, 30, 3), np.uint8)
    along[10:] = 80  # an edge that crosses the border does not count
    assert across(along, mask) == 0
    assert np.isnan(across(picture, np.ones((20, 30))))


def test_seam_of_a_pasted_patch_and_of_nothing():
    given = scene(np.full(8, 0.5))
    assert metric("seam").measure(pair(given, given)).scores["seam"] == 0
    brighter = given.copy()
    brighter[:, 30:110, 40:120] = np.minimum(brighter[:, 30:110, 40:120], 195) + 60
    mask = np.zeros(given.shape[1:3])
    mask[30:110, 40:120] = 1
    subject = pair(brighter, given)
    subject.border = lambda frame: mask
    result = metric("seam").measure(subject)
    assert 5 < result.scores["seam"] < 40
    assert result.scores["seam"] == pytest.approx(result.scores["seam_made"] - result.scores["seam_given"])
    assert result.method == "border as given"


def test_cpbd_of_the_face_square():
    frames = scene(np.full(4, 0.5))
    blurred = frames.copy()
    cv2 = pytest.importorskip("cv2")
    marks = (frames == (250, 3, 250)).all(-1)
    for frame in blurred:
        frame[:] = cv2.GaussianBlur(frame, (0, 0), 2.5)
    blurred[marks] = (250, 3, 250)
    sharp, soft = (
        metric("cpbd").measure(Subject(FrameArray(one, FPS), Tools(MarkDetector()))).scores for one in (frames, blurred)
    )
    assert sharp["cpbd_96"] > soft["cpbd_96"]
    assert sharp["cpbd_256"] > soft["cpbd_256"]


def test_face_square_is_whole_pixels_of_the_frame():
    frames = scene(np.full(3, 0.5))
    frames[1] = frames[1, :1]
    subject = Subject(FrameArray(frames, FPS), Tools(MarkDetector()))
    subject.place.present[1] = False  # a gap of one frame would be bridged
    (chunk,) = subject.chunks()
    squares = list(subject.squares(chunk.made, chunk))
    assert len(squares) == 2
    assert abs(squares[0].shape[0] - 120) <= 1
    first = frames[0]
    y, x = np.argwhere((first == (250, 3, 250)).all(-1))[0]
    assert (squares[0] == first[y : y + len(squares[0]), x : x + squares[0].shape[1]]).all(-1).mean() > 0.9


class MeanColour:
    """Three numbers a picture."""

    name, dim = "mean colour", 3

    def __call__(self, pictures: np.ndarray) -> np.ndarray:
        return pictures.mean((1, 2)).astype(np.float32)


def test_fid_collects_both_sides_and_combines():
    random = np.random.default_rng(0)
    collected = []
    for seed in range(3):
        given = scene(random.uniform(0, 1, 8), seed=seed)
        made = scene(random.uniform(0, 1, 8), seed=seed)
        collected.append(metric("fid").collect(pair(made, given, inception=MeanColour(), sides=(32, 64))))
    result = metric("fid").combine(collected)
    made, given = (np.concatenate([part.arrays[f"{which}_64"] for part in collected]) for which in ("made", "given"))
    assert made.shape == (24, 3)
    assert result.scores["fid_64"] == pytest.approx(distance(normal(made), normal(given)))
    assert "fid_32" in result.scores
    assert "24 generated and 24 true" in result.notes[0]
    assert "far too high" not in result.notes[0]
    few = metric("fid").combine([type(collected[0])({k: v[:3] for k, v in collected[0].arrays.items()}, "x")])
    assert "far too high" in few.notes[0]


def test_results_of_different_methods_do_not_mix():
    one = metric("fid").collect(pair(*[scene(np.full(3, 0.5))] * 2, inception=MeanColour(), sides=(32,)))
    other = type(one)(one.arrays, "another network")
    with pytest.raises(ValueError, match="of one method.*another network"):
        metric("fid").combine([one, other])


def test_sizes_and_rates_must_match():
    frames = scene(np.full(4, 0.5))
    with pytest.raises(ValueError, match="180x160 px, its reference 200x160"):
        metric("seam").measure(pair(frames[:, :, :180], frames))
    other = Subject(FrameArray(frames, Fraction(30)), Tools(MarkDetector()), reference=FrameArray(frames, FPS))
    with pytest.raises(ValueError, match="30 frames a second, its reference 25"):
        metric("seam").measure(other)


def test_the_longer_video_is_cut():
    frames = scene(np.full(9, 0.5))
    subject = pair(frames, frames[:6])
    assert subject.frames == 6
    assert sum(len(chunk.made) for chunk in subject.chunks(4)) == 6


def test_the_same_face_is_followed_in_both():
    """With two faces the result's is the one at the reference's place, though another is found first."""
    frames = scene(np.full(5, 0.5), size=(400, 160))
    frames[:, :, 220:380] = frames[:, :, 20:180]
    subject = pair(frames[:, :, ::1], frames)
    assert np.abs(subject.track.matrices - subject.place.matrices).max() < 1e-9


def test_progress_counts_all_passes_and_may_interrupt():
    frames = scene(np.full(20, 0.5))
    seen: list[tuple[int, int]] = []
    subject = pair(frames, frames)
    subject.progress = lambda done, total: seen.append((done, total))
    metric("seam").measure(subject)
    assert seen[-1] == (40, 60)  # it needs no pass over the result to find the face
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    subject = pair(frames, frames)
    subject.progress = stop
    with pytest.raises(KeyboardInterrupt):
        metric("seam").measure(subject)
