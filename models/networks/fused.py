"""Steps of a forward pass joined by hand, for graphics cards without a compiler that would join them.

Such a card waits for memory wherever no convolution runs: a step costs what it reads and writes, several times that
where numbers per channel are spread over a map, and twice more where maps change between channels-last order, which
convolutions need, and the other one. Nothing here asks for gradients or changes what it is given.
"""

from __future__ import annotations

import functools
import math
from typing import cast

import torch
from torch import Tensor, nn

WORDS = {4: torch.int32, 8: torch.int64}  # bytes to what is copied as one number
ALIGNED = 8  # numbers of channels, multiples of it, with which cuDNN has joined convolutions for every shape


def joining(x: Tensor) -> bool:
    """Whether `x` is on a graphics card, no compiler is at work and no gradient is asked for."""
    return x.is_cuda and not torch.is_grad_enabled() and not torch.compiler.is_compiling()


class ReflectionPad(nn.ReflectionPad2d):
    """`nn.ReflectionPad2d` of one width on all sides that keeps channels-last order on a graphics card.

    torch's own gives the other order there, a convolution turns it back, and both together cost as much as the
    convolution.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, C, H + 2 * width, W + 2 * width]."""
        width = self.padding[0]
        if joining(x) and x.is_contiguous(memory_format=torch.channels_last) and min(x.shape[2:]) > 2 * width + 1:
            return reflected(x, width)
        return super().forward(x)


def reflected(x: Tensor, width: int) -> Tensor:
    """Reflection padding in channels-last order: x [B, C, H, W] in this order, H and W above 2 * width + 1."""
    batch, channels, height, across = x.shape
    size = (batch, channels, height + 2 * width, across + 2 * width)
    padded = torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    pixels = _words(padded)
    pixels[:, width : width + height, width : width + across] = _words(x)
    _mirror(pixels[:, :, width : width + across], width)
    _mirror(pixels.transpose(1, 2), width)
    return padded


def _words(x: Tensor) -> Tensor:
    """Channels-last maps [B, C, H, W] as [B, H, W, words]: a copy's time goes by how many numbers it moves."""
    pixels = x.permute(0, 2, 3, 1)
    own = x.element_size()
    size = math.gcd(8, own * x.shape[1], own * x.storage_offset())
    return pixels.view(WORDS[size]) if size > own and size in WORDS else pixels


def _mirror(lines: Tensor, width: int) -> None:
    """Fill the outer `width` lines of axis 1 on both sides with those as far inside its first and last inner one."""
    last = lines.shape[1] - 1 - width
    for i in range(1, width + 1):  # both sides in one copy: two lines with a step between them
        inner = lines[:, width + i : last - i + 1 : last - width - 2 * i]
        lines[:, width - i : last + i + 1 : last - width + 2 * i] = inner


def normalised_joined(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """Instance norm and modulation in one write of the maps.

    Statistics and what is done with them are float32, the result is rounded once. In two bytes a map's own rounding is
    coarser than what the difference of float32 squares loses; float32 maps go the longer way to their variance.

    Args:
        x: [B, C, H, W].
        scale: [B or 1, C, 1, 1], float32.
        shift: likewise.
    """
    if x.dtype == torch.float32:
        variance, mean = torch.var_mean(x, (2, 3), correction=0, keepdim=True)
    else:
        pixels = x.shape[2] * x.shape[3]
        mean = x.mean((2, 3), keepdim=True, dtype=torch.float32)
        length = torch.linalg.vector_norm(x, 2, (2, 3), keepdim=True, dtype=torch.float32)  # squares are not written
        variance = torch.addcmul(length.square_().div_(pixels), mean, mean, value=-1).clamp_min_(0)
    factor = variance.add_(1e-8).rsqrt_() * scale
    return torch.addcmul(torch.addcmul(shift, mean, factor, value=-1), x, factor, out=torch.empty_like(x))


def joins_relu(x: Tensor, conv: nn.Conv2d, norm: nn.Module) -> bool:
    """Whether `convolved_relu` can stand for `conv`, `norm` and a ReLU: `norm` is folded, and cuDNN has it here."""
    cudnn = torch.backends.cudnn
    if not joining(x) or not isinstance(norm, nn.Identity) or conv.bias is None or x.dtype != conv.weight.dtype:
        return False
    if not cudnn.enabled or cudnn.deterministic or conv.out_channels % ALIGNED or x.shape[0] == 0:
        return False
    return _offered(x.device, x.dtype)


@functools.cache
def _offered(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a card, its driver and torch have joined convolutions: asked once, with a small one.

    Only two-byte numbers on cards of compute capability 8 or more: for these cuDNN has them in channels-last order
    whatever the kernel, stride and size.
    """
    joined = hasattr(torch, "cudnn_convolution_relu") and hasattr(torch, "cudnn_convolution_add_relu")
    if not joined or torch.version.hip or dtype not in (torch.float16, torch.bfloat16):
        return False
    if not torch.backends.cudnn.is_available() or torch.cuda.get_device_capability(device) < (8, 0):
        return False
    conv = nn.utils.skip_init(nn.Conv2d, ALIGNED, ALIGNED, 3, 1, 1, device=device, dtype=dtype)
    x = torch.empty(1, ALIGNED, 4, 4, device=device, dtype=dtype, memory_format=torch.channels_last)
    try:
        convolved_relu(x, conv)
        convolved_relu(x, conv, x)
    except RuntimeError:  # cuDNN without its compiled engines, a card newer than it
        return False
    return True


def convolved_relu(x: Tensor, conv: nn.Conv2d, residual: Tensor | None = None) -> Tensor:
    """Convolution, bias, sum with `residual` and ReLU as one, where `joins_relu`."""
    weight, bias = conv.weight, conv.bias
    missing = -x.shape[1] % ALIGNED
    if missing:  # pictures and sound: channels of zeros
        x, weight = (nn.functional.pad(tensor, (0, 0, 0, 0, 0, missing)) for tensor in (x, weight))
    options = (conv.stride, cast("tuple[int, ...]", conv.padding), conv.dilation, conv.groups)
    if residual is None:
        return torch.cudnn_convolution_relu(x, weight, bias, *options)
    return torch.cudnn_convolution_add_relu(x, weight, residual, 1.0, bias, *options)


def unbiased(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A convolution before an instance norm, which takes any bias away again; on a graphics card without it."""
    if not joining(x):
        return conv(x)
    return nn.functional.conv2d(x, conv.weight, None, conv.stride, conv.padding, conv.dilation, conv.groups)
