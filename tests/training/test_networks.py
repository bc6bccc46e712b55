"""The systems to compare with are trained, gone on with, exported and opened as the pack's own network is."""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import pytest
import torch

from models.checkpoints import read_metadata
from models.generator import load_generator
from models.identity import FaceEmbedding, load_recogniser
from models.layouts import network_of
from models.networks.wavsyncswap import mask_lower_half
from models.systems import Cascade, SimSwapSystem, Wav2LipSystem
from tests.training.small_run import made_up_people, write_still
from training.__main__ import main
from training.batches import Batches
from training.config import load_recipe
from training.export import export
from training.generator import train
from training.networks import SYSTEMS
from training.plan import describe
from training.trainer import Trainer
from training.watch import entries

MINIS = ("proposed-mini", "wav2lip-mini", "simswap-mini")
SHORT = (
    "schedule.steps=4 schedule.gan_start=2 schedule.tower_steps=2 schedule.reader_steps=2 schedule.batch=4 "
    "schedule.save_every=2 schedule.measure_every=2 schedule.sample_every=4 loss.identity_rows=4 loss.second_rows=2"
).split()


def short(name, *changes):
    """A mini's recipe in a few steps."""
    swapped = [] if name == "wav2lip-mini" else ["schedule.swapped=2"]
    return load_recipe(name, [*SHORT, *swapped, *changes])


@dataclass
class Run:
    """A finished run of a mini."""

    folder: Path
    trainer: Trainer

    @property
    def weights(self) -> Path:
        return export(self.folder / "last.pt", self.folder / "weights.safetensors", torch.float32)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Made-up people, and a data folder for them."""
    folder = tmp_path_factory.mktemp("data")
    write_still(folder)
    return made_up_people(), folder


@pytest.fixture(scope="module")
def runs(data, tmp_path_factory):
    """Every mini, trained without a break."""
    folder = tmp_path_factory.mktemp("runs")
    return {name: Run(folder / name, train(*data, folder / name, short(name), compiled=False)) for name in MINIS}


@pytest.fixture
def faces(clip_set, bank):
    """Four true faces with sound and references."""
    return Batches(clip_set, clip_set.clips, bank, 96, 0)(0, 4, 0)


def identity(vector=None, recogniser=None):
    vector = torch.nn.functional.normalize(torch.ones(512), dim=0) if vector is None else vector
    return FaceEmbedding(vector.numpy(), recogniser or load_recogniser("builtin").id, 1.0, 1)


def test_wav2lip_is_trained_exported_and_opened(runs, faces):
    trainer, file = runs["wav2lip-mini"].trainer, runs["wav2lip-mini"].weights
    assert network_of(file) == "wav2lip"
    generator = load_generator(file, precision="fp32")
    assert isinstance(generator, Wav2LipSystem)
    assert (generator.px, generator.mel_lag, generator.keeps_identity) == (96, -1, True)
    drawn = generator.generate(faces.truth, faces.mel, None)
    pair = torch.cat([mask_lower_half(faces.truth), faces.truth], 1)  # a frame is its own reference, as in public use
    with torch.no_grad():
        assert (drawn - trainer.averaged()(pair, faces.mel, faces.source)).abs().max() < 1e-3
    with pytest.raises(ValueError, match="keeps the target's own face"):
        generator.check_identity(identity())


def test_simswap_is_trained_exported_and_opened(runs, faces):
    trainer, file = runs["simswap-mini"].trainer, runs["simswap-mini"].weights
    assert network_of(file) == "simswap_224"
    generator = load_generator(file, precision="fp32")
    assert isinstance(generator, SimSwapSystem)
    assert (generator.px, generator.hears) == (96, False)
    drawn = generator.generate(faces.truth, faces.mel, identity(faces.source[0]))
    with torch.no_grad():
        wanted = trainer.averaged()(faces.truth.repeat(1, 2, 1, 1), faces.mel, faces.source[:1].expand(4, -1))
    assert (drawn - wanted).abs().max() < 1e-3
    with pytest.raises(ValueError, match="another"):
        generator.check_identity(identity(recogniser="another"))


def test_both_in_a_row_are_the_cascade(runs, faces):
    files = [runs[name].weights for name in ("wav2lip-mini", "simswap-mini")]
    cascade = load_generator(files, precision="fp32")
    assert isinstance(cascade, Cascade)
    assert cascade.generate(faces.truth, faces.mel, identity()).shape == (4, 3, 96, 96)


@pytest.mark.parametrize("name", MINIS)
def test_a_run_goes_on_where_it_was(name, runs, data, tmp_path):
    train(*data, tmp_path, short(name, "schedule.steps=2"), compiled=False)
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    state["recipe"] = asdict(short(name))  # of a run that was stopped there; the rate depends on the last step
    torch.save(state, tmp_path / "last.pt")
    part = train(*data, tmp_path, short(name), compiled=False)
    assert part.step == 4
    assert read_metadata(runs[name].weights)["recipe"]["model"]["system"] == part.system.name
    whole = runs[name].trainer.net.state_dict()
    assert all(torch.equal(v, whole[k]) for k, v in part.net.state_dict().items())


@pytest.mark.parametrize(
    ("name", "losses"),
    [
        ("proposed-mini", {"l1", "low", "identity", "lips", "adversarial", "matching"}),
        ("wav2lip-mini", {"l1", "lips", "adversarial", "matching"}),
        ("simswap-mini", {"l1", "low", "identity", "adversarial", "matching"}),
    ],
)
def test_each_system_has_the_losses_that_mean_something_to_it(name, losses, runs):
    last = entries(runs[name].folder / "log.jsonl")[-1]
    assert set(last["share"]) == losses


def test_simswap_sees_the_whole_target_and_teaches_itself_nothing_about_lips(runs):
    run, targets = runs["simswap-mini"].folder, torch.rand(2, 3, 96, 96)
    assert torch.equal(runs["simswap-mini"].trainer.system.seen(targets), targets)
    assert not (run / "audio_tower.pt").exists()
    assert not (run / "lip_reader.pt").exists()
    assert "val_l1" in (run / "log.jsonl").read_text()
    assert "leak" not in (run / "log.jsonl").read_text()


def test_wav2lips_tower_is_taught_and_then_stays(runs):
    trainer = runs["wav2lip-mini"].trainer
    taught = torch.load(runs["wav2lip-mini"].folder / "audio_tower.pt", weights_only=True)
    assert all(torch.equal(v, trainer.net.audio_encoder.state_dict()[k]) for k, v in taught.items())
    assert not any(p.requires_grad for p in trainer.tower.parameters())


def test_a_tower_of_another_layout_is_told(runs, data, tmp_path):
    for part in ("lip_reader.pt", "audio_tower.pt"):
        shutil.copy(runs["proposed-mini"].folder / part, tmp_path)
    with pytest.raises(ValueError, match="audio_tower.pt does not fit"):
        train(*data, tmp_path, short("wav2lip-mini"), compiled=False)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("small-96", "model.system=wav2lip", "skips is none.*wav2lip-mini.*schedule.swapped, loss.identity"),
        ("small-96", "model.system=simswap", "simswap-mini is made for it.*loss.lips and loss.sync are 0"),
        ("small-96", "model.system=dagan", "model.system is one of wavsyncswap, wav2lip, simswap"),
        ("wav2lip-mini", "model.px=128", "model.px is 96 with model.system=wav2lip"),
        ("wav2lip-mini", "loss.identity=1", "takes no identity"),
        ("wav2lip-mini", "schedule.swapped=8", "takes no identity"),
        ("simswap-mini", "loss.lips=1", "hears nothing"),
        ("simswap-mini", "schedule.swapped=0", "schedule.swapped is at least 1"),
        ("proposed-mini", "schedule.swapped=0", "schedule.swapped is at least 1"),
        ("simswap-mini", "model.keep=true", "model.keep"),
    ],
)
def test_what_a_system_cannot_do_is_refused_and_why(name, change, message):
    with pytest.raises(ValueError, match=message):
        load_recipe(name, [change])


def test_a_start_from_a_file_is_refused_before_any_work(tmp_path, capsys):
    (tmp_path / "w.pth").write_bytes(b"")
    command = ["generator", "--data", str(tmp_path), "--output", str(tmp_path / "run"), "--recipe", "wav2lip-mini"]
    assert main([*command, "--init", str(tmp_path / "w.pth")]) == 1
    assert "a run starts from noise" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_minis_have_the_same_data_batch_steps_width_and_rates():
    recipes = [load_recipe(name) for name in MINIS]
    assert [recipe.model.system for recipe in recipes] == list(SYSTEMS)

    def common(recipe):
        parts = asdict(recipe)
        parts["schedule"].pop("swapped")
        return parts["schedule"], parts["optim"], recipe.model.width, recipe.model.px, recipe.loss.l1

    assert common(recipes[0]) == common(recipes[1]) == common(recipes[2])


@pytest.mark.parametrize(
    ("name", "size", "phases"),
    [
        ("proposed-mini", "8.55 M parameters, 1.03 GMACs", "steps of the lip reader and 1,400 of the audio tower"),
        ("wav2lip-mini", "9.08 M parameters, 1.00 GMACs", "steps of the lip reader and 1,400 of the audio tower"),
        ("simswap-mini", "9.97 M parameters, 1.29 GMACs", "phases: from step 0 without the critic"),
    ],
)
def test_the_plan_of_a_mini(name, size, phases, tmp_path):
    for part in ("talking", "talking_generated"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "manifest.csv").write_text("file,wav,identity,split\na.mp4,a.wav,x,train\n")
    text = describe(load_recipe(name), tmp_path)
    assert size in text
    assert phases in text
