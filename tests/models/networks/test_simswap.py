"""SimSwap's generator and recogniser against the specification, sections 3.4 and 3.8."""

from __future__ import annotations

import pytest
import torch

from models.networks import build
from models.networks.simswap import IMAGENET_MEAN, IMAGENET_STD


@pytest.mark.parametrize(
    ("name", "side", "parameters", "keys", "gmacs"),
    [
        ("simswap_224", 224, 55_051_779, 123, 48.12),
        ("simswap_224", 96, 55_051_779, 123, 8.846),
        ("simswap_512", 512, 55_079_427, 137, 70.12),
    ],
)
def test_size(name, side, parameters, keys, gmacs, count_macs):
    with torch.device("meta"):
        network = build(name).eval()
        macs = count_macs(network, torch.zeros(1, 3, side, side), torch.zeros(1, 512))
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert len(network.state_dict()) == keys
    assert macs / 1e9 == pytest.approx(gmacs, abs=6e-3)


def test_public_key_names():
    with torch.device("meta"):
        plain, deep = (build(name).state_dict() for name in ("simswap_224", "simswap_512"))
    assert plain["first_layer.1.weight"].shape == (64, 3, 7, 7)
    assert plain["down3.0.weight"].shape == (512, 256, 3, 3)
    assert plain["BottleNeck.8.style2.linear.weight"].shape == (1024, 512)
    assert plain["up1.1.weight"].shape == (64, 128, 3, 3)
    assert {"first_layer.2.running_var", "down1.1.bias", "up3.2.running_mean", "last_layer.1.bias"} <= set(plain)
    assert deep["down0.0.weight"].shape == (64, 32, 3, 3)
    assert deep["up0.1.weight"].shape == (32, 64, 3, 3)
    assert set(plain) < set(deep)


def test_both_flags_have_the_same_keys_and_narrow_ones_too():
    with torch.device("meta"):
        keys = list(build("simswap_224").state_dict())
        assert list(build("simswap_224", io_norm=True).state_dict()) == keys
        assert list(build("simswap_224", width=0.375, id_dim=128).state_dict()) == keys


def test_a_narrow_network_costs_about_as_much_as_our_small_one(count_macs):
    with torch.device("meta"):
        network = build("simswap_224", width=0.375).eval()
        macs = count_macs(network, torch.zeros(1, 3, 96, 96), torch.zeros(1, 512))
    assert macs / 1e9 == pytest.approx(1.25, abs=0.1)


@pytest.mark.parametrize(("name", "sides"), [("simswap_224", (64, 96, 104)), ("simswap_512", (64, 112))])
def test_any_side_that_halves_evenly(name, sides, golden):
    network = golden.fill(build(name, width=0.125))
    for side in sides:
        with torch.no_grad():
            output = network(torch.rand(1, 3, side, side), golden.identity()[:1])
        assert output.shape == (1, 3, side, side)
        assert 0 <= output.min()
        assert output.max() <= 1


def test_normalised_variant_is_the_other_without_tanh_on_normalised_pictures(golden):
    plain, normed = (golden.fill(build("simswap_224", width=0.125, io_norm=flag)) for flag in (False, True))
    faces = golden.uniform(5, 1, 3, 64, 64)
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.no_grad():
        raw = torch.atanh(2 * plain((faces - mean) / std, golden.identity()[:1]).double() - 1).float()
        found = normed(faces, golden.identity()[:1])
    inside = raw.abs() < 3  # further out tanh has rounded too much away
    assert inside.float().mean() > 0.5
    torch.testing.assert_close(found[inside], (raw * std + mean)[inside], atol=1e-3, rtol=1e-3)


def test_identity_reaches_the_picture(golden):
    network = golden.fill(build("simswap_224", width=0.125))
    faces = golden.uniform(5, 1, 3, 64, 64).expand(2, -1, -1, -1)
    with torch.no_grad():
        one, other = network(faces, golden.identity())
    assert (one - other).abs().max() > 1e-3


def test_sides_that_do_not_halve_evenly_are_named():
    with torch.device("meta"):
        with pytest.raises(ValueError, match=r"divisible by 8, got \[1, 3, 100, 96\]"):
            build("simswap_224")(torch.zeros(1, 3, 100, 96), torch.zeros(1, 512))
        with pytest.raises(ValueError, match="divisible by 16"):
            build("simswap_512")(torch.zeros(1, 3, 104, 104), torch.zeros(1, 512))


def test_size_of_the_recogniser(count_macs):
    with torch.device("meta"):
        network = build("simswap_arcface").eval()
        macs = count_macs(network, torch.zeros(1, 3, 112, 112))
        narrow = build("simswap_arcface", width=0.25, dim=128)
        with pytest.raises(ValueError, match=r"\[B,3,112,112\], got \[1, 3, 224, 224\]"):
            network(torch.zeros(1, 3, 224, 224))
    state = network.state_dict()
    assert sum(p.numel() for p in network.parameters()) == 52_193_215
    assert len(state) == 796
    assert macs / 1e9 == pytest.approx(7.48, abs=6e-3)
    assert state["layer3.22.se.fc.0.weight"].shape == (16, 256)
    assert state["layer1.0.prelu.weight"].shape == (1,)
    assert {"layer2.0.downsample.1.running_var", "bn3.running_mean", "fc.bias"} <= set(state)
    assert "layer1.0.downsample.0.weight" not in state
    assert list(narrow.state_dict()) == list(state)
