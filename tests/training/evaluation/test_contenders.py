"""Systems by name: the syntax of the command line, where files come from, what stands in for them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from models.checkpoints import load_weights, save_weights
from models.generator import load_generator
from models.geometry import GEOMETRY_ID
from models.systems import Cascade, SimSwapSystem
from tests.models.public_files import random_network, save_public
from training.evaluation.contenders import TRUTH, Contender, Entry, described, enter, origin_of
from training.evaluation.stand_ins import face_handed_on, stand_in


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Narrow random networks in the public layouts, and a SimSwap that says it was trained here."""
    folder = tmp_path_factory.mktemp("weights")
    save_public(folder / "lips.pth", random_network("wav2lip", width=1 / 8).state_dict(), "with optimizer")
    save_public(folder / "swap.pth", random_network("simswap_224", width=1 / 8).state_dict(), "flat")
    own = random_network("simswap_224", width=1 / 8, id_dim=512).state_dict()
    about = {"recogniser": "r1", "geometry": GEOMETRY_ID, "px": 96, "steps": 1200, "recipe": {}}
    save_weights(folder / "mini.safetensors", own, about)
    return folder


def test_syntax():
    assert Contender.parse("ground_truth") == Contender(TRUTH)
    assert Contender.parse("a=builtin") == Contender("a", ("builtin",))
    both = Contender.parse("cascade-96=/x/w@2.pth+random:simswap@upstream@96")
    assert both == Contender("cascade-96", ("/x/w@2.pth", "random:simswap"), upstream=True, side=96)
    assert Contender.parse("b=c.pth@keep") == Contender("b", ("c.pth",), keep=True)
    for text in ("builtin", "a=", "a b=c", "ground_truth=x.pth"):
        with pytest.raises(ValueError, match="A system is ground_truth or NAME=FILE"):
            Contender.parse(text)


def test_kinds_and_origins(files: Path, tmp_path: Path):
    texts = [
        "ground_truth",
        f"lips={files}/lips.pth",
        f"both={files}/lips.pth+{files}/mini.safetensors@96",
        f"swap={files}/swap.pth@upstream",
        "small=builtin",
        "kept=builtin@keep",
    ]
    entries = enter([Contender.parse(text) for text in texts], tmp_path)
    assert [entry.kind for entry in entries] == [TRUTH, "wav2lip", "cascade", "simswap", "wavsyncswap", "wavsyncswap"]
    assert entries[-1].of_paper == ""
    assert not any(entry.stand_in for entry in entries)
    assert entries[0].described() == "the target videos themselves"
    assert "weights of lips.pth + trained with this project, 1,200 steps" in entries[2].described()
    assert "the original programs' geometry" in entries[3].described()
    assert all(len(origin.sha256) == 64 for entry in entries for origin in entry.origins)
    system = entries[2].load("cpu", "fp32")
    assert isinstance(system, Cascade)
    assert system.swap.side == 96
    assert system.recogniser == "r1"
    swap = replace(entries[3], contender=replace(entries[3].contender, side=64)).load("cpu", "bf16")
    assert isinstance(swap, SimSwapSystem)
    assert swap.side == 64
    assert next(swap.network.parameters()).dtype == torch.float32  # as its program runs
    with pytest.raises(ValueError, match="there is no SimSwap here"):
        replace(entries[1], contender=replace(entries[1].contender, side=64)).load("cpu", "fp32")


def test_refusals(files: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="Two systems are called 'a'"):
        enter([Contender("a", ("builtin",)), Contender("a", ("builtin",))], tmp_path)
    with pytest.raises(ValueError, match="does not exist"):
        origin_of(str(files / "gone.pth"), tmp_path)
    with pytest.raises(ValueError, match="no random weights of 'wave'"):
        origin_of("random:wave", tmp_path)
    torch.save({"layer": torch.zeros(2)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other\.pt holds weights of no known network"):
        origin_of(str(tmp_path / "other.pt"), tmp_path)


def test_stand_ins_are_always_the_same_ones(tmp_path: Path):
    one, two = (origin_of("random:small-96", tmp_path / name) for name in "ab")
    assert one.sha256 == two.sha256
    assert one.stand_in
    assert "random" in load_weights(one.path)[1]["weights"]
    entry = Entry(Contender("x", ("random:small-96",)), (one,))
    assert entry.stand_in
    assert entry.load("cpu", "fp32").px == 96
    assert stand_in("small-96", tmp_path / "a") == one.path


def test_a_stand_in_hands_the_face_on(files: Path):
    lips = load_generator(files / "lips.pth", precision="fp32")
    crops = torch.rand(2, 3, lips.px, lips.px)
    windows = torch.zeros(2, 1, 80, 16)
    drawn = lips.generate(crops, windows, None)
    kept = face_handed_on(lips).generate(crops, windows, None)
    assert (kept - crops).abs().mean() < 0.5 * (drawn - crops).abs().mean()
    swap = load_generator(files / "mini.safetensors", precision="fp32")
    both = face_handed_on(Cascade.of([lips, swap]))
    assert isinstance(both, Cascade)
    assert type(both.talk.network).__name__ == "HandedOn"
    assert face_handed_on(swap) is swap


def test_a_runs_own_checkpoint_says_so(tmp_path: Path):
    torch.save({"average": {"a": torch.zeros(1)}, "recipe": {"model": {}}, "step": 7}, tmp_path / "last.pt")
    network, about = described(tmp_path / "last.pt")
    assert network == ""
    assert about["step"] == 7
