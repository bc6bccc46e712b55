"""`python -m training adapt` on a made-up clip, and what `infer` does with the result."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from models.checkpoints import read_metadata
from models.footage import LEAST_FRAMES
from models.video import VideoFile
from models.video_writer import VideoWriter
from tests.models.swapping import speech
from training.__main__ import main

pytest.importorskip("av")


@pytest.fixture(scope="module")
def clip(tmp_path_factory, astronaut):
    """A face that moves a little, with sound."""
    path = tmp_path_factory.mktemp("adapt") / "clip.mp4"
    with VideoWriter(path, 256, 256, Fraction(25), speech(LEAST_FRAMES / 25)) as writer:
        face = astronaut[:256, 100:356]
        writer.write(np.stack([np.roll(face, round(3 * np.sin(i / 4)), 0) for i in range(LEAST_FRAMES)]))
    return path


@pytest.fixture(autouse=True)
def little_work(monkeypatch):
    """One row of each kind, and few frames to look at."""
    monkeypatch.setattr("models.adaptation.ROWS", {"kept": 1, "own": 1, "swapped": 1, "other": 1})
    monkeypatch.setattr("models.adaptation_look.EXAMINED", 4)


def test_an_adapter_is_written_and_applied(clip, capsys):
    assert main(["adapt", "--video", str(clip), "--steps", "2"]) == 0
    adapter = clip.with_name("clip.adapter.safetensors")
    said = capsys.readouterr().out
    assert "held out before" in said
    assert f"infer --adapter {adapter}" in said
    assert adapter.stat().st_size < 2e6
    metadata = read_metadata(adapter)
    assert metadata["steps"] == 2
    assert metadata["licence"].startswith("as the weights it belongs to (non-commercial")
    out, short = clip.with_name("out.mp4"), clip.with_name("short.mp4")
    with VideoWriter(short, 256, 256, Fraction(25), speech(0.2)) as writer, VideoFile(clip) as whole:
        writer.write(whole.read(0, 5))
    assert main(["infer", "--video", str(short), "--adapter", str(adapter), "--out", str(out)]) == 0
    with VideoFile(out) as made:
        assert made.info.frames == 5


def test_halves_are_measured_and_nothing_is_written(clip, capsys):
    before = set(clip.parent.iterdir())
    assert main(["adapt", "--video", str(clip), "--steps", "1", "--halves"]) == 0
    said = capsys.readouterr().out
    assert "| second half | unadapted | adapted | change |" in said
    assert "PSNR, face kept, another sound" in said
    assert "LSE-D, own sound" in said
    assert set(clip.parent.iterdir()) == before


def test_no_adapter_is_one_error(clip, capsys):
    assert main(["infer", "--video", str(clip), "--out", str(clip.with_name("o.mp4")), "--adapter", "nowhere"]) == 1
    assert "nowhere does not exist" in capsys.readouterr().err


def test_an_empty_adapter_leaves_an_earlier_one_alone(clip, capsys, monkeypatch):
    """One step of warming up draws nothing better, so there is nothing to write."""
    adapter = clip.with_name("earlier.safetensors")
    monkeypatch.setattr("models.adaptation_look.Look.better", lambda *_: False)
    command = ["adapt", "--video", str(clip), "--output", str(adapter), "--steps", "1"]
    adapter.write_bytes(b"earlier")
    assert main(command) == 0
    assert "the adapter is empty" in (said := capsys.readouterr().out)
    assert f"the earlier {adapter} was left as it is" in said
    assert adapter.read_bytes() == b"earlier"
