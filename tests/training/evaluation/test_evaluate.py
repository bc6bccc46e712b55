"""`python -m training evaluate` from two portraits to a page; stopped and gone on with."""

from __future__ import annotations

import csv
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from models.checkpoints import save_weights
from models.geometry import GEOMETRY_ID
from models.identity import load_recogniser
from models.video import VideoFile
from models.video_writer import VideoWriter
from tests.models.public_files import random_network, save_public
from tests.models.swapping import speech
from training.__main__ import main
from training.demo import hopper

pytest.importorskip("skimage")
FRAMES = 12
METRICS = ("cpbd", "identity", "id_retrieve", "jitter", "seam", "lmd")


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory, astronaut: np.ndarray) -> Path:
    """Two people of a manifest, who move a little."""
    pytest.importorskip("matplotlib")
    folder = tmp_path_factory.mktemp("clips")
    for name, picture in (("a", astronaut[:240, 90:330]), ("b", hopper()[60:300, 130:370])):
        frames = np.stack([np.roll(picture, shift % 3, 1) for shift in range(FRAMES)])
        with VideoWriter(folder / f"{name}.mp4", 240, 240, Fraction(25), speech(FRAMES / 25)) as writer:
            writer.write(frames)
    (folder / "manifest.csv").write_text("file,identity,split\na.mp4,collins,val\nb.mp4,hopper,val\n")
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Narrow Wav2Lip as published, narrow SimSwap as trained here."""
    folder, recogniser = tmp_path_factory.mktemp("weights"), load_recogniser()
    save_public(folder / "lips.pth", random_network("wav2lip", width=1 / 8).state_dict(), "with optimizer")
    about = {"recogniser": recogniser.id, "geometry": GEOMETRY_ID, "px": 96}
    swap = random_network("simswap_224", width=1 / 8, id_dim=recogniser.dim)
    save_weights(folder / "swap.safetensors", swap.state_dict(), about)
    return folder


def command(clips: Path, weights: Path, output: Path, *more: str) -> list[str]:
    systems = ["ground_truth", "small=builtin", f"cascade={weights}/lips.pth+{weights}/swap.safetensors"]
    systems += [f"swap={weights}/swap.safetensors@upstream", "fast=random:small-96"]
    return [
        "evaluate",
        *("--data", str(clips)),
        *("--output", str(output)),
        *("--systems", *systems),
        *("--metrics", *METRICS),
        *("--parts", "quality"),
        *more,
    ]


@pytest.mark.slow
def test_everything_and_going_on(clips: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    out = tmp_path / "evaluation"
    assert main(command(clips, weights, out)) == 0
    printed = capsys.readouterr().out
    assert "## Table 2: picture and identity" in printed
    assert printed.rstrip().endswith("report.html")
    found = json.loads((out / "tables.json").read_text())
    numbers = {(value["system"], value["score"]): value for value in found["values"]}
    assert numbers["small", "to_source"]["value"] > numbers["ground_truth", "to_source"]["value"] + 0.1
    assert numbers["small", "cpbd_96"]["paper"] == 0.470
    assert ("ground_truth", "id_videos") not in numbers
    assert ("swap", "seam") not in numbers
    assert ("fast", "cpbd_96") not in numbers
    reasons = {(one["system"], one["metric"]): one["reason"] for one in found["skipped"]}
    assert "lacks landmarks" in reasons["small", "lmd"]
    assert "another border" in reasons["swap", "seam"]
    assert "random weights" in reasons["fast", "tables 1 and 2"]
    assert [len(one["files"]) for one in found["systems"]] == [0, 1, 2, 1, 1]
    with (out / "pairs.csv").open(newline="") as file:
        assert [row["person"] for row in csv.DictReader(file)] == ["hopper", "collins"]
    assert sorted(path.name for path in (out / "strips").iterdir()) == ["a__b.jpg", "b__a.jpg"]
    page = (out / "report.html").read_text()
    assert "strips/a__b.jpg" in page
    assert page.count("Stand-ins.") > 1  # said in the head of every table
    with VideoFile(out / "items" / "cascade" / "a__b" / "video.mp4") as video:
        assert video.info.frames == FRAMES

    made, judged = (out / "items" / "small" / "a__b" / name for name in ("video.mp4", "judged.json"))
    times, kept = {path: path.stat().st_mtime_ns for path in (out / "items").rglob("video.mp4")}, judged.read_text()
    (out / "items" / "cascade" / "a__b" / "video.mp4").unlink()
    (out / "items" / "cascade" / "a__b" / "made.json").unlink()
    assert main(command(clips, weights, out)) == 0
    changed = [path.parent.parent.name for path, time in times.items() if path.stat().st_mtime_ns != time]
    assert changed == ["cascade"]
    assert json.loads(judged.read_text())["results"] == json.loads(kept)["results"]
    assert main(command(clips, weights, out, "--identity-judge", "builtin", "--precision", "bf16")) == 0
    assert made.stat().st_mtime_ns != times[made]  # other circumstances, another video


@pytest.mark.slow
def test_speed_alone(clips: Path, weights: Path, tmp_path: Path):
    out = tmp_path / "evaluation"
    systems = [f"swap={weights}/swap.safetensors@upstream@32", "fast=random:small-96"]
    arguments = ["evaluate", "--data", str(clips), "--output", str(out), "--systems", *systems]
    assert main([*arguments, "--parts", "speed", "--seconds", "0.6", "--repeats", "2"]) == 0
    text = (out / "report.md").read_text()
    assert "Clip of 0.60 s, 15 frames of 240x240" in text
    assert "| fast (random weights) |" in text
    assert "e2e, over fast" in text


@pytest.mark.parametrize(
    ("system", "message"),
    [
        ("builtin", "A system is ground_truth or NAME=FILE"),
        ("..=builtin", "A system is ground_truth or NAME=FILE"),
        ("a=builtin@96", "a: @96 is the side of SimSwap's square, and there is no SimSwap here"),
        ("a=builtin@upstream", "a: wavsyncswap has no other program's way"),
        ("a=builtin+{weights}/lips.pth", "a: Two files make a cascade if one is Wav2Lip and the other SimSwap"),
        ("a={weights}/swap.safetensors@keep", "a: SimSwap puts in another identity and there is none"),
        ("a={weights}/public.pth", "a: This system understands the recogniser 'simswap-arcface'"),
    ],
)
def test_a_system_that_cannot_be_is_told_before_any_work(
    clips: Path, weights: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], system: str, message: str
):
    save_public(weights / "public.pth", random_network("simswap_224", width=1 / 16).state_dict(), "flat")
    arguments = ["evaluate", "--data", str(clips), "--output", str(tmp_path / "out")]
    assert main([*arguments, "--systems", "small=builtin", system.format(weights=weights)]) == 1
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out" / "items").exists()


def test_a_negative_limit_and_an_output_that_is_a_file_are_refused(clips: Path, capsys: pytest.CaptureFixture[str]):
    file = str(clips / "manifest.csv")
    for more, message in [(["--limit", "-2"], "--limit is -2"), (["--output", file], "manifest.csv is in the way")]:
        command = ["evaluate", "--data", str(clips), "--output", str(clips / "no"), "--systems", "ground_truth", *more]
        assert main(command) == 1
        assert message in capsys.readouterr().err
        assert not (clips / "no").exists()
