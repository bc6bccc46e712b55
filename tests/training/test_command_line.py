"""The commands as a user runs them, on real clips."""

from __future__ import annotations

import csv
import shlex
import signal
import sys

import pytest
import torch

from models.generator import load_generator
from models.identity import FaceEmbedding
from tests.training.small_run import interrupted, made_up_people, write_still
from training import generator, syncnet
from training.__main__ import COMMANDS, main


@pytest.fixture
def few_clips(shared_data, tmp_path):
    """A data folder with three short clips and four stills of the real one."""
    wanted = {"talking": 3, "talking_generated": 0, "faces": 4}
    for part, count in wanted.items():
        (tmp_path / part).mkdir()
        with (shared_data / part / "manifest.csv").open(newline="") as file:
            reader = csv.DictReader(file)
            rows = sorted(reader, key=lambda row: float(row.get("frames") or row.get("duration") or 0))
        if part == "talking":
            val = [row for row in rows if row["split"] == "val"]
            rows = [row for row in rows if row["split"] == "train"][: count - 1] + val[:1]
        with (tmp_path / part / "manifest.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, reader.fieldnames)
            writer.writeheader()
            writer.writerows(rows[: wanted[part]])
        for row in rows[: wanted[part]]:
            for column in ("file", "wav"):
                if row.get(column):
                    (tmp_path / part / row[column]).symlink_to(shared_data / part / row[column])
    (tmp_path / "landmarks.npz").symlink_to(shared_data / "landmarks.npz")
    return tmp_path


def test_from_clips_to_weights_that_the_nodes_load(few_clips, capsys):
    output, weights = few_clips / "run", few_clips / "g.safetensors"
    command = ["generator", "--data", str(few_clips), "--output", str(output), "--recipe", "debug", "--no-compile"]
    assert main(command) == 0
    assert f"export {output}" in capsys.readouterr().out
    assert main(["export", str(output / "last.pt"), str(weights)]) == 0
    generator = load_generator(weights, precision="fp32")
    assert generator.metadata["recipe"]["schedule"]["steps"] == 6
    vector = torch.nn.functional.normalize(torch.ones(512), dim=0).numpy()
    made = generator.generate(
        torch.rand(3, 3, 96, 96), torch.zeros(3, 1, 80, 16), FaceEmbedding(vector, generator.recogniser)
    )
    assert made.shape == (3, 3, 96, 96)
    assert torch.isfinite(made).all()


def test_a_finished_run_started_again_trains_nothing(few_clips):
    command = ["generator", "--data", str(few_clips), "--output", str(few_clips / "run"), "--recipe", "debug"]
    assert main([*command, "--no-compile"]) == 0
    before = (few_clips / "run" / "log.jsonl").read_text()
    assert main([*command, "--no-compile"]) == 0
    assert (few_clips / "run" / "log.jsonl").read_text() == before


def test_an_impossible_recipe_is_refused_before_any_work(tmp_path, capsys):
    output = tmp_path / "run"
    assert main(["generator", "--data", str(tmp_path), "--output", str(output), "--set", "model.px=100"]) == 1
    assert "model.px is one of" in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGTERM cannot be caught there")
@pytest.mark.parametrize("kind", ["generator", "syncnet"])
def test_a_run_that_is_asked_to_end_saves_and_prints_how_it_goes_on(kind, tmp_path, monkeypatch, capsys):
    """Status 0, and the line that is printed, run as it stands, ends the run."""
    module, trainer_class = {"generator": (generator, generator.Trainer), "syncnet": (syncnet, syncnet.SyncTrainer)}[
        kind
    ]
    folder = tmp_path / "a folder"
    folder.mkdir()
    write_still(folder)
    people = made_up_people(12 if kind == "generator" else 60)
    monkeypatch.setattr(module, "load_clips", lambda *_: people)
    original = trainer_class.train_step
    monkeypatch.setattr(trainer_class, "train_step", interrupted(original, 2, signal.SIGTERM))
    command = [kind, "--data", str(folder), "--output", str(folder / "run"), "--recipe", "debug", "--no-compile"]
    assert main(command) == 0
    said, line = capsys.readouterr().out.splitlines()[-2:]
    assert said == "Stopped and saved after step 2 of 6. Go on with:"
    monkeypatch.setattr(trainer_class, "train_step", original)
    assert main(shlex.split(line.removeprefix("python -m training "))) == 0
    assert "Done, see" in capsys.readouterr().out


def test_a_run_that_diverges_ends_with_one_error(monkeypatch, capsys):
    def diverge(args):
        raise FloatingPointError("Step 3 gave a loss of nan.")

    monkeypatch.setattr("training.generator.run", diverge)
    assert main(["generator", "--data", "a", "--output", "b"]) == 1
    assert capsys.readouterr().err == "error: Step 3 gave a loss of nan.\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name, capsys):
    with pytest.raises(SystemExit) as stop:
        main([name, "--help"])
    assert stop.value.code == 0
    assert "usage: python -m training" in capsys.readouterr().out
