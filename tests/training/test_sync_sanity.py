from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.networks.syncnet import SyncNetExpert
from training import sync_sanity
from training.__main__ import main
from training.config import load_recipe
from training.sync_sanity import Verdict, check, recall
from training.sync_windows import SyncBatches


@pytest.fixture
def few(monkeypatch):
    """Four windows, checked every second step."""
    for name, value in {"CLIPS": 2, "WINDOWS": 2, "STEPS": 4, "CHECK_EVERY": 2}.items():
        monkeypatch.setattr(sync_sanity, name, value)


@pytest.mark.slow
def test_what_can_be_learnt_passes(talking, few, monkeypatch):
    random = np.random.default_rng(0)
    texture = random.integers(0, 256, (180, 6, 6, 3), np.uint8).repeat(20, 1).repeat(20, 2)
    sound = random.uniform(-4, 4, talking.windows.shape).astype(np.float32)
    monkeypatch.setattr(sync_sanity, "STEPS", 80)
    monkeypatch.setattr(sync_sanity, "CHECK_EVERY", 10)
    verdict = check(replace(talking, crops=texture, windows=sound), load_recipe("debug"), compiled=False)
    assert verdict.passed
    assert verdict.steps < 80
    assert "pass" in str(verdict)


def test_faces_without_a_mouth_fail(talking, few):
    blind = replace(talking, crops=np.zeros_like(talking.crops))
    verdict = check(blind, load_recipe("debug"), compiled=False)
    assert not verdict.passed
    assert verdict.steps == 4
    assert "FAIL" in str(verdict)


def test_recall_of_an_expert_that_knows_and_of_one_that_guesses(talking):
    batch = SyncBatches(talking, talking.clips, 0)(0, 3, 4)

    class Knows(SyncNetExpert):
        def forward(self, mel, frames):
            own = torch.eye(len(mel))
            return own, own

    class Guesses(SyncNetExpert):
        def forward(self, mel, frames):
            same = torch.ones(len(mel), 2) / 2**0.5
            return same, same

    assert recall(Knows(), batch)[0] == 1
    found, chance, loss = recall(Guesses(), batch)
    assert found == 0  # a tie is no find
    assert 1 / 12 <= chance < 0.2
    assert loss > 0.69


@pytest.mark.parametrize(("share", "status"), [(1.0, 0), (0.5, 1)])
def test_the_exit_status_tells(talking, tmp_path, monkeypatch, capsys, share, status):
    monkeypatch.setattr("training.syncnet.load_clips", lambda *_: talking)
    monkeypatch.setattr(sync_sanity, "check", lambda *_: Verdict(share, 0.03, 0.2, 60, 50.0))
    assert main(["syncnet", "--data", str(tmp_path), "--output", str(tmp_path / "run"), "--sanity"]) == status
    assert ("pass" if status == 0 else "FAIL") in capsys.readouterr().out
    assert not (tmp_path / "run" / "syncnet.pt").exists()
