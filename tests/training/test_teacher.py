from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.networks import build
from training.config import load_recipe
from training.sync_windows import SyncBatches
from training.syncnet import SyncTrainer
from training.teacher import Teacher, distillation_loss


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    torch.manual_seed(8)
    path = tmp_path_factory.mktemp("teacher") / "lipsync_expert.pth"
    torch.save({"state_dict": build("syncnet_expert").state_dict()}, path)
    return path


def test_the_loss_compares_cosines():
    eye, alike = torch.eye(2), torch.ones(2, 2) / 2**0.5
    assert distillation_loss((eye, eye), (eye, eye)) == 0
    turned = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
    assert distillation_loss((turned, turned), (eye, eye)) == 0  # another space, the same likeness
    assert distillation_loss((eye, eye), (alike, alike)).item() == pytest.approx(0.5)


def test_the_teacher_stays_what_it_is_and_hears_the_recording(file, talking):
    recipe = load_recipe("debug", [f"syncnet.teacher={file}", "syncnet.supervised_steps=0"])
    trainer = SyncTrainer(recipe, compiled=False)
    before = {k: v.clone() for k, v in trainer.teacher.expert.state_dict().items()}
    batch = SyncBatches(talking, talking.of("train"), 0)(0, 2, 3)
    heard, vectors = [], trainer.teacher.vectors

    def overheard(mel, faces):
        heard.append(mel)
        return vectors(mel, faces)

    trainer.teacher.vectors = overheard
    assert "distillation" in trainer.train_step(batch)
    assert torch.equal(heard[0], batch.mel)
    expert = trainer.teacher.expert
    assert not any(module.training for module in expert.modules())
    assert all(p.grad is None for p in expert.parameters())
    assert all(torch.equal(v, expert.state_dict()[k]) for k, v in before.items())


def test_a_pupil_comes_nearer_to_its_teacher(file, talking):
    """A teacher that finds everything half in sync, which nothing else would teach."""
    random = np.random.default_rng(0)
    texture = random.integers(0, 256, (180, 6, 6, 3), np.uint8).repeat(20, 1).repeat(20, 2)
    talking = replace(talking, crops=texture, windows=random.uniform(-4, 4, (180, 80, 16)).astype(np.float32))
    change = [f"syncnet.teacher={file}", "syncnet.supervised_steps=0", "syncnet.distillation=1000", "optim.warmup=1"]
    recipe = load_recipe("debug", [*change, "syncnet.steps=100", "syncnet.lr=5e-4", "optim.precision=fp32"])
    trainer = SyncTrainer(recipe, compiled=False)
    half = torch.tensor([[1.0, 0.0], [0.5, 0.75**0.5]]).repeat_interleave(4, 0)
    trainer.teacher.vectors = lambda mel, faces: (half[: len(mel)], half[4 : 4 + len(mel)])
    batch = SyncBatches(talking, talking.of("train"), 0)(0, 2, 2)
    losses = [trainer.train_step(batch)["distillation"] for _ in range(30)]
    assert np.median(losses[-9:]) < 0.5 * losses[0]  # single steps jump, and when differs by machine


def test_a_missing_teacher_names_its_key(tmp_path):
    with pytest.raises(ValueError, match=r"syncnet\.teacher: .*does not exist"):
        Teacher(tmp_path / "none.pth", torch.device("cpu"))
