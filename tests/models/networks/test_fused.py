"""Steps joined for graphics cards give what they give one by one; on a CPU where they run there, else on a card."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from models.inference_form import inference_form
from models.networks import build, fused
from models.networks.blocks import ConvBlock, IdentityBlock, InstanceNorm, apply_style
from models.networks.wav2lip import Wav2Lip
from models.networks.wavsyncswap import IdentitySkip

TYPES = (torch.float32, torch.bfloat16, torch.float16)
card = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture
def as_on_a_card(monkeypatch):
    """The way of a graphics card, on the CPU."""
    monkeypatch.setattr(fused, "joining", lambda x: not torch.is_grad_enabled())
    monkeypatch.setattr("models.networks.blocks.joining", fused.joining)


def maps(*size: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(size).to(dtype).contiguous(memory_format=torch.channels_last)


def three_faces() -> list[torch.Tensor]:
    """Inputs of a generator of 96 pixels: crops, sound, identity."""
    random = torch.Generator().manual_seed(0)
    crops = torch.rand(3, 6, 96, 96, generator=random)
    vector = nn.functional.normalize(torch.randn(1, 512, generator=random))
    return [crops, torch.randn(3, 1, 80, 16, generator=random), vector]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("width, size", [(1, (5, 4)), (1, (12, 12)), (3, (8, 9)), (3, (17, 11))])
@pytest.mark.parametrize("channels", [1, 3, 6, 8])  # words of all lengths
def test_reflection_in_channels_last_order_is_the_plain_one(dtype, width, size, channels):
    x = maps(3, channels, *size, dtype=dtype)[1:]  # does not begin where its memory does
    made = fused.reflected(x, width)
    assert made.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(made, nn.functional.pad(x, (width,) * 4, mode="reflect"))


@pytest.mark.parametrize("size", [(3, 9), (4, 4), (7, 7)])
def test_small_maps_and_the_other_order_are_padded_too(size, as_on_a_card):
    for width in range(1, min(4, *size)):
        pad, plain = fused.ReflectionPad(width), nn.ReflectionPad2d(width)
        for x in (maps(2, 4, *size), torch.randn(2, 4, *size)):
            with torch.inference_mode():
                assert torch.equal(pad(x), plain(x))


@pytest.mark.parametrize("offset", [0.0, 30.0])
@pytest.mark.parametrize("dtype, bound", [(torch.float32, 2e-5), (torch.bfloat16, 2**-8), (torch.float16, 2**-11)])
def test_joined_norm_is_as_exact_as_its_type(dtype, bound, offset):
    torch.manual_seed(0)
    x = (maps(3, 8, 12, 12) + offset).to(dtype)
    style = torch.randn(3, 2, 8, 1, 1)
    expected = apply_style(InstanceNorm()(x.double()), style.double())
    made = fused.normalised_joined(x, 1 + style[:, 0], style[:, 1])
    assert made.dtype == dtype and made.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(made.double(), expected, atol=1e-3 if offset else 2e-5, rtol=bound)


def test_joined_norm_of_flat_maps_is_the_shift(as_on_a_card):
    style = torch.randn(1, 2, 4, 1, 1)
    for dtype in TYPES:
        made = fused.normalised_joined(torch.full((2, 4, 8, 8), 7.3, dtype=dtype), 1 + style[:, 0], style[:, 1])
        torch.testing.assert_close(made.float(), style[:, 1].expand(2, 4, 8, 8), atol=2e-2, rtol=2e-2)


def test_blocks_and_networks_give_the_same_with_joined_steps(as_on_a_card):
    torch.manual_seed(0)
    block, skip = IdentityBlock(8, 5).eval(), IdentitySkip(8, 5, keep=True).eval()
    network = inference_form(build("wavsyncswap", width="small", skips="adain", keep=True), torch.float32)
    x, vector, one = maps(2, 8, 12, 10), torch.randn(1, 5), torch.ones(1, 1, 1, 1)
    inputs = three_faces()
    expected = block(x, vector), skip(x, skip.style(vector), one), network(*inputs)  # gradients are on
    before = x.clone()
    with torch.inference_mode():
        made = block(x, vector), skip(x, skip.style(vector), one), network(*inputs)
    torch.testing.assert_close(made, expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(x, before)


@pytest.mark.parametrize("inputs, stride, residual", [(6, 1, False), (8, (2, 1), False), (8, 1, True), (1, 3, False)])
def test_a_folded_block_is_one_convolution(inputs, stride, residual, as_on_a_card, monkeypatch):
    def stand_in(x, weight, bias, *options):
        assert x.shape[1] % 8 == 0
        return torch.relu(nn.functional.conv2d(x, weight, bias, *options))

    def with_sum(x, weight, z, alpha, bias, *options):
        return torch.relu(nn.functional.conv2d(x, weight, bias, *options) + alpha * z)

    monkeypatch.setattr(fused, "_offered", lambda device, dtype: True)
    monkeypatch.setattr(torch, "cudnn_convolution_relu", stand_in)
    monkeypatch.setattr(torch, "cudnn_convolution_add_relu", with_sum)
    block = ConvBlock(inputs, 8, 3, stride, 1, residual).eval()
    block.conv_block[1].running_mean.fill_(0.3)
    x = maps(2, inputs, 9, 8)
    with torch.inference_mode():
        assert not fused.joins_relu(x, *block.conv_block)  # the norm is still there
    expected = block(x)
    inference_form(nn.Sequential(block), torch.float32)
    with torch.inference_mode():
        assert fused.joins_relu(x, *block.conv_block)
        torch.testing.assert_close(block(x), expected, atol=1e-5, rtol=1e-5)
        assert not fused.joins_relu(x.bfloat16(), *block.conv_block)  # under autocast: not the weights' type


def test_float32_and_other_devices_have_no_joined_convolution():
    assert not fused._offered(torch.device("cuda"), torch.float32)
    folded = ConvBlock(8, 8, 3).conv_block[0]
    with torch.inference_mode():
        assert not fused.joins_relu(maps(1, 8, 5, 5), folded, nn.Identity())


@card
@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("width", ["small", "base"])
def test_pictures_on_a_card_are_those_of_single_steps(width, dtype, monkeypatch):
    torch.manual_seed(0)
    options = {"skips": "adain", "blend": True, "keep": True} if width == "small" else {}
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    network = inference_form(build("wavsyncswap", width=width, **options), dtype).cuda()
    crops, mel, vector = (tensor.cuda() for tensor in three_faces())
    crops = crops.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        styles = network.styles(vector)
        made = network.modulated(crops, mel.to(dtype), styles)
        monkeypatch.setattr(fused, "joining", lambda x: False)
        monkeypatch.setattr("models.networks.blocks.joining", fused.joining)
        expected = network.modulated(crops, mel.to(dtype), styles)
    network.float()
    with torch.inference_mode():
        exact = network.modulated(crops, mel, styles)
    assert (made - exact).abs().mean() < 1.1 * (expected - exact).abs().mean() + 1e-4


@card
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_every_convolution_of_wav2lip_is_offered_on_a_card(dtype, monkeypatch):
    if not fused._offered(torch.device("cuda", torch.cuda.current_device()), dtype):
        pytest.skip("this card has no joined convolutions")
    torch.manual_seed(0)
    network = inference_form(Wav2Lip(), dtype).cuda()
    mel = torch.randn(2, 1, 80, 16, device="cuda", dtype=dtype)
    faces = torch.rand(2, 6, 96, 96, device="cuda", dtype=dtype)
    with torch.inference_mode():
        made = network(mel, faces)
        monkeypatch.setattr(fused, "joining", lambda x: False)
        assert (made - network(mel, faces)).abs().mean() < 1 / 255
