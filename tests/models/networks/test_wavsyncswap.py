"""The generator's options beyond its golden values."""

from __future__ import annotations

import pytest
import torch

from models.inference_form import inference_form
from models.networks import build
from models.networks.wavsyncswap import WavSyncSwap, mask_lower_half


def inputs(px: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    target, reference = torch.rand(2, 2, 3, px, px, generator=random)
    embedding = torch.nn.functional.normalize(torch.randn(2, 512, generator=random), dim=1)
    crops = torch.cat([mask_lower_half(target), reference], 1)
    return crops, torch.randn(2, 1, 80, 16, generator=random), embedding


def with_share(network: WavSyncSwap, bias: float) -> WavSyncSwap:
    """The network with the same share of drawing everywhere."""
    last = network.output_block[-1]
    torch.nn.init.zeros_(last.weight[3:])
    torch.nn.init.constant_(last.bias[3:], bias)
    return network


def test_what_is_kept_passes_only_where_no_identity_is_put_in():
    network = build("wavsyncswap", width="small", skips="adain", keep=True).eval().requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    crops, mel = torch.rand(2, 6, 96, 96, generator=generator), torch.randn(2, 1, 80, 16, generator=generator)
    vectors = torch.zeros(2, 512)
    vectors[1, 5] = 1
    before = network(crops, mel, vectors)
    for skip in network.skips:
        skip.passage.weight += 0.1
    after = network(crops, mel, vectors)
    assert (after[0] - before[0]).abs().max() > 1e-3
    assert torch.equal(after[1], before[1])


def test_keeping_without_skips_is_refused():
    with pytest.raises(ValueError, match="keep=True needs skips"):
        build("wavsyncswap", width="small", keep=True)


@pytest.mark.parametrize("px", [96, 128])
def test_blend_leaves_target_above_and_reference_below(px):
    network = build("wavsyncswap", width="small", px=px, blend=True).eval().requires_grad_(False)
    crops, mel, embedding = inputs(px)
    out = with_share(network, -100.0)(crops, mel, embedding)
    half = px // 2
    assert torch.equal(out[:, :, :half], crops[:, :3, :half])
    assert torch.equal(out[:, :, half:], crops[:, 3:, half:])


def test_blend_at_full_share_is_the_network_without_it():
    network = build("wavsyncswap", width="small", blend=True).eval().requires_grad_(False)
    plain = build("wavsyncswap", width="small").eval()
    state = with_share(network, 100.0).state_dict()
    for key in ("output_block.2.weight", "output_block.2.bias"):
        state[key] = state[key][:3]
    plain.load_state_dict(state)
    crops, mel, embedding = inputs(96)
    assert torch.allclose(network(crops, mel, embedding), plain(crops, mel, embedding), atol=1e-6)


def test_half_precision_weights_leave_kept_pixels_exact():
    """Blending takes the crops as they came, not rounded to the weights' type."""
    network = build("wavsyncswap", width="small", blend=True).eval().requires_grad_(False)
    network = inference_form(with_share(network, -100.0), torch.bfloat16)
    crops, mel, embedding = inputs(96)
    out = network.modulated(crops, mel.bfloat16(), network.styles(embedding))
    assert torch.equal(out[:, :, :48], crops[:, :3, :48])
