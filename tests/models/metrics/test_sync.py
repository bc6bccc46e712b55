"""From videos to sync scores: both modes, every geometry, rates, faces that are left out."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from models.frames import FrameArray
from models.metrics import metric
from models.metrics.subject import Subject, Tools
from models.metrics.sync import said_offset, score_crops, score_video
from tests.models.metrics.stage import FPS, MarkDetector, PlainModel, murmur, scene, syllables, video

LIMITS = {"min_track": 40, "min_face": 100}


@pytest.mark.parametrize("early", [-7, -2, 0, 1, 7])
def test_video_mode_finds_the_offset(early: int):
    levels = syllables(70)
    report = score_video(video(levels), murmur(levels, early), PlainModel(), MarkDetector(), **LIMITS)
    assert report.offset == early
    assert report.offset_ms == 40 * early
    assert report.confidence > 0.3
    assert report.faces[0].frames == 70


def test_in_sync_is_nearer_than_another_sound():
    levels = syllables(70)
    right, wrong = (
        score_video(video(levels), murmur(syllables(70, seed)), PlainModel(), MarkDetector(), **LIMITS)
        for seed in (0, 1)
    )
    assert right.distance < wrong.distance / 2
    assert right.confidence > 2 * wrong.confidence


@pytest.mark.parametrize("geometry", ["unit", "box", "wide"])
def test_each_geometry_shows_the_mouth(geometry: str):
    class Looking(PlainModel):
        def lips(self, faces):
            seen.append(faces)
            return super().lips(faces)

    seen: list[np.ndarray] = []
    levels = np.ones(60)
    white = video(levels, greys=(255, 255))
    score_video(white, murmur(levels), Looking(geometry), MarkDetector(), **LIMITS)
    faces = np.concatenate(seen)
    assert faces.shape[1:] == (96, 96, 3)
    assert (faces > 250).all(-1).mean((1, 2)).min() > 0.05  # the white mouth
    row = (faces > 250).all(-1).any((0, 2)).nonzero()[0].mean() / 96
    assert row == pytest.approx({"unit": 0.73, "box": 0.73, "wide": 0.52}[geometry], abs=0.04)


@pytest.mark.parametrize("fps", [Fraction(50), Fraction(30000, 1001), Fraction(24000, 1001)])
def test_other_rates_are_brought_to_25(fps: Fraction):
    levels = syllables(100)
    times = np.arange(int(4 * fps)) / fps
    shown = levels[(times * 25).astype(int)]
    report = score_crops(FrameArray(scene(shown, size=(160, 140)), fps), murmur(levels, 3), PlainModel())
    assert report.faces[0].frames in (99, 100)
    assert abs(report.offset - 3) <= (fps != 50)  # a frame that straddles two is shown with either


def test_chunks_do_not_matter(monkeypatch: pytest.MonkeyPatch):
    levels = syllables(60)
    results = []
    for chunk in (16, 3, 1000):
        monkeypatch.setattr("models.metrics.sync.CHUNK", chunk)
        report = score_video(video(levels), murmur(levels), PlainModel(), MarkDetector(), **LIMITS)
        results.append(report.faces[0].score.distances)
    assert np.array_equal(results[0], results[1])
    assert np.array_equal(results[0], results[2])


def test_a_face_that_comes_later_is_heard_at_its_own_time():
    levels = syllables(120)
    frames = scene(levels)
    frames[:50] = frames[:50, :1]  # nobody
    report = score_video(FrameArray(frames, FPS), murmur(levels, 2), PlainModel(), MarkDetector(), **LIMITS)
    assert [(face.first, face.frames) for face in report.faces] == [(50, 70)]
    assert report.offset == 2


def test_short_tracks_are_left_out_and_said():
    levels = syllables(140)
    frames = scene(levels)
    frames[60:110] = frames[60:110, :1]
    report = score_video(FrameArray(frames, FPS), murmur(levels), PlainModel(), MarkDetector(), **LIMITS)
    assert len(report.faces) == 1
    assert "1 shorter or smaller" in str(report)


@pytest.mark.parametrize("limits", [{"min_track": 100}, {"min_track": 10, "min_face": 150}])
def test_nothing_to_score_is_explained(limits: dict):
    levels = syllables(70)
    with pytest.raises(ValueError, match=r"more than .*longest track has 70 detections, its face 120 px.*longer clip"):
        score_video(video(levels), murmur(levels), PlainModel(), MarkDetector(), **limits)


@pytest.mark.parametrize("audio", [None, (np.zeros((1, 0), np.float32), 16000)])
def test_no_sound(audio):
    with pytest.raises(ValueError, match="no sound.*Connect"):
        score_crops(video(syllables(60)), audio, PlainModel())


def test_a_silent_sound_is_told_and_not_scored():
    for level in (0.0, 5e-5):
        with pytest.raises(ValueError, match="sound is silent.*Connect the speech"):
            score_video(
                video(np.ones(60)), (np.full((1, 38400), level, np.float32), 16000), PlainModel(), MarkDetector()
            )


def test_sound_shorter_than_the_picture_counts_as_far_as_it_goes():
    levels = syllables(80)
    sound, rate = murmur(levels)
    report = score_crops(video(levels), (sound[:, : 640 * 60], rate), PlainModel())
    assert len(report.faces[0].score.distances) == 55
    with pytest.raises(ValueError, match="0.40 s of sound"):
        score_crops(video(levels), (sound[:, : 640 * 10], rate), PlainModel())


def test_the_report_names_model_and_mode():
    levels = syllables(70)
    report = score_crops(video(levels), murmur(levels, -2), PlainModel(), valid_only=True)
    assert report.method == "plain, crops mode, only windows with a partner"
    assert "late: advance it" in str(report)
    assert "80 ms" in said_offset(-2)
    assert "early: delay it" in said_offset(1)


def test_progress_may_interrupt():
    def step(done: int, total: int) -> None:
        seen.append((done, total))
        if done > 60:
            raise KeyboardInterrupt

    seen: list[tuple[int, int]] = []
    levels = syllables(50)
    with pytest.raises(KeyboardInterrupt):
        score_video(video(levels), murmur(levels), PlainModel(), MarkDetector(), progress=step, **LIMITS)
    assert seen[-1][1] == 100


def test_as_a_metric():
    levels = syllables(130)
    subject = Subject(video(levels), Tools(MarkDetector(), sync=PlainModel()), murmur(levels, 1))
    result = metric("lse").measure(subject)
    assert result.scores["offset"] == 1
    assert result.method.startswith("plain, video mode")
