from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from models.checkpoints import load_weights
from models.networks import build
from models.networks.syncnet import SyncNetExpert
from training.__main__ import main
from training.config import load_recipe
from training.export import export
from training.sync_windows import SyncBatches, mel_row, sounding
from training.syncnet import SyncTrainer, contrastive_loss, measure, probability_loss, train


def test_windows_meet_their_own_sound(talking):
    """The mel window of frames f.. is the stored one of frame f + 1, which begins where frame f does."""
    clip = talking.clips[1]
    assert np.array_equal(mel_row(talking, clip, 7), talking.windows[clip.start + 8])
    batch = SyncBatches(talking, talking.clips, 0)(3, 2, 4)
    assert batch.faces.shape == (8, 5, 3, 96, 96)
    assert batch.mel.shape == (8, 1, 80, 16)
    again = SyncBatches(talking, talking.clips, 0)(3, 2, 4)
    assert torch.equal(batch.faces, again.faces)


def test_near_windows_are_no_negatives_of_each_other(talking):
    batch = SyncBatches(talking, talking.clips[:1], 0)(0, 1, 40)
    assert not batch.negative.diagonal().any()
    assert torch.equal(batch.negative, batch.negative.T)
    assert 0.6 < batch.negative.float().mean() < 0.95
    pair = SyncBatches(talking, talking.clips[:2], 0)(0, 2, 3).negative
    assert pair[:3, 3:].all() or not pair.all()


def test_windows_without_sound_are_never_drawn_nor_asked_for(talking, tmp_path):
    """Half of the first clip is digital silence, all of the second is."""
    windows = talking.windows.clip(-3)
    windows[20:50] = windows[60:120] = -4
    quiet = replace(talking, windows=windows)
    first, second = quiet.clips[:2]
    heard = sounding(quiet, first)
    assert set(heard) == {*range(19), *range(49, 56)}
    assert not len(sounding(quiet, second))
    batch = SyncBatches(quiet, [first, second], 0)(0, 2, 30)
    assert (batch.mel.mean((1, 2, 3)) > -3.5).all()
    asked = []
    expert = SyncNetExpert()
    expert.embed_face = lambda frames: asked.append(len(frames)) or torch.ones(len(frames), 2)
    expert.embed_audio = lambda mel: torch.ones(len(mel), 2)
    assert measure(expert, quiet, [first, second])
    assert asked == [4]  # of windows with room for 15 lags on both sides, only 15 to 18 are heard
    assert not measure(expert, quiet, [second])
    with pytest.raises(ValueError, match="None of 1 clips is longer than 15 frames and has sound"):
        SyncBatches(quiet, [second], 0)


def test_losses_against_hand_made_numbers():
    eye = torch.eye(4)
    negative = ~torch.eye(4, dtype=torch.bool)
    # Perfect: 1 against three zeros, logits 1 / t. Cross entropy is log(1 + 3 exp(-1 / t)).
    expected = np.log1p(3 * np.exp(-1 / 0.5))
    assert abs(contrastive_loss(eye, eye, negative, 0.5).item() - expected) < 1e-6
    assert probability_loss(eye, eye, negative).item() < 1e-5
    alike = torch.full((4, 4), 0.5)
    assert abs(contrastive_loss(alike, alike, negative, 0.5).item() - np.log(4)) < 1e-6
    # Rows that may not be told apart leave the softmax.
    assert contrastive_loss(alike, alike, torch.zeros(4, 4, dtype=torch.bool), 0.5).item() == 0


def test_a_perfect_expert_and_a_constant_one(talking):
    class Perfect(SyncNetExpert):
        def embed_audio(self, mel):
            angle = (mel.mean((1, 2, 3)) + 4) / 8 * torch.pi / 2
            return torch.stack([angle.cos(), angle.sin()], 1)

        def embed_face(self, frames):
            angle = frames[:, 3:6].mean((1, 2, 3)) * torch.pi / 2  # the second frame: stored windows are one late
            return torch.stack([angle.cos(), angle.sin()], 1)

    numbers = measure(Perfect(), talking, talking.clips)
    assert numbers["offset_within_1"] == 1
    assert numbers["accuracy"] > 0.95

    class Constant(Perfect):
        def embed_face(self, frames):
            return torch.ones(len(frames), 2) / 2**0.5

    assert measure(Constant(), talking, talking.clips)["accuracy"] < 0.7


def test_resumed_training_equals_unbroken_training_and_logs_from_the_first_measurement(talking, tmp_path):
    recipe = load_recipe("debug")
    whole = train(talking, tmp_path, tmp_path / "whole", recipe, compiled=False)
    part = SyncTrainer(recipe, compiled=False)
    batches = SyncBatches(talking, talking.of("train"), recipe.schedule.seed)
    for step in range(4):
        part.train_step(batches(step, recipe.syncnet.clips, recipe.syncnet.windows))
    (tmp_path / "part").mkdir()
    part.save(tmp_path / "part" / "syncnet.pt")
    resumed = train(talking, tmp_path, tmp_path / "part", recipe, compiled=False)
    assert all(torch.equal(v, resumed.expert.state_dict()[k]) for k, v in whole.expert.state_dict().items())
    lines = [json.loads(line) for line in (tmp_path / "whole" / "syncnet.jsonl").read_text().splitlines()]
    metrics = {"val_accuracy", "val_offset_within_1", "val_loss"}
    assert lines[0]["step"] == 1
    assert metrics <= set(lines[0])
    assert metrics | {"lips_audio", "contrastive"} <= set(lines[-1])


def test_a_generators_recipe_in_the_same_folder_is_left_alone(talking, tmp_path):
    (tmp_path / "recipe.toml").write_text("the generator's")
    recipe = load_recipe("debug", ["optim.warmup=0", "syncnet.steps=1"])
    train(talking, tmp_path, tmp_path, recipe, compiled=False)
    assert (tmp_path / "recipe.toml").read_text() == "the generator's"
    assert load_recipe(str(tmp_path / "syncnet_recipe.toml")) == recipe


def test_a_checkpoint_of_another_width_is_one_error(talking, tmp_path):
    train(talking, tmp_path, tmp_path, load_recipe("debug", ["syncnet.steps=1"]), compiled=False)
    other = load_recipe("debug", ["syncnet.width=0.5"])
    with pytest.raises(ValueError, match=r"syncnet\.pt holds an expert of syncnet.width 1, the recipe asks for 0.5"):
        train(talking, tmp_path, tmp_path, other, compiled=False)


def test_the_checkpoint_has_the_public_layout(talking, tmp_path):
    train(talking, tmp_path, tmp_path, load_recipe("debug"), compiled=False)
    state, metadata = load_weights(export(tmp_path / "syncnet.pt", tmp_path / "s.safetensors", torch.float32))
    build("syncnet_expert").load_state_dict(state)
    assert (metadata["network"], metadata["steps"]) == ("syncnet_expert", 6)


def test_it_overfits_one_batch(talking):
    """Whether gradients reach both towers: twelve windows are learnt by heart within a few steps."""
    changes = ["syncnet.supervised_steps=0", "syncnet.steps=60", "optim.warmup=5", "syncnet.lr=1e-4"]
    recipe = load_recipe("debug", changes)  # at a low rate, and by the median: single steps jump
    trainer, batches = SyncTrainer(recipe, compiled=False), SyncBatches(talking, talking.of("train"), 0)
    losses = [trainer.train_step(batches(0, 2, 6))["contrastive"] for _ in range(36)]
    assert np.median(losses[-12:]) < 0.7 * np.mean(losses[:4])


def test_training_starts_from_an_expert_where_one_is_given(talking, tmp_path):
    torch.manual_seed(3)
    expert = build("syncnet_expert")
    torch.save({"state_dict": {f"module.{k}": v for k, v in expert.state_dict().items()}}, tmp_path / "expert.pth")
    recipe = load_recipe("debug", ["syncnet.steps=1", "syncnet.lr=1e-12"])
    trainer = train(talking, tmp_path, tmp_path / "run", recipe, compiled=False, init=tmp_path / "expert.pth")
    weights = dict(trainer.expert.named_parameters())
    assert all(torch.allclose(value, weights[name], atol=1e-6) for name, value in expert.named_parameters())


def test_a_missing_expert_is_told_before_any_work(tmp_path, capsys):
    for option in ("--init", "--teacher"):
        command = ["syncnet", "--data", str(tmp_path), "--output", str(tmp_path / "run"), option, str(tmp_path / "no")]
        assert main(command) == 1
        assert "does not exist" in capsys.readouterr().err
        assert not (tmp_path / "run").exists()


def test_a_loss_that_is_no_number_changes_nothing_and_is_one_error(talking, tmp_path):
    recipe = load_recipe("debug", ["syncnet.supervised_steps=0"])
    trainer, batches = SyncTrainer(recipe, compiled=False), SyncBatches(talking, talking.of("train"), 0)
    before = {name: value.clone() for name, value in trainer.expert.named_parameters()}
    batch = batches(0, 2, 3)
    batch.lips[0, 0] = float("nan")
    with pytest.raises(FloatingPointError, match=r"Step 0 gave a loss of nan.*Nothing was updated"):
        trainer.train_step(batch)
    assert all(torch.equal(value, before[name]) for name, value in trainer.expert.named_parameters())
    assert trainer.step == 0
