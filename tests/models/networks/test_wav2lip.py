"""Wav2Lip's generator and discriminator against the specification, sections 3.1 and 3.2."""

from __future__ import annotations

import pytest
import torch

from models.networks import build
from models.networks.wav2lip import fold_time


def test_size_and_layout(count_macs):
    with torch.device("meta"):
        network = build("wav2lip").eval()
        macs = count_macs(network, torch.zeros(1, 1, 80, 16), torch.zeros(1, 6, 96, 96))
    state = network.state_dict()
    assert sum(p.numel() for p in network.parameters()) == 36_298_035
    assert len(state) == 352
    assert len(network.audio_encoder) == 13
    assert state["face_encoder_blocks.2.3.conv_block.0.weight"].shape == (64, 64, 3, 3)
    assert state["face_decoder_blocks.1.0.conv_block.0.weight"].shape == (1024, 512, 3, 3)  # transposed: inputs first
    assert state["face_decoder_blocks.6.2.conv_block.1.running_var"].shape == (64,)
    assert {"output_block.0.conv_block.0.bias", "output_block.1.weight"} <= set(state)
    assert macs / 1e9 == pytest.approx(3.967, abs=1e-3)


def test_size_and_layout_of_the_discriminator(count_macs):
    with torch.device("meta"):
        network = build("wav2lip_disc_qual").eval()
        macs = count_macs(network, torch.zeros(1, 3, 96, 96))
    state = network.state_dict()
    assert sum(p.numel() for p in network.parameters()) == 14_113_793
    assert len(state) == 28
    assert {"face_encoder_blocks.6.1.conv_block.0.weight", "binary_pred.0.bias"} <= set(state)
    assert macs / 1e9 == pytest.approx(1.256, abs=1e-3)


def test_width_scales_channels_and_keeps_layout(count_macs):
    with torch.device("meta"):
        full, half = build("wav2lip"), build("wav2lip", width=0.5).eval()
        macs = count_macs(half, torch.zeros(1, 1, 80, 16), torch.zeros(1, 6, 96, 96))
    assert list(half.state_dict()) == list(full.state_dict())
    assert macs / 1e9 == pytest.approx(1.02, abs=0.1)  # about the cost of our small generator


def test_windows_are_folded_time_first(golden):
    """Index t * B + b: another order would give frames the sound of other people (spec A9)."""
    network = golden.fill(build("wav2lip", width=0.125))
    mel, faces = golden.normal(1, 2, 3, 1, 80, 16), golden.uniform(2, 2, 6, 3, 96, 96)
    with torch.no_grad():
        output = network(mel, faces)
        single = network(mel[1, 2][None], faces[1:, :, 2])
        folded = network(torch.cat([mel[:, t] for t in range(3)]), faces)
    assert output.shape == (2, 3, 3, 96, 96)
    torch.testing.assert_close(output[1:, :, 2], single, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(output, folded)
    assert torch.equal(fold_time(faces)[2 * 2 + 1], faces[1, :, 2])


def test_the_discriminator_sees_the_lower_half_only(golden):
    network = golden.fill(build("wav2lip_disc_qual"))
    faces = golden.uniform(4, 1, 3, 96, 96)
    with torch.no_grad():
        before = network(faces)
        faces[:, :, :48] = 0
        assert torch.equal(network(faces), before)
        faces[:, :, 48:] = 0
        assert not torch.equal(network(faces), before)


def test_sound_and_both_pictures_reach_the_output(golden):
    network = golden.fill(build("wav2lip", width=0.125))
    mel, faces = golden.normal(1, 1, 1, 80, 16), golden.uniform(2, 1, 6, 96, 96)
    with torch.no_grad():
        base = network(mel, faces)
        assert (network(-mel, faces) - base).abs().max() > 1e-4
        for channels in (slice(0, 3), slice(3, 6)):
            other = faces.clone()
            other[:, channels] = 0
            assert (network(mel, other) - base).abs().max() > 1e-4


def test_wrong_shapes_are_named():
    with torch.device("meta"):
        network = build("wav2lip").eval()
        with pytest.raises(ValueError, match=r"faces \[B,6,96,96\], got \[1, 6, 128, 128\]"):
            network(torch.zeros(1, 1, 80, 16), torch.zeros(1, 6, 128, 128))
        with pytest.raises(ValueError, match=r"mel \[B,1,80,16\], got \[1, 80, 16\]"):
            network(torch.zeros(1, 80, 16), torch.zeros(1, 6, 96, 96))
        with pytest.raises(ValueError, match=r"faces \[B,3,96,96\], got \[1, 3, 48, 96\]"):
            build("wav2lip_disc_qual")(torch.zeros(1, 3, 48, 96))
