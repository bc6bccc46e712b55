from __future__ import annotations

import pytest

from training.__main__ import main
from training.config import load_recipe
from training.plan import describe


@pytest.fixture
def folder(tmp_path):
    """A data folder with manifests only."""
    for part, rows in (("talking", "a.mp4,x,train\nb.mp4,x,train\nc.mp4,y,val\n"), ("talking_generated", "")):
        (tmp_path / part).mkdir()
        (tmp_path / part / "manifest.csv").write_text("file,identity,split\n" + rows)
    return tmp_path


def test_the_plan_names_the_numbers_of_the_specification(folder):
    """Parameters and multiply-adds of spec 4.1 and 4.4, counted without building the network."""
    base = describe(load_recipe("base-96"), folder)
    assert "70.31 M parameters, 8.8" in base
    small = describe(
        load_recipe("small-96", ["model.skips=none", "model.keep=false", "schedule.kept=0", "model.blend=false"]),
        folder,
    )
    assert "8.49 M parameters, 1.0" in small


def test_the_plan_counts_samples_and_clips(folder):
    text = describe(load_recipe("debug"), folder)
    assert "24 in 6 steps of 4" in text
    assert "talking: 2 train clips of 1 people, 1 val clips of 1 people" in text
    assert "[schedule]" in text


def test_dry_run_writes_nothing(folder, capsys):
    output = folder / "run"
    assert main(["generator", "--data", str(folder), "--output", str(output), "--dry-run"]) == 0
    assert "GMACs" in capsys.readouterr().out
    assert not output.exists()


def test_dry_run_without_data_says_what_is_missing(tmp_path, capsys):
    assert main(["generator", "--data", str(tmp_path), "--output", str(tmp_path / "run"), "--dry-run"]) == 1
    assert "manifest.csv is missing" in capsys.readouterr().err
