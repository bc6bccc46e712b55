"""IResNet against the table of the specification, section 3.6."""

from __future__ import annotations

import pytest
import torch

from models.networks import build


@pytest.mark.parametrize(
    ("name", "parameters", "keys", "gmacs"),
    [
        ("iresnet18", 24_025_600, 187, 2.610),
        ("iresnet34", 34_139_328, 331, 4.460),
        ("iresnet50", 43_590_848, 475, 6.309),
        ("iresnet100", 65_156_160, 925, 12.090),
    ],
)
def test_size_of_public_networks(name, parameters, keys, gmacs, count_macs):
    with torch.device("meta"):
        network = build(name).eval()
        macs = count_macs(network, torch.zeros(1, 3, 112, 112))
    assert sum(p.numel() for p in network.parameters()) == parameters
    assert len(network.state_dict()) == keys
    assert macs / 1e9 == pytest.approx(gmacs, abs=1e-3)


def test_public_key_names():
    with torch.device("meta"):
        keys = set(build("iresnet18").state_dict())
    unit = ["bn1", "bn2", "bn3"]
    for name in ["conv1", "prelu", "fc", "layer4.1.conv2", "layer2.0.downsample.0", "layer1.0.prelu"]:
        assert f"{name}.weight" in keys
    for name in ["bn1", "bn2", "features", "layer1.0.downsample.1", *(f"layer3.1.{u}" for u in unit)]:
        assert f"{name}.running_var" in keys
    assert "conv1.bias" not in keys
    assert "layer1.1.downsample.0.weight" not in keys


def test_width_scales_channels_and_keeps_layout():
    thin = build("iresnet18", width=0.25, dim=128).eval()
    with torch.device("meta"):
        full = build("iresnet18")
    assert list(thin.state_dict()) == list(full.state_dict())
    assert thin.layer4[1].conv2.weight.shape == (128, 128, 3, 3)
    assert thin(torch.zeros(2, 3, 112, 112)).shape == (2, 128)


def test_scale_of_the_embedding_is_frozen():
    network = build("iresnet18", width=0.125)
    assert not network.features.weight.requires_grad
    assert network.features.bias.requires_grad


def test_gradient_reaches_the_image():
    image = torch.zeros(1, 3, 112, 112, requires_grad=True)
    build("iresnet18", width=0.125).eval()(image).sum().backward()
    assert image.grad.abs().sum() > 0


@pytest.mark.parametrize("shape", [(1, 3, 96, 96), (3, 112, 112), (1, 112, 112, 3)])
def test_wrong_shape_is_named(shape):
    with pytest.raises(ValueError, match=r"\[B,3,112,112\], got"):
        build("iresnet18", width=0.125)(torch.zeros(shape))


@pytest.mark.parametrize("config", [{"width": 0.001}, {"dim": 0}])
def test_impossible_configuration(config):
    with pytest.raises(ValueError, match="it needs four positive block counts"):
        build("iresnet18", **config)
