"""SyncNet v2 against the specification, section 3.7."""

from __future__ import annotations

import pytest
import torch

from models.networks import build


def test_size_and_layout(count_macs):
    with torch.device("meta"):
        network = build("syncnet_v2").eval()
        audio = count_macs(network.netcnnaud, torch.zeros(1, 1, 13, 20)) + count_macs(
            network.netfcaud, torch.zeros(1, 512)
        )
        whole = count_macs(network, torch.zeros(1, 1, 13, 20), torch.zeros(1, 3, 5, 224, 224))
    state = network.state_dict()
    assert sum(p.numel() for p in network.parameters()) == 13_631_616
    assert len(state) == 102
    assert state["netcnnaud.18.weight"].shape == (512, 256, 5, 4)
    assert state["netcnnlip.0.weight"].shape == (96, 3, 5, 7, 7)
    assert state["netcnnlip.18.weight"].shape == (512, 256, 1, 6, 6)
    assert state["netfclip.3.weight"].shape == (1024, 512)
    assert {"netcnnaud.15.running_var", "netcnnlip.12.running_var", "netfcaud.1.running_var"} <= set(state)
    assert audio / 1e9 == pytest.approx(0.244, abs=1e-3)
    assert (whole - audio) / 1e9 == pytest.approx(1.558, abs=1e-3)


def test_each_side_alone_is_the_pair(golden):
    network = golden.fill(build("syncnet_v2"))
    mfcc, frames = golden.normal(8, 1, 1, 13, 20), 255 * golden.uniform(7, 1, 3, 5, 224, 224)
    with torch.no_grad():
        audio, lip = network(mfcc, frames)
        assert torch.equal(audio, network.forward_aud(mfcc))
        assert torch.equal(lip, network.forward_lip(frames))
    assert audio.shape == lip.shape == (1, 1024)


def test_wrong_shapes_are_named():
    with torch.device("meta"):
        network = build("syncnet_v2").eval()
        with pytest.raises(ValueError, match=r"mfcc \[B,1,13,20\], got \[1, 13, 20\]"):
            network.forward_aud(torch.zeros(1, 13, 20))
        with pytest.raises(ValueError, match=r"frames \[B,3,5,224,224\], got \[1, 5, 3, 224, 224\]"):
            network.forward_lip(torch.zeros(1, 5, 3, 224, 224))
