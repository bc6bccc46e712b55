"""Recognition by names and shapes."""

from __future__ import annotations

import pytest
import torch

from models.checkpoints import save_weights
from models.layouts import SIMSWAP_RECOGNISER, iresnet_blocks, network_of, recognise, shapes_of
from models.networks import build
from tests.models.public_files import Payload, random_network, save_public

CASES = [
    ("wav2lip", {"width": 1.0}),
    ("wav2lip", {"width": 0.5}),
    ("simswap_224", {"width": 1.0, "io_norm": False, "id_dim": 512}),
    ("simswap_224", {"width": 0.375, "io_norm": False, "id_dim": 128}),
    ("simswap_512", {"width": 1.0, "io_norm": False, "id_dim": 512}),
    ("simswap_arcface", {"width": 1.0, "dim": 512}),
    ("simswap_arcface", {"width": 0.25, "dim": 64}),
    ("iresnet18", {"width": 0.25, "dim": 128}),
    ("iresnet100", {"width": 1.0, "dim": 512}),
    ("wav2lip_disc_qual", {}),
    ("syncnet_expert", {"width": 1.0}),
    ("syncnet_expert", {"width": 0.5}),
    ("syncnet_v2", {}),
]


@pytest.mark.parametrize(("name", "config"), CASES)
def test_network_and_options_come_back(name, config):
    with torch.device("meta"):
        state = build(name, **config).state_dict()
        layout = recognise(shapes_of(state))
        assert (layout.network, layout.config) == (name, config)
        again = build(layout.network, **layout.config).state_dict()
    assert shapes_of(again) == shapes_of(state)
    assert layout.metadata["network"] == name


def test_facts_that_callers_need():
    with torch.device("meta"):
        wav2lip, swap = (recognise(shapes_of(build(name).state_dict())) for name in ("wav2lip", "simswap_512"))
    assert wav2lip.metadata["channels"] == "BGR"
    assert "recogniser" not in wav2lip.metadata
    assert (swap.metadata["px"], swap.metadata["recogniser"]) == (512, SIMSWAP_RECOGNISER)


def test_own_generators_are_told_apart_from_experts_with_the_same_tower():
    with torch.device("meta"):
        assert recognise(shapes_of(build("wavsyncswap").state_dict())).network == "wavsyncswap"


def test_a_part_is_enough_and_foreign_tensors_are_not():
    assert recognise({"BottleNeck.0.conv1.1.weight": (8, 8, 3, 3)}).network == "simswap_224"
    assert recognise({"face_decoder_blocks.0.0.conv_block.0.weight": (4, 4, 1, 1)}).network == "wav2lip"
    assert recognise({"conv1.weight": (64, 3, 7, 7), "fc.weight": (1000, 512)}) is None
    assert recognise({"features.weight": (512,), "layer1.0.bn1.weight": (64,)}) is None
    assert recognise({}) is None


@pytest.mark.parametrize(
    ("name", "config"), [("simswap_224", {"io_norm": False, "id_dim": 512}), ("simswap_arcface", {})]
)
def test_tensors_of_too_few_dimensions_are_no_reason_to_fail(name, config):
    """Whoever loads them is told; listing them must go on."""
    with torch.device("meta"):
        state = build(name).state_dict()
    layout = recognise(dict.fromkeys(state, ()))
    assert layout.network == name
    assert config.items() <= layout.config.items()


def test_network_of_a_file(tmp_path):
    """By its metadata, else by its tensors; a file of which nothing is known, or none at all, is no error."""
    save_public(tmp_path / "w.pth", random_network("wav2lip", width=1 / 16).state_dict(), "with optimizer")
    assert network_of(tmp_path / "w.pth") == "wav2lip"
    state = {"layer1.0.se.fc.0.weight": torch.zeros(1)}
    save_weights(tmp_path / "said.safetensors", state, {"network": "lip_reader"})
    save_weights(tmp_path / "seen.safetensors", state, {})
    assert network_of(tmp_path / "said.safetensors") == "lip_reader"
    assert network_of(tmp_path / "seen.safetensors") == "simswap_arcface"
    (tmp_path / "page.pth").write_text("<!DOCTYPE html>")
    torch.save({"note": Payload(tmp_path / "ran"), "a": torch.zeros(1)}, tmp_path / "bad.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    for name in ("page.pth", "bad.pth", "list.pth", "gone.pth"):
        assert network_of(tmp_path / name) == ""
    assert not (tmp_path / "ran").exists()


def test_blocks_of_the_stages():
    assert iresnet_blocks(["layer1.0.a", "layer1.1.a", "layer3.0.b", "layer10.0.c"]) == (2, 0, 1, 0)
