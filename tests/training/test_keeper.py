from __future__ import annotations

from pathlib import Path

import pytest
import torch

from models.checkpoints import load_weights, sha256_file
from models.identity import load_recogniser
from models.networks import build
from training.config import load_recipe
from training.export import export
from training.keeper import Keeper, Record, data_digest, note_data, read_record, write


class Counter:
    """A trainer of one number."""

    def __init__(self) -> None:
        self.step, self.record = 0, Record(data="d")

    def save(self, path: Path) -> None:
        write(path, {"weight": torch.tensor(self.step)}, self, load_recipe("debug"))

    def restore(self, path: Path) -> None:
        state = torch.load(path, weights_only=True)
        self.step, self.record = state["step"], read_record(state)


def test_the_best_by_score_is_kept_and_survives_a_restart(tmp_path):
    keeper, trainer = Keeper(tmp_path), Counter()
    for step, score in ((1, -3.0), (2, -1.0), (3, -2.0)):
        trainer.step = step
        keeper.judge(trainer, {"val_l1": -score}, score)
    keeper.save(trainer)
    best = torch.load(tmp_path / "best.pt", weights_only=True)
    assert (best["step"], best["record"]["measured"]) == (2, {"step": 2, "val_l1": 1.0})
    again = Counter()
    again.restore(keeper.last)
    assert again.record == Record("d", {"step": 3, "val_l1": 2.0}, -1.0)
    again.step = 4
    keeper.judge(again, {"val_l1": 1.5}, -1.5)
    assert torch.load(tmp_path / "best.pt", weights_only=True)["step"] == 2


def test_names_of_what_stays(tmp_path):
    keeper, trainer = Keeper(tmp_path, "syncnet.pt", "syncnet_"), Counter()
    trainer.step = 500
    keeper.keep(trainer)
    keeper.save(trainer)
    keeper.judge(trainer, {}, 0.0)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["syncnet.pt", "syncnet_best.pt", "syncnet_step_500.pt"]


def test_a_write_that_fails_leaves_the_old_checkpoint(tmp_path):
    trainer = Counter()
    trainer.save(tmp_path / "last.pt")
    before = (tmp_path / "last.pt").read_bytes()
    with pytest.raises(TypeError):
        write(tmp_path / "last.pt", {"weight": (x for x in [])}, trainer, load_recipe("debug"))
    assert (tmp_path / "last.pt").read_bytes() == before


def test_the_digest_tells_data_apart(clip_set, tmp_path):
    first = data_digest(clip_set, tmp_path)
    assert first == data_digest(clip_set, tmp_path)
    del clip_set.clips[0]
    assert data_digest(clip_set, tmp_path) != first
    (tmp_path / "manifest.json").write_text("{}")
    assert data_digest(clip_set, tmp_path) == sha256_file(tmp_path / "manifest.json")


def test_a_run_that_goes_on_with_other_data_says_so_and_records_them(caplog):
    for before, told in (("", False), ("b", False), ("a", True)):
        record = Record(data=before)
        caplog.clear()
        note_data(record, "b")
        assert record.data == "b"
        assert ("the data is not what the run was begun with" in caplog.text) == told


def test_an_exported_checkpoint_says_where_it_comes_from(tmp_path):
    recipe = load_recipe("debug")
    config = recipe.system.config(recipe.model, load_recogniser("builtin").dim)
    trainer = Counter()
    trainer.record.measured = {"step": 7, "val_l1": 0.25}
    write(tmp_path / "step_7.pt", {"average": build("wavsyncswap", **config).state_dict()}, trainer, recipe)
    _, metadata = load_weights(export(tmp_path / "step_7.pt", tmp_path / "g.safetensors", torch.float16))
    assert (metadata["data_sha256"], metadata["metrics"]) == ("d", {"step": 7, "val_l1": 0.25})
    assert metadata["config"]["px"] == 96
    assert {"recogniser", "geometry", "recipe", "licence", "mel_lag"} <= set(metadata)
