from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict
from pathlib import Path

import pytest
import torch

from models.checkpoints import bundled_path, save_weights
from training import engine
from training.config import Recipe, load_recipe, names, portable, to_toml
from training.loop import chosen_recipe


@pytest.mark.parametrize("name", names())
def test_every_recipe_is_valid_and_survives_being_written(name, tmp_path):
    recipe = load_recipe(name)
    (tmp_path / "again.toml").write_text(to_toml(recipe), encoding="utf-8")
    assert load_recipe(str(tmp_path / "again.toml")) == recipe


@pytest.mark.parametrize("change", ["optim.clip=inf", "loss.expert=😀/人 \x7f\"'\\b\u2028.pt", "optim.warmup=0"])
def test_rare_values_survive_being_written(change, tmp_path):
    recipe = load_recipe("debug", [change])
    (tmp_path / "again.toml").write_text(to_toml(recipe), encoding="utf-8")
    assert load_recipe(str(tmp_path / "again.toml")) == recipe


def test_defaults_are_a_valid_recipe():
    Recipe().check()


def test_changes_reach_their_place_with_their_type():
    recipe = load_recipe(
        "small-96",
        [
            "loss.l1=20",
            "model.skips=none",
            "model.keep=false",
            "schedule.kept=0",
            "model.blend=false",
            "optim.lr = 1e-3",
        ],
    )
    assert (recipe.loss.l1, recipe.model.skips, recipe.model.blend, recipe.optim.lr) == (20.0, "none", False, 1e-3)
    assert isinstance(recipe.loss.l1, float)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("loss.indentity=1", "no loss.indentity. Did you mean loss.identity"),
        ("losses.l1=1", "no losses. Did you mean loss"),
        ("schedule.steps=many", "schedule.steps is a int; got 'many', a str"),
        ("schedule.steps=true", "schedule.steps is a int; got True, a bool"),
        ("model.blend=1", "model.blend is a bool"),
        ("model=1", "takes section.key=value"),
        ("loss.l1", "takes section.key=value"),
        ("model.px=100", "model.px is one of 96, 128"),
        ("schedule.swapped=32", "schedule.batch is larger than schedule.swapped"),
        ("schedule.gan_start=5000", "gan_start lies between 0 and schedule.steps"),
        ("optim.precision=fp8", "optim.precision is auto, bf16 or fp32"),
        ("schedule.windows=3", "has 5 rows for each of schedule.windows"),
        ("schedule.silent=1.5", "schedule.silent and altered lie between 0 and 1"),
        ("loss.sync=1", "loss.sync goes with loss.expert, schedule.windows"),
        ("loss.l1=-1", "loss weights and gates are not negative"),
        ("loss.l1=inf", "loss weights and gates are not negative, and finite"),
        ("optim.clip=-1", "optim.clip lies above 0"),
        ("optim.clip=nan", "optim.clip lies above 0"),
        ("optim.gan_rate=-2", "optim.gan_rate is not negative"),
        ("optim.gan_rate=nan", "optim.gan_rate is not negative"),
        ("optim.warmup=-5", "optim.warmup is not negative"),
        ("syncnet.lr=-1", "syncnet.lr lies above 0"),
        ("syncnet.supervised_steps=-3", "syncnet.supervised_steps is not negative"),
        ("syncnet.temperature=nan", "measure_every and temperature lie above 0"),
        ("schedule.seed=-1", "schedule.seed lies between 0"),
        ("schedule.seed=18446744073709551616", "schedule.seed lies between 0"),
        ("loss.expert=\udc80", "loss.expert and syncnet.teacher are names that can be written"),
    ],
)
def test_a_wrong_change_is_one_clear_error(change, message):
    with pytest.raises(ValueError, match=message):
        load_recipe("small-96", [change])


def test_all_faults_of_a_recipe_are_named_at_once():
    with pytest.raises(ValueError, match="model.px.*optim.ema_images"):
        load_recipe("debug", ["model.px=100", "optim.ema_images=-1"])


def test_an_unknown_recipe_names_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match="base-256, base-96, debug, proposed-mini, simswap-mini, small-96"):
        load_recipe("tiny")
    (tmp_path / "broken.toml").write_text("[model\n")
    with pytest.raises(ValueError, match="broken.toml is not valid TOML"):
        load_recipe(str(tmp_path / "broken.toml"))


def test_weights_hold_the_recipe_they_were_trained_with(tmp_path):
    recipe = load_recipe("small-96", ["loss.sync=0.5", "schedule.windows=1", f"loss.expert={tmp_path / 'expert.x'}"])
    file, made = tmp_path / "g.safetensors", portable(asdict(recipe))
    assert made["loss"]["expert"] == "expert.x"
    save_weights(file, {"a": torch.zeros(1)}, {"recipe": made})
    assert load_recipe(str(file)).loss.expert == "expert.x"
    (tmp_path / "expert.x").touch()
    assert load_recipe(str(file)) == recipe
    assert load_recipe(str(file), ["loss.l1=7"]).loss.l1 == 7
    save_weights(file, {"a": torch.zeros(1)}, {})
    with pytest.raises(ValueError, match="g.safetensors does not say how it was trained"):
        load_recipe(str(file))


@pytest.mark.parametrize("name", ["generator_small_96.safetensors", "sync_expert.safetensors"])
def test_the_shipped_weights_can_be_trained_again_as_they_were(name):
    recipe = load_recipe(str(bundled_path(name)))
    assert recipe.schedule.batch > 1
    assert not recipe.loss.sync or Path(recipe.loss.expert).is_file()


def test_windows_are_dealt_whole_or_not_at_all():
    recipe = load_recipe("small-96", ["schedule.windows=1", "loss.second_rows=8"])
    recipe.check_parts(1)
    with pytest.raises(ValueError, match=r"multiples of 2 rows; schedule.windows = 1.*schedule.windows=2"):
        recipe.check_parts(2)
    load_recipe("small-96", ["schedule.windows=2", "loss.second_rows=8"]).check_parts(2)


def test_the_number_type_is_what_the_device_computes_in_hardware(monkeypatch, tmp_path):
    cpu = torch.device("cpu")
    for able, name in (([torch.bfloat16], "bf16"), ([], "fp32")):
        monkeypatch.setattr(engine, "candidates", lambda device, able=able: able)
        assert engine.settled("auto", cpu) == name
        recipe = chosen_recipe(Namespace(recipe="debug", set=[], device="cpu", output=tmp_path))
        assert recipe.optim.precision == name  # what a run folder and its checkpoints say
        assert engine.settled("bf16", cpu) == "bf16"
        forced = chosen_recipe(Namespace(recipe="debug", set=["optim.precision=fp32"], device="cpu", output=tmp_path))
        assert forced.optim.precision == "fp32"
