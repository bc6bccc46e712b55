from __future__ import annotations

import io
import json
import os
import signal
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import torch

from models.checkpoints import load_weights, sha256_file
from models.generator import load_generator
from models.identity import FaceEmbedding, load_recogniser
from models.mouth import mouth_weights
from models.networks import build
from training.batches import Batches
from training.config import LossConfig, ModelConfig, Recipe, ScheduleConfig, load_recipe
from training.engine import Engine
from training.export import export
from training.generator import train
from training.lip_reader import LipReader
from training.trainer import Trainer, average_decay

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
    for frozen in (trainer.losses.recogniser.network, trainer.losses.reader, trainer.net.audio_encoder):
        assert all(p.grad is None for p in frozen.parameters())
        assert not any(module.training for module in frozen.modules())


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
    fresh.save(tmp_path / "last.pt")
    second = export(tmp_path / "last.pt", tmp_path / "second.safetensors", torch.float32)
    assert load_weights(second)[1]["start"] == [["g.safetensors", sha256_file(file)]]


def test_the_average_forgets_by_images_whatever_the_batch():
    for batch in (32, 256):
        steps = 22_016 // batch
        assert average_decay(22_016, batch, 10_000) ** steps == pytest.approx(0.5)
    assert average_decay(22_016, 32, 1) < 0.001  # noise that training started from is forgotten at once
    assert average_decay(0, 32, 100) == 0


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


def test_a_checkpoint_from_before_records_and_new_recipe_keys_is_gone_on_from(make, tmp_path):
    trainer, batches = make()
    advance(trainer, batches, 1)
    trainer.save(tmp_path / "last.pt")
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    state["recipe"]["optim"]["ema"] = 0.999  # what the average's half-life was given by once
    del state["record"], state["recipe"]["schedule"]["accumulate"], state["recipe"]["syncnet"]["keep_every"]
    torch.save(state, tmp_path / "old.pt")
    fresh, _ = make()
    fresh.restore(tmp_path / "old.pt")
    assert fresh.step == 1
    assert torch.equal(
        fresh.average["audio_map.0.conv_block.0.weight"], trainer.average["audio_map.0.conv_block.0.weight"]
    )


def test_parts_of_a_batch_give_the_gradients_of_the_whole(make):
    """With batch statistics frozen, since each part has its own."""
    updates = []
    for accumulate in (1, 2):
        trainer, batches = make()
        trainer.recipe = replace(
            RECIPE,
            schedule=replace(RECIPE.schedule, gan_start=0, accumulate=accumulate),
            optim=replace(RECIPE.optim, precision="fp32"),
        )
        trainer.engine = Engine(precision="fp32")
        trainer.run_net, trainer.run_critic = (trainer.engine.setup(n, False) for n in (trainer.net, trainer.critic))
        trainer.net.eval()
        trainer.critic.eval()
        trainer.net.train = lambda mode=True: None
        losses = trainer.train_step(batches(0, 4, 2, 1))
        moments = [torch.cat([s["exp_avg"].flatten() for s in o.state.values()]) for o in optimizers(trainer)]
        updates.append((losses, moments))
    (whole, gradients), (parted, others) = updates
    assert parted == pytest.approx(whole, rel=1e-3)
    for a, b in zip(gradients, others, strict=True):
        assert (a - b).norm() < 2e-3 * a.norm()


def optimizers(trainer: Trainer) -> tuple[torch.optim.Optimizer, torch.optim.Optimizer]:
    return trainer.optimizer, trainer.critic_optimizer


def test_logged_steps_tell_raw_losses_and_shares_of_the_gradient(make):
    trainer, batches = make()
    losses = advance(trainer, batches, 4)
    assert all("share" not in entry for entry in losses[:3])
    last = losses[3]
    assert sum(last["share"].values()) == pytest.approx(1, abs=1e-3)
    assert set(last["share"]) == {"l1", "low", "identity", "second_identity", "lips", "adversarial", "matching"}
    assert last["raw"]["l1"] == pytest.approx(last["l1"] / RECIPE.loss.l1)
    assert last["raw"]["matching"] == pytest.approx(last["matching"] / RECIPE.loss.feature_matching)


def test_a_loss_that_is_no_number_changes_nothing(make):
    trainer, batches = make()
    advance(trainer, batches, 1)
    before = {k: v.clone() for k, v in trainer.net.state_dict().items() if "running" not in k and "tracked" not in k}
    batch = batches(1, 4, 2)
    batch.truth[0, 0, 0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match="Nothing was updated"):
        trainer.train_step(batch)
    assert all(torch.equal(v, trainer.net.state_dict()[k]) for k, v in before.items())
    assert trainer.step == 1


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
    checked = [line for line in lines if "val_leak_mask" in line]
    assert checked[0]["step"] == 1  # from the first step on
    assert all(line["val_leak_mask"] == 0 and line["val_leak_audio"] >= 0 for line in checked)


def with_splits(data, *splits):
    clips = [replace(clip, split=split) for clip, split in zip(data.clips, splits, strict=True)]
    return replace(data, clips=clips)


def test_a_run_without_anybody_held_out_trains_and_measures_nothing(clip_set, folder):
    everybody = with_splits(clip_set, "train", "train", "train")
    assert train(everybody, folder, folder / "run", load_recipe("debug"), compiled=False).step == 6
    assert json.loads((folder / "run" / "lip_reader.json").read_text()) == {}
    assert json.loads((folder / "run" / "audio_tower.json").read_text()) == {}


def test_a_run_without_anybody_to_train_on_is_one_error(clip_set, folder):
    with pytest.raises(ValueError, match=r"None of 3 clips is to be trained on.*column split"):
        train(with_splits(clip_set, "val", "val", "val_seen"), folder, folder / "run", load_recipe("debug"))


@pytest.mark.parametrize("name", ["audio_tower.pt", "lip_reader.pt"])
def test_a_damaged_part_of_a_run_is_named(clip_set, folder, name, monkeypatch):
    """And what is made instead of it is the same."""
    recipe, run = load_recipe("debug", ["schedule.steps=1", "schedule.gan_start=1"]), folder / "run"
    train(clip_set, folder, run, recipe, compiled=False)
    whole = (run / name).read_bytes()
    (run / name).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=rf"{name} is .*delete .*{name}, and it is made anew"):
        train(clip_set, folder, run, recipe, compiled=False)
    (run / name).unlink()
    monkeypatch.setattr(torch, "save", half_saved)
    with pytest.raises(OSError, match="disk full"):
        train(clip_set, folder, run, recipe, compiled=False)
    assert not (run / name).exists()
    monkeypatch.undo()
    train(clip_set, folder, run, recipe, compiled=False)
    made, wanted = (torch.load(io.BytesIO(data), weights_only=True) for data in ((run / name).read_bytes(), whole))
    assert all(torch.equal(value, made[key]) for key, value in wanted.items())


def half_saved(state, path):
    """`torch.save` on a disk that is full."""
    Path(path).write_bytes(b"PK")
    raise OSError("disk full")


def test_mouth_weights_have_mean_one_and_favour_the_mouth():
    weights = mouth_weights(96)[0, 0]
    assert abs(weights.mean().item() - 1) < 1e-6
    assert weights[70, 48] > weights[70, 5] > weights[10, 48]


def test_frame_rate_of_the_clips_is_exact():
    from training.clips import FPS

    assert Fraction(25) == FPS
