from __future__ import annotations

import re

import pytest
import torch

from training.__main__ import main
from training.config import load_recipe
from training.plan import Part, describe, describe_syncnet, kept_numbers


@pytest.fixture
def folder(tmp_path):
    """A data folder with manifests only."""
    for part, rows in (
        ("talking", "a.mp4,a.wav,x,train\nb.mp4,b.wav,x,train\nc.mp4,c.wav,y,val\n"),
        ("talking_generated", ""),
    ):
        (tmp_path / part).mkdir()
        (tmp_path / part / "manifest.csv").write_text("file,wav,identity,split\n" + rows)
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
    assert "phases: 4 steps of the lip reader and 4 of the audio tower; from step 0 without the critic at a" in text
    assert "from step 3 with it at 0.0002" in text
    assert "talking: 2 train clips of 1 people, 1 val clips of 1 people" in text
    assert "[schedule]" in text


def test_the_sync_plan_names_the_numbers_of_the_public_layout(folder):
    text = describe_syncnet(load_recipe("small-96"), folder)
    assert "16.44 M parameters, 1.2" in text
    assert "192,000 windows in 3,000 steps of 64 (8 of each of 8 clips)" in text
    assert "mouth numbers alone until step 400" in text
    assert "10 times the distance to t.pt" in describe_syncnet(load_recipe("debug", ["syncnet.teacher=t.pt"]), folder)
    half = describe_syncnet(load_recipe("small-96", ["syncnet.width=0.5"]), folder)
    assert gigabytes(half) < gigabytes(text)


def test_memory_is_what_the_backward_pass_needs():
    """Of a convolution its input, of the ReLU after it its output: for two samples of 8 x 8."""
    with torch.device("meta"):
        network = torch.nn.Sequential(torch.nn.Conv2d(3, 5, 3, padding=1), torch.nn.ReLU())
        part = Part(network, (torch.empty(2, 3, 8, 8),), samples=10)
    assert kept_numbers(part) == 2 * (3 + 5) * 64
    weights = 5 * 3 * 9 + 5
    assert part.bytes("fp32") == 16 * weights + 4 * 10 * (3 + 5) * 64
    assert part.bytes("bf16") == 16 * weights + 2 * 10 * (3 + 5) * 64


def test_memory_follows_batch_parts_and_precision(folder):
    def of(*changes: str) -> float:
        return gigabytes(
            describe(load_recipe("base-96", ["loss.identity_rows=32", "optim.precision=bf16", *changes]), folder)
        )

    assert of("schedule.accumulate=4") < of("schedule.accumulate=2") < of() < of("optim.precision=fp32")


def gigabytes(text: str) -> float:
    return float(re.search(r"memory: about ([\d.]+) GiB", text)[1])


@pytest.mark.parametrize("kind", ["generator", "syncnet"])
def test_dry_run_writes_nothing(kind, folder, capsys):
    output = folder / "run"
    assert main([kind, "--data", str(folder), "--output", str(output), "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("[schedule]", "parameters", "GMACs", "memory: about", "samples: ", "data: "))
    assert not output.exists()


def test_dry_run_without_data_says_what_is_missing(tmp_path, capsys):
    assert main(["generator", "--data", str(tmp_path), "--output", str(tmp_path / "run"), "--dry-run"]) == 1
    assert "manifest.csv is missing" in capsys.readouterr().err
