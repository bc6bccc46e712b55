"""`python -m training score`: the registry's numbers of one video, and reasons for those there are not."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from models.video_writer import VideoWriter
from training.__main__ import main

pytest.importorskip("skimage")


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory, astronaut: np.ndarray) -> Path:
    path = tmp_path_factory.mktemp("score") / "clip.mp4"
    frames = np.stack([np.roll(astronaut[:240, 90:330], shift % 3, 1) for shift in range(8)])
    sound = np.zeros((1, 16000 * 8 // 25), np.float32)
    with VideoWriter(path, 240, 240, Fraction(25), (sound, 16000)) as writer:
        writer.write(frames)
    return path


def test_a_video_against_itself(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "score.json"
    assert (
        main(["score", "--video", str(clip), "--reference", str(clip), "--source", str(clip), "--output", str(out)])
        == 0
    )
    scores = json.loads(out.read_text())
    assert scores["identity"]["scores"]["to_target"] == pytest.approx(1)
    assert scores["identity"]["scores"]["to_source"] > 0.9
    assert scores["jitter"]["scores"]["jitter"] == 0
    assert scores["seam"]["scores"]["seam"] == 0
    assert 0 < scores["cpbd"]["scores"]["cpbd_256"] <= 1
    assert scores["silence"]["notes"] == ["8 of 8 frames silent, in 1 stretches"]
    assert "lacks landmarks" in scores["skipped"]["lmd"]
    printed = capsys.readouterr().out
    assert "| seam | 0.000 | grey levels a px | lower |" in printed
    assert "lmd left out: The metric lmd lacks landmarks: give a landmark model" in printed


def test_only_what_is_asked_for(clip: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["score", "--video", str(clip), "--metrics", "cpbd"]) == 0
    printed = capsys.readouterr().out
    assert "CPBD (96 px)" in printed
    assert "left out" not in printed
