"""The gallery's command from end to end with one step of adaptation, and that its captions are measured."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from training import gallery
from training.__main__ import main
from training.studio import Studio

pytest.importorskip("skimage")
pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def studio():
    made = Studio("builtin")
    made.speech, made.loudness = made.speech[8:12], made.loudness[8:12]
    return made


@pytest.fixture
def captions(monkeypatch):
    """What is written under the pictures, in order."""
    said: list[str] = []
    real = gallery.shown
    monkeypatch.setattr(gallery, "shown", lambda image, caption: said.append(caption) or real(image, caption))
    return said


def test_one_command_makes_one_small_picture(tmp_path, monkeypatch, studio, capsys):
    monkeypatch.setattr("models.adaptation.ROWS", {"kept": 1, "own": 1, "swapped": 1, "other": 1})
    monkeypatch.setattr("models.adaptation_look.EXAMINED", 4)
    monkeypatch.setattr(gallery, "CLIP", 50)
    monkeypatch.setattr(gallery, "Studio", lambda weights: studio)
    path = tmp_path / "new" / "gallery.jpg"
    assert main(["gallery", "--output", str(path), "--adapt-steps", "1"]) == 0
    assert str(path) in capsys.readouterr().out
    assert path.stat().st_size <= gallery.MOST_BYTES
    with Image.open(path) as picture:
        assert picture.format == "JPEG"
        assert picture.width == gallery.COLUMNS * gallery.SIDE


def test_lines_of_a_row_are_full(studio, captions):
    for row in (gallery.reconstruction(studio), gallery.dubbing(studio), gallery.swaps(studio)):
        assert len(row[1]) == gallery.COLUMNS
    assert sum("grey levels" in caption for caption in captions) == 2
    assert sum("cosine to source" in caption for caption in captions) == 2


def test_a_face_that_is_not_found_is_said_to_be_left_alone(studio, captions):
    still = np.full((64, 64, 3), 90, np.uint8)
    before, after = gallery._spoilt(studio, "nobody", still)
    assert captions[1].startswith("no face is found")
    assert np.array_equal(before[: gallery.SIDE], after[: gallery.SIDE])


def test_without_the_portraits_it_says_what_to_do(monkeypatch, tmp_path, capsys):
    def missing(weights: str) -> None:
        raise ImportError("no skimage")

    monkeypatch.setattr(gallery, "Studio", missing)
    assert main(["gallery", "--output", str(tmp_path / "a.jpg")]) == 1
    assert "python install.py demo" in capsys.readouterr().err
