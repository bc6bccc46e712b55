"""Wav2Lip, SimSwap and the cascade behind the generator's interface."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.checkpoints import save_weights
from models.generator import FaceGenerator, load_generator
from models.geometry import GEOMETRY_ID
from models.identity import FaceEmbedding, load_recogniser
from models.layouts import SIMSWAP_RECOGNISER
from models.networks.wavsyncswap import mask_lower_half
from models.regions import region
from models.systems import Cascade, SimSwapSystem, Wav2LipSystem
from tests.models.public_files import CONTAINERS, random_network, save_public
from tests.models.swapping import embedding as other_embedding

SOURCE = other_embedding(SIMSWAP_RECOGNISER)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """The files that a user has, with narrow networks in the public layouts."""
    folder = tmp_path_factory.mktemp("weights")
    save_public(folder / "wav2lip.pth", random_network("wav2lip", width=1 / 8).state_dict(), "with optimizer legacy")
    save_public(folder / "latest_net_G.pth", random_network("simswap_224", width=1 / 8).state_dict(), "flat legacy")
    return folder


@pytest.fixture(scope="module")
def systems(files) -> dict[str, FaceGenerator]:
    talk, swap = (load_generator(files / name, precision="fp32") for name in ("wav2lip.pth", "latest_net_G.pth"))
    swap = replace(swap, side=96)
    return {"wav2lip": talk, "simswap": swap, "cascade": Cascade.of([swap, talk])}


def source_of(name: str) -> FaceEmbedding | None:
    return None if name == "wav2lip" else SOURCE


def inputs(count: int = 3, side: int = 100) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    return torch.rand(count, 3, side, side, generator=random), torch.randn(count, 1, 80, 16, generator=random)


@pytest.mark.parametrize("name", ["wav2lip", "simswap", "cascade"])
def test_count_size_range_and_batches(systems, name):
    system = systems[name]
    crops, mel = inputs()
    seen: list[tuple[int, int]] = []
    whole = system.generate(crops, mel, source_of(name))
    parts = system.generate(crops, mel, source_of(name), batch=2, progress=lambda *done: seen.append(done))
    assert whole.shape == (3, 3, system.px, system.px)
    assert whole.dtype == torch.float32
    assert 0 <= whole.min()
    assert whole.max() <= 1
    torch.testing.assert_close(parts, whole, atol=1e-4, rtol=0)
    assert seen == [(2, 3), (3, 3)]
    assert system.generate(crops[:0], mel[:0], source_of(name)).shape == (0, 3, system.px, system.px)
    with pytest.raises(ValueError, match="3 crops, 2 mel windows"):
        system.generate(crops, mel[:2], source_of(name))


def test_who_hears_and_who_swaps(systems):
    crops, mel = inputs()
    other = FaceEmbedding(np.roll(SOURCE.vector, 9), SIMSWAP_RECOGNISER)
    for name, hears, swaps in [("wav2lip", True, False), ("simswap", False, True), ("cascade", True, True)]:
        system = systems[name]
        base = system.generate(crops, mel, source_of(name), batch=1)  # else the clock has a say in how it is rounded
        change = (system.generate(crops, -mel, source_of(name), batch=1) - base).abs().max()
        assert change > 1e-3 if hears else change == 0
        assert system.hears == hears
        assert system.takes_identity == swaps
        assert system.keeps_identity != swaps
        if swaps:
            assert (system.generate(crops, mel, other) - base).abs().max() > 1e-4


def test_wav2lip_sees_bgr_its_own_frame_and_draws_only_the_face_box(systems):
    system = systems["wav2lip"]
    crops, mel = inputs(2, system.px)
    made = system.generate(crops, mel, None, references=torch.rand(2, 3, 96, 96))
    faces = system.region.cut(crops, 96).flip(1)
    with torch.inference_mode():
        drawn = system.network(mel, torch.cat([mask_lower_half(faces), faces], 1))
    expected = system.region.put(drawn.flip(1), crops)
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=0)
    assert torch.equal(made[..., :20], crops[..., :20])  # beside the face


def test_the_cascade_is_one_after_the_other(systems):
    talk, swap = systems["wav2lip"], replace(systems["simswap"], side=144)
    cascade = Cascade.of([talk, swap])
    assert cascade.px == talk.px == swap.px == 144
    crops, mel = inputs(2, 144)
    after = swap.generate(talk.generate(crops, mel, None), mel, SOURCE)
    torch.testing.assert_close(cascade.generate(crops, mel, SOURCE), after, atol=1e-5, rtol=0)
    assert [id(network) for network in cascade.network] == [id(talk.network), id(swap.network)]
    assert replace(cascade, swap=replace(swap, side=224)).px == 224  # SimSwap's own detail is kept, too


@pytest.mark.parametrize("container", CONTAINERS)
def test_every_public_container_loads_and_draws_the_same(tmp_path, container):
    """Generators of each layout and both kinds of recognisers, as users load them."""
    crops, mel = inputs(1, 112)
    for name in ("wav2lip", "simswap_224", "simswap_512", "simswap_arcface", "iresnet18"):
        state, drawn = random_network(name, width=1 / 16).state_dict(), []
        for kind in ("flat", container):
            path = save_public(tmp_path / "weights.pth", state, kind)
            if name in ("simswap_arcface", "iresnet18"):
                drawn.append(load_recogniser(path).embed(crops))
            else:
                drawn.append(load_generator(path, precision="fp32").generate(crops, mel, source_of(name)))
        torch.testing.assert_close(drawn[1], drawn[0], atol=0.02 if container == "half" else 0, rtol=0)


def test_loading_two_files_is_the_cascade_in_either_order(files):
    for names in (["wav2lip.pth", "latest_net_G.pth"], ["latest_net_G.pth", "wav2lip.pth"]):
        loaded = load_generator([files / name for name in names], precision="fp32")
        assert isinstance(loaded, Cascade)
        assert (loaded.px, loaded.recogniser, loaded.mel_lag) == (224, SIMSWAP_RECOGNISER, 0)
    with pytest.raises(ValueError, match=r"one is Wav2Lip and the other SimSwap; got wav2lip \+ wav2lip"):
        load_generator([files / "wav2lip.pth"] * 2)
    assert isinstance(load_generator([files / "wav2lip.pth"]), Wav2LipSystem)


def test_weights_trained_here_say_their_geometry_channels_and_recogniser(tmp_path):
    """Files of the same networks trained on our crops: whole crop, RGB, another recogniser, another side."""
    common = {"geometry": GEOMETRY_ID, "channels": "RGB", "mel_lag": -1}
    talk = {"network": "wav2lip", "config": {"width": 1 / 8}, **common}
    save_weights(tmp_path / "t.safetensors", random_network("wav2lip", width=1 / 8).state_dict(), talk)
    config = {"width": 1 / 8, "id_dim": 128}
    swap = {"network": "simswap_224", "config": config, "px": 96, "recogniser": "ours-v1", **common}
    save_weights(tmp_path / "s.safetensors", random_network("simswap_224", **config).state_dict(), swap)
    cascade = load_generator([tmp_path / "t.safetensors", tmp_path / "s.safetensors"], precision="fp32")
    assert isinstance(cascade, Cascade)
    assert (cascade.px, cascade.recogniser, cascade.mel_lag) == (96, "ours-v1", -1)
    crops, mel = inputs(2, 96)
    vector = np.zeros(128, np.float32)
    vector[1] = 1
    made = cascade.generate(crops, mel, FaceEmbedding(vector, "ours-v1"))
    with torch.inference_mode():
        talking = cascade.talk.network(mel, torch.cat([mask_lower_half(crops), crops], 1))
        expected = cascade.swap.network(talking, torch.from_numpy(vector)[None])
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=0)


def test_normalised_variant_is_clipped(tmp_path):
    state = random_network("simswap_224", width=1 / 8).state_dict()
    config = {"width": 1 / 8, "io_norm": True}
    save_weights(tmp_path / "s.safetensors", state, {"network": "simswap_224", "config": config})
    system = load_generator(tmp_path / "s.safetensors", precision="fp32")
    assert system.network.io_norm
    crops, mel = inputs(1, 224)
    made = system.generate(crops, mel, SOURCE)
    assert 0 <= made.min() < made.max() <= 1


@pytest.mark.parametrize("name", ["wav2lip.pth", "latest_net_G.pth"])
def test_bfloat16_stays_near_float32(files, name):
    crops, mel = inputs(1)
    exact, rounded = (load_generator(files / name, precision=p) for p in ("fp32", "bf16"))
    source = SOURCE if exact.takes_identity else None
    difference = exact.generate(crops, mel, source) - rounded.generate(crops, mel, source)
    assert difference.abs().mean() < 4 / 255


def test_wrong_identities_are_explained(systems):
    with pytest.raises(ValueError, match=r"Wav2Lip moves the lips and keeps.*load Wav2Lip together with SimSwap"):
        systems["wav2lip"].check_identity(SOURCE)
    systems["wav2lip"].check_identity(None)
    for name in ("simswap", "cascade"):
        with pytest.raises(ValueError, match="SimSwap puts in another identity and there is none"):
            systems[name].check_identity(None)
        with pytest.raises(ValueError, match=r"recogniser 'r1', but SimSwap understands its own.*arcface_checkpoint"):
            systems[name].check_identity(other_embedding("r1"))
        systems[name].check_identity(SOURCE)


def test_files_of_other_networks_are_named(tmp_path):
    save_public(tmp_path / "syncnet.pth", random_network("syncnet_expert").state_dict(), "flat")
    with pytest.raises(ValueError, match=r"syncnet.pth holds sync expert, not a generator. Choose .*wav2lip.pth"):
        load_generator(tmp_path / "syncnet.pth")
    state = random_network("wav2lip", width=1 / 8).state_dict()
    del state["output_block.1.bias"]
    save_public(tmp_path / "part.pth", state, "flat")
    with pytest.raises(ValueError, match=r"part.pth does not fit Wav2Lip: 1 missing \(output_block.1.bias\)"):
        load_generator(tmp_path / "part.pth")


def test_regions_of_the_public_systems(systems):
    assert isinstance(systems["simswap"], SimSwapSystem)
    assert systems["wav2lip"].px == region("wav2lip-box").side_here(96)
    assert systems["simswap"].px == 96
