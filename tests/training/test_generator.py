from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from fractions import Fraction

import cv2
import numpy as np
import pytest
import torch

from models.generator import load_generator
from models.geometry import ARCFACE_TEMPLATE
from models.identity import FaceEmbedding, load_recogniser
from models.networks import build
from training.batches import Batches
from training.config import LossConfig, ModelConfig, Recipe, ScheduleConfig, load_recipe
from training.export import export
from training.generator import train
from training.lip_reader import LipReader
from training.losses import mouth_weights
from training.trainer import Trainer

RECIPE = Recipe(schedule=ScheduleConfig(steps=4, gan_start=2, batch=4, swapped=2))


class StubSecond(torch.nn.Module):
    """A second recogniser without a file: a fixed linear map of the faces."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = torch.randn(3 * 14 * 14, 128, generator=torch.Generator().manual_seed(1))

    def embed(self, faces: torch.Tensor) -> torch.Tensor:
        small = torch.nn.functional.avg_pool2d(faces.float(), 8).flatten(1)
        return torch.nn.functional.normalize(small @ self.matrix, dim=1)


@pytest.fixture
def make(clip_set, bank):
    """Builds a small trainer and its batches."""

    def build_trainer() -> tuple[Trainer, Batches]:
        torch.manual_seed(0)
        tower = build("wavsyncswap", width="small").audio_encoder
        trainer = Trainer(RECIPE, tower, load_recogniser("builtin"), LipReader(), StubSecond(), compiled=False)
        return trainer, Batches(clip_set, clip_set.of("train"), bank, 96, 0)

    return build_trainer


def advance(trainer: Trainer, batches: Batches, steps: int) -> list[dict[str, float]]:
    return [
        trainer.train_step(batches(trainer.step, RECIPE.schedule.batch, RECIPE.schedule.swapped)) for _ in range(steps)
    ]


def test_resumed_training_equals_unbroken_training(make, tmp_path):
    whole, batches = make()
    losses = advance(whole, batches, 4)
    first, _ = make()
    advance(first, batches, 2)
    first.save(tmp_path / "last.pt")
    second, _ = make()
    second.restore(tmp_path / "last.pt")
    assert advance(second, batches, 2) == losses[2:]
    for name, value in whole.net.state_dict().items():
        assert torch.equal(value, second.net.state_dict()[name]), name


def test_phases_and_frozen_networks(make):
    trainer, batches = make()
    tower = {k: v.clone() for k, v in trainer.net.audio_encoder.state_dict().items()}
    recogniser = {k: v.clone() for k, v in trainer.losses.recogniser.network.state_dict().items()}
    losses = advance(trainer, batches, 4)
    assert "adversarial" not in losses[1]
    assert {"l1", "low", "identity", "second_identity", "lips", "adversarial", "matching"} <= set(losses[2])
    assert all(torch.equal(v, trainer.net.audio_encoder.state_dict()[k]) for k, v in tower.items())
    assert all(torch.equal(v, trainer.losses.recogniser.network.state_dict()[k]) for k, v in recogniser.items())
    assert all(p.grad is None for p in trainer.losses.recogniser.network.parameters())
    assert all(p.grad is None for p in trainer.losses.reader.parameters())


def test_a_checkpoint_exports_to_weights_that_load_and_run(make, tmp_path):
    trainer, batches = make()
    advance(trainer, batches, 1)
    trainer.save(tmp_path / "last.pt")
    generator = load_generator(
        export(tmp_path / "last.pt", tmp_path / "g.safetensors", torch.float16), precision="fp32"
    )
    batch = batches(0, 4, 0)
    source = FaceEmbedding(batch.source[0].numpy(), generator.recogniser, 1.0, 1)
    out = generator.generate(batch.truth, batch.mel, source, references=batch.crops[:, 3:], batch=3)
    expected = trainer.averaged()(batch.crops, batch.mel, batch.source[:1].expand(4, -1))
    assert (out - expected).abs().max() < 0.02  # half-precision weights


def test_training_starts_from_exported_weights(make, tmp_path):
    trainer, batches = make()
    advance(trainer, batches, 1)
    trainer.save(tmp_path / "last.pt")
    file = export(tmp_path / "last.pt", tmp_path / "g.safetensors", torch.float32)
    fresh, _ = make()
    fresh.start_from(file)
    assert all(torch.equal(v, fresh.net.state_dict()[k]) for k, v in trainer.averaged().state_dict().items())
    assert all(not p.requires_grad for p in fresh.net.audio_encoder.parameters())


def test_another_network_does_not_resume_a_checkpoint(make, tmp_path):
    trainer, _ = make()
    trainer.save(tmp_path / "last.pt")
    trainer.recipe = replace(RECIPE, model=ModelConfig(blend=False))
    with pytest.raises(ValueError, match=r"'blend': True.*'blend': False.*recipe\.toml"):
        trainer.restore(tmp_path / "last.pt")


def test_a_changed_recipe_goes_on_and_is_told(make, tmp_path, caplog):
    trainer, _ = make()
    trainer.save(tmp_path / "last.pt")
    trainer.recipe = replace(RECIPE, loss=LossConfig(l1=20.0))
    trainer.restore(tmp_path / "last.pt")
    assert "loss.l1 changes from 10.0 to 20.0 at step 0" in caplog.text


def test_a_loss_that_is_no_number_changes_nothing(make):
    trainer, batches = make()
    advance(trainer, batches, 1)
    before = {k: v.clone() for k, v in trainer.net.state_dict().items() if "running" not in k and "tracked" not in k}
    batch = batches(1, 4, 2)
    batch.truth[0, 0, 0, 0] = float("nan")
    with pytest.raises(RuntimeError, match="Nothing was updated"):
        trainer.train_step(batch)
    assert all(torch.equal(v, trainer.net.state_dict()[k]) for k, v in before.items())
    assert trainer.step == 1


@pytest.fixture
def folder(tmp_path):
    """A data folder with one still of somebody else."""
    (tmp_path / "faces").mkdir()
    picture = np.random.default_rng(0).integers(0, 256, (112, 112, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "faces" / "a.png"), picture)
    points = " ".join(f"{value:.1f}" for value in ARCFACE_TEMPLATE.ravel())
    (tmp_path / "faces" / "manifest.csv").write_text(f"file,kind,kps5,identity\na.png,photo,{points},somebody\n")
    return tmp_path


def test_a_stopped_run_saves_and_goes_on_to_the_same_weights(clip_set, folder, monkeypatch):
    """SIGTERM after the second step; the resumed run ends where an unbroken one does."""
    recipe = load_recipe("debug")
    whole = train(clip_set, folder, folder / "whole", recipe, compiled=False)
    assert whole.step == 6
    original = Trainer.train_step

    def interrupted(self, batch):
        losses = original(self, batch)
        if self.step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return losses

    monkeypatch.setattr(Trainer, "train_step", interrupted)
    stopped = train(clip_set, folder, folder / "part", recipe, compiled=False)
    assert stopped.step == 2
    monkeypatch.setattr(Trainer, "train_step", original)
    resumed = train(
        clip_set, folder, folder / "part", load_recipe(str(folder / "part" / "recipe.toml")), compiled=False
    )
    assert resumed.step == 6
    assert all(torch.equal(v, resumed.net.state_dict()[k]) for k, v in whole.net.state_dict().items())
    lines = [json.loads(line) for line in (folder / "part" / "log.jsonl").read_text().splitlines()]
    assert {"step", "samples_per_s", "data_share", "l1", "critic"} <= set(lines[-1])
    checked = [line for line in lines if "leak_mask" in line]
    assert [line["step"] for line in checked] == [3, 6]
    assert all(line["leak_mask"] == 0 and line["leak_audio"] >= 0 for line in checked)


def test_mouth_weights_have_mean_one_and_favour_the_mouth():
    weights = mouth_weights(96)[0, 0]
    assert abs(weights.mean().item() - 1) < 1e-6
    assert weights[70, 48] > weights[70, 5] > weights[10, 48]


def test_frame_rate_of_the_clips_is_exact():
    from training.clips import FPS

    assert Fraction(25) == FPS
