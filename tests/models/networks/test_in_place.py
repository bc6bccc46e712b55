"""Inference form without gradients (in place, one pass) against the same layers with gradients."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models.inference_form import inference_form
from models.networks.blocks import ConvBlock, IdentityBlock, InstanceNorm, TransposedBlock, apply_style, normalised

BLOCKS = {
    "conv": lambda: ConvBlock(8, 16, 3, 1, 1),
    "strided": lambda: ConvBlock(8, 16, 3, (2, 1), 1),
    "residual": lambda: ConvBlock(8, 8, 3, 1, 1, residual=True),
    "transposed": lambda: TransposedBlock(8, 16),
    "doubling": lambda: TransposedBlock(8, 16, stride=2),
    "from one pixel": lambda: TransposedBlock(8, 16, 3, 1, 0),
}


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks_give_the_same_in_place_and_plain(name):
    torch.manual_seed(0)
    block = inference_form(nn.Sequential(BLOCKS[name]()), torch.float32)
    x = torch.randn(2, 8, 12, 10).contiguous(memory_format=torch.channels_last)
    before, expected = x.clone(), block(x)  # gradients are on
    with torch.inference_mode():
        torch.testing.assert_close(block(x), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(x, before)


@pytest.mark.parametrize("cached", [500, 1 << 20])  # in parts, and whole
@pytest.mark.parametrize("kernel, padding, size", [(3, 1, (7, 6)), (3, 0, (7, 6)), (3, 0, (1, 1)), (4, 0, (1, 1))])
def test_blocks_give_the_same_as_code_for_a_cpu(cached, kernel, padding, size, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr("models.networks.blocks.CACHED", cached)
    up, block = TransposedBlock(8, 12, kernel, 1, padding).eval(), IdentityBlock(12, 5)
    x, vector = torch.randn(2, 8, *size), torch.randn(1, 5)
    with torch.inference_mode():
        expected = up(x), block(up(x), vector)
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)  # the way of a compiler, uncompiled
        made = up(x), block(expected[0], vector)
    torch.testing.assert_close(made, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("side", [12, 40])  # both ways of a CPU
@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("offset", [0.0, 30.0])  # a mean far from 0 must not eat the variance
@pytest.mark.parametrize("dtype, bound", [(torch.float32, 2e-3), (torch.bfloat16, 0.15)])
def test_norm_and_style_in_one_equal_both_apart(side, rows, offset, dtype, bound, compiled, monkeypatch):
    torch.manual_seed(0)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: compiled)  # the way of a compiler, uncompiled
    x = (torch.randn(3, 6, side, side) + offset).to(dtype).contiguous(memory_format=torch.channels_last)
    style = torch.randn(rows, 2, 6, 1, 1)
    expected = apply_style(InstanceNorm()(x.float()), style)
    with torch.inference_mode():
        made = normalised(x, style)
    assert made.dtype == dtype
    assert (made.float() - expected).abs().max() < bound * (1 if offset == 0 else 8)
