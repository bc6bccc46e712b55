"""Cosines over time, and retrieval."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.frames import FrameArray
from models.identity import FaceEmbedding
from models.metrics import metric
from models.metrics.identity import combine, measure, source_embedding, spaced
from models.metrics.results import Collected
from models.metrics.subject import Subject, Tools
from tests.models.metrics.stage import FPS, MarkDetector, random_unit, scene


class ColourRecogniser:
    """A face's vector is the direction of its mean colour."""

    id, dim = "colour", 3

    def embed_frames(self, frames: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        vectors = []
        for frame, points in zip(frames, landmarks, strict=True):
            (x0, y0), (x1, y1) = points.min(0).astype(int), points.max(0).astype(int)
            vectors.append(frame[y0:y1, x0:x1].mean((0, 1)))
        array = np.array(vectors, np.float32)
        return array / np.linalg.norm(array, axis=1, keepdims=True)


def tinted(frames: np.ndarray, colour: tuple[float, float, float]) -> np.ndarray:
    result = np.rint(frames * np.array(colour)).astype(np.uint8)
    marks = (frames == (250, 3, 250)).all(-1)
    result[marks] = (250, 3, 250)
    return result


@pytest.fixture
def parts() -> tuple[np.ndarray, np.ndarray, Tools]:
    plain = scene(np.full(20, 0.5))
    return plain, tinted(plain, (1.0, 0.2, 0.2)), Tools(MarkDetector(), ColourRecogniser())  # type: ignore[arg-type]


def test_cosines_of_a_swap_that_stops_half_way(parts):
    target, source, tools = parts
    made = np.concatenate([source[:10], target[10:]])
    red = source_embedding(FrameArray(source, FPS), tools.detector, tools.recogniser)
    subject = Subject(FrameArray(made, FPS), tools, reference=FrameArray(target, FPS), source=red)
    result = metric("identity").measure(subject)
    to_source, to_target = result.curves["to_source"], result.curves["to_target"]
    assert to_source[:10].min() > 0.99
    assert to_target[10:] == pytest.approx(np.ones(10), abs=1e-5)
    assert to_source[10:].max() < 0.9
    assert result.scores["to_source"] == pytest.approx(to_source.mean())
    assert "20 of 20" in result.notes[0]


def test_target_as_an_embedding_and_missing_frames(parts):
    target, source, tools = parts
    gone = source.copy()
    gone[5:9] = gone[5:9, :1]
    embeddings = [source_embedding(FrameArray(one, FPS), tools.detector, tools.recogniser) for one in (source, target)]
    subject = Subject(FrameArray(gone, FPS), tools, source=embeddings[0])
    result = measure(subject, target=embeddings[1])
    assert np.isnan(result.curves["to_source"]).nonzero()[0].tolist() == [5, 6, 7, 8]
    assert 0 < result.scores["to_target"] < result.scores["to_source"]
    assert np.isnan(measure(subject).scores["to_target"])  # neither reference nor embedding


def test_another_recognisers_source_is_refused(parts):
    _, source, tools = parts
    subject = Subject(FrameArray(source, FPS), tools, source=FaceEmbedding(np.eye(3, dtype=np.float32)[0], "other"))
    with pytest.raises(ValueError, match="recogniser 'other'.*'colour'"):
        metric("identity").measure(subject)


def test_gallery_entry_needs_a_face(parts):
    with pytest.raises(ValueError, match="No face found"):
        source_embedding(FrameArray(np.zeros((3, 50, 50, 3), np.uint8), FPS), parts[2].detector, parts[2].recogniser)


def test_a_result_without_any_face_is_collected_as_missed(parts):
    target, source, tools = parts
    who = source_embedding(FrameArray(source, FPS), tools.detector, tools.recogniser)
    none, given = FrameArray(np.zeros_like(target), FPS), FrameArray(target, FPS)
    collected = metric("id_retrieve").collect(Subject(none, tools, reference=given, source=who))
    assert len(collected.arrays["vectors"]) == 0
    assert combine([collected]).scores["id_videos"] == 0
    with pytest.raises(ValueError, match="No face"):
        metric("id_retrieve").collect(Subject(given, tools, reference=none, source=who))


def test_ten_frames_evenly_spaced():
    present = np.ones(100, bool)
    present[:10] = False
    rows = spaced(present)
    assert (len(rows), rows[0], rows[-1]) == (10, 10, 99)
    assert np.ptp(np.diff(rows)) <= 1
    assert spaced(np.array([False, True, True])).tolist() == [1, 2]
    assert len(spaced(np.zeros(4, bool))) == 0


def test_retrieval_by_frame_and_by_video():
    people = random_unit(4, 64, 0)
    noise = 0.3 * random_unit(4 * 10, 64, 1).reshape(4, 10, 64)
    shown = people[[0, 1, 2, 0]]  # the last one shows somebody else
    collected = [
        Collected({"vectors": shown[i] + noise[i], "source": people[i][None]}, "recogniser x") for i in range(4)
    ]
    collected[1].arrays["vectors"][:4] = people[3]  # four wrong frames, but the mean is right
    result = combine(collected)
    assert result.scores["id_videos"] == 75
    assert result.scores["id_frames"] == pytest.approx(100 * 26 / 40)
    assert "gallery of 4" in result.notes[0]


def test_two_videos_of_one_source_share_its_place_in_the_gallery():
    people = random_unit(2, 16, 0)
    collected = [Collected({"vectors": people[[i]], "source": people[[i]]}, "x") for i in (0, 0, 1)]
    result = combine(collected, others=random_unit(5, 16, 9))
    assert result.scores == {"id_frames": 100, "id_videos": 100}
    assert "gallery of 7" in result.notes[0]


def test_a_video_without_a_face_is_missed():
    people = torch.eye(3).numpy()
    collected = [Collected({"vectors": np.empty((0, 3), np.float32), "source": people[[0]]}, "x")]
    assert combine(collected).scores["id_videos"] == 0
    assert np.isnan(combine(collected).scores["id_frames"])
