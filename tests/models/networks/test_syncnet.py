"""The sync expert against the specification, section 3.3."""

from __future__ import annotations

import pytest
import torch

from models.networks import build
from models.networks.syncnet import frames_to_expert, sync_probability


def test_size_and_layout(count_macs):
    with torch.device("meta"):
        network = build("syncnet_expert").eval()
        macs = count_macs(network, torch.zeros(1, 1, 80, 16), torch.zeros(1, 15, 48, 96))
    state = network.state_dict()
    assert sum(p.numel() for p in network.parameters()) == 16_435_072
    assert len(state) == 217
    assert len(network.face_encoder) == 17
    assert len(network.audio_encoder) == 14
    assert state["face_encoder.0.conv_block.0.weight"].shape == (32, 15, 7, 7)
    assert "audio_encoder.13.conv_block.1.running_mean" in state
    assert macs / 1e9 == pytest.approx(1.210, abs=1e-3)


def test_embeddings_are_unit_vectors(golden):
    network = golden.fill(build("syncnet_expert"))
    with torch.no_grad():
        audio, face = network(golden.normal(1, 2, 1, 80, 16), golden.uniform(3, 2, 15, 48, 96))
    for vectors in (audio, face):
        assert vectors.shape == (2, 512)
        torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))
        assert vectors.min() >= 0


def test_probability_stays_inside_the_open_interval():
    vector = torch.tensor([[1.0000004, 0.0]])
    assert 0 < sync_probability(vector, vector) < 1
    assert 0 < sync_probability(vector, torch.tensor([[0.0, 1.0]])) < 1


def test_frames_to_expert_order_and_half():
    windows = torch.rand(2, 5, 3, 96, 96)
    frames = frames_to_expert(windows)
    assert frames.shape == (2, 15, 48, 96)
    assert torch.equal(frames[:, 3], windows[:, 1, 2, 48:])  # blue of the second frame comes first
    assert torch.equal(frames[:, 14], windows[:, 4, 0, 48:])


def test_frames_to_expert_resizes_the_whole_crop_first():
    windows = torch.zeros(1, 5, 3, 192, 192, requires_grad=True)
    with torch.no_grad():
        windows[..., 96:, :] = 1
    frames = frames_to_expert(windows)
    assert frames.shape == (1, 15, 48, 96)
    assert frames[:, :, 2:].min() == 1
    frames.sum().backward()
    assert windows.grad.abs().sum() > 0


def test_wrong_shapes_are_named():
    network = build("syncnet_expert").eval()
    with pytest.raises(ValueError, match=r"mel \[B,1,80,16\], got \[1, 80, 16\]"):
        network(torch.zeros(1, 80, 16), torch.zeros(1, 15, 48, 96))
    with pytest.raises(ValueError, match=r"frames \[B,15,48,96\], got"):
        network(torch.zeros(1, 1, 80, 16), torch.zeros(1, 15, 96, 96))
    with pytest.raises(ValueError, match=r"\[B,5,3,H,W\]"):
        frames_to_expert(torch.zeros(5, 3, 96, 96))
