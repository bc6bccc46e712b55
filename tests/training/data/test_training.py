"""From videos to trained networks: the commands as a user runs them, on three little videos of two portraits."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from models.generator import load_generator
from models.identity import FaceEmbedding
from models.metrics.sync_model import load_sync_model
from training.__main__ import main
from training.batches import sample
from training.clips import load_clips
from training.doctor import check_data
from training.lip_reader import LipReader, load_reader


@pytest.fixture(scope="module")
def data(videos, tmp_path_factory):
    """Prepared with a lip reader of random weights: three people by label, one of them for measuring."""
    folder = tmp_path_factory.mktemp("labelled")
    (folder / "in").mkdir()
    for name in "abc":
        (folder / "in" / f"{name}.mp4").symlink_to(videos / "a.mp4")
    (folder / "in" / "manifest.csv").write_text(
        "file,identity,split\na.mp4,ann,train\nb.mp4,ben,train\nc.mp4,cal,val\n"
    )
    torch.manual_seed(0)
    torch.save(LipReader().state_dict(), folder / "reader.pt")
    command = ["prepare", "--input", str(folder / "in"), "--output", str(folder / "data")]
    assert main([*command, "--reader", str(folder / "reader.pt")]) == 0
    return folder / "data"


def test_mouth_numbers_are_what_the_reader_sees(data, tmp_path):
    clips = load_clips(data, tmp_path)
    reader = load_reader(data.parent / "reader.pt")
    with torch.inference_mode():
        seen = reader(sample(clips.crops[:], np.tile(np.eye(3), (len(clips.crops), 1, 1)), 96)).numpy()
    assert np.allclose(clips.lips, seen, atol=1e-5)


def test_the_generator_trains_on_shards(data, tmp_path):
    command = ["generator", "--data", str(data), "--output", str(tmp_path / "run"), "--recipe", "debug", "--no-compile"]
    assert main([*command, "--set", "schedule.steps=2", "--set", "schedule.gan_start=1"]) == 0
    last = json.loads((tmp_path / "run" / "log.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 2
    assert np.isfinite(last["l1"])


def test_the_sync_expert_trains_on_shards(data, tmp_path):
    command = ["syncnet", "--data", str(data), "--output", str(tmp_path / "run"), "--recipe", "debug", "--no-compile"]
    assert main([*command, "--set", "syncnet.steps=2"]) == 0
    assert (tmp_path / "run" / "syncnet.pt").is_file()


@pytest.mark.slow
def test_from_videos_to_files_that_the_nodes_load(data, tmp_path):
    """Both debug recipes whole, from shards to what Load Model and Sync Score load and run."""
    for kind, last in (("generator", "last.pt"), ("syncnet", "syncnet.pt")):
        run = str(tmp_path / kind)
        assert main([kind, "--data", str(data), "--output", run, "--recipe", "debug", "--no-compile"]) == 0
        assert main(["export", f"{run}/{last}", str(tmp_path / f"{kind}.safetensors")]) == 0
    generator = load_generator(tmp_path / "generator.safetensors", precision="fp32")
    crops = torch.rand(3, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    vector = np.full(512, 512**-0.5, np.float32)
    made = generator.generate(crops, torch.zeros(3, 1, 80, 16), FaceEmbedding(vector, generator.recogniser))
    assert made.shape == crops.shape
    assert torch.isfinite(made).all()
    expert = load_sync_model(tmp_path / "syncnet.safetensors")
    faces = np.zeros((7, expert.side, expert.side, 3), np.uint8)
    assert expert.lips(faces).shape == (3, 512)
    assert np.isfinite(expert.sound(torch.zeros(16000), 5)).all()


def test_an_exported_expert_measures_sync(data, videos, tmp_path):
    """An untrained expert finds nothing: its offsets and confidence are recorded, and such tracks are left out."""
    run = str(tmp_path / "run")
    command = ["syncnet", "--data", str(data), "--output", run, "--recipe", "debug", "--no-compile"]
    assert main([*command, "--set", "syncnet.steps=1"]) == 0
    assert main(["export", f"{run}/syncnet.pt", str(tmp_path / "expert.safetensors")]) == 0
    command = ["prepare", "--input", str(data.parent / "in"), "--output", str(tmp_path / "out")]
    status = main([*command, "--sync", str(tmp_path / "expert.safetensors")])
    measured = [json.loads(path.read_text()) for path in (tmp_path / "out" / "work").glob("*/sync.json")]
    assert len(measured) == 3
    for result in measured:
        (track,) = result["tracks"].values()
        assert track["by"] == "expert"
        assert -15 <= track["offset"] <= 15
        assert (track["confidence"] < 3 or abs(track["offset"]) > 10) == bool(result["drops"])
    assert status == (1 if all(result["drops"] for result in measured) else 0)


def test_doctor_and_dry_run_know_shards(data, tmp_path, capsys):
    command = ["generator", "--data", str(data), "--output", str(tmp_path / "run"), "--recipe", "debug", "--dry-run"]
    assert main(command) == 0
    assert "3 tracks of 3 people (0.1 min): 2 train tracks of 2 people" in capsys.readouterr().out
    assert check_data(data).remedy == ""
    shard = data / "train-000000.tar"
    shard.rename(tmp_path / "away.tar")
    assert "train-000000.tar is missing" in check_data(data).found
    (tmp_path / "away.tar").rename(shard)
