"""Building blocks shared by the networks. Key names follow the public Wav2Lip and SimSwap files."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .fused import ReflectionPad, convolved_relu, joining, joins_relu, normalised_joined, unbiased

CACHED = 600_000  # weights that a core's own cache holds beside the maps: 1.2 MB of 2 in bfloat16
LARGE_MAP = 1024  # pixels from which torch's own kernel for normalised and modulated maps is the fastest on a CPU


def rectified(fresh: Tensor) -> Tensor:
    """ReLU of a tensor that nothing else holds: in place where no gradient is asked for.

    Memory asked for anew costs a CPU more than the sum itself: 25 ms for a batch of 64 x 96 x 96 maps.
    """
    return torch.relu(fresh) if torch.is_grad_enabled() else fresh.relu_()


def added(fresh: Tensor, x: Tensor) -> Tensor:
    """Sum of a tensor that nothing else holds and `x`; see `rectified`."""
    return fresh + x if torch.is_grad_enabled() else fresh.add_(x)


def compiled_for_cpu(x: Tensor) -> bool:
    """Whether code for a CPU is being made of what is done to `x`, and no gradient is asked for."""
    return x.device.type == "cpu" and torch.compiler.is_compiling() and not torch.is_grad_enabled()


def convolved_in_parts(x: Tensor, weight: Tensor, bias: Tensor, padding: int = 0) -> Tensor:
    """A convolution of stride 1 as several, each with some of the output channels: x [B, I, H, W], weight [O, I, k, k].

    A CPU goes through maps one by one. Weights that do not fit into a core's own cache come from far away for every map
    again; those of a part stay there for the whole batch, a seventh faster at 512 channels of 12 x 12.
    """
    channels = len(weight)
    while channels % 2 == 0 and channels * weight[0].numel() > CACHED:
        channels //= 2
    pairs = zip(weight.split(channels), bias.split(channels), strict=True)
    parts = [nn.functional.conv2d(x, some, its_bias, 1, padding) for some, its_bias in pairs]
    return torch.cat(parts, 1)


def _transposed_compiled(x: Tensor, weight: Tensor, bias: Tensor, padding: int) -> Tensor:
    """A transposed convolution of stride 1, weight [I, O, k, k], in the forms that are the fastest on a CPU.

    A convolution with the kernel turned round; of maps of one pixel a matrix product, which reads the weights once a
    batch and not once a map.
    """
    if x.shape[2:] == (1, 1) and padding == 0:
        return (x.flatten(1) @ weight.flatten(1)).unflatten(1, weight.shape[1:]) + bias[:, None, None]
    return convolved_in_parts(x, weight.flip(2, 3).transpose(0, 1), bias, weight.shape[-1] - 1 - padding)


class ConvBlock(nn.Module):
    """Convolution, batch norm, ReLU; with `residual` the input is added before the ReLU (Wav2Lip, spec 3.1).

    The convolution keeps its bias although a batch norm follows: the public files carry it.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        stride: int | tuple[int, int] = 1,
        padding: int = 0,
        residual: bool = False,
    ) -> None:
        super().__init__()
        self.conv_block = nn.Sequential(nn.Conv2d(inputs, outputs, kernel, stride, padding), nn.BatchNorm2d(outputs))
        self.residual = residual

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H', W']."""
        conv, norm = self.conv_block
        assert isinstance(conv, nn.Conv2d)
        if joins_relu(x, conv, norm):
            return convolved_relu(x, conv, x if self.residual else None)
        y = norm(conv(x))
        return rectified(added(y, x) if self.residual else y)


class TransposedBlock(nn.Module):
    """Transposed 3x3 convolution, batch norm, ReLU (spec notation T)."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 3, stride: int = 1, padding: int = 1) -> None:
        super().__init__()
        up = nn.ConvTranspose2d(inputs, outputs, kernel, stride, padding, output_padding=stride - 1)
        self.conv_block = nn.Sequential(up, nn.BatchNorm2d(outputs))
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H * stride, W * stride]."""
        up, norm = self.conv_block
        if self.stride > 1 or not compiled_for_cpu(x):
            return rectified(norm(up(x)))
        assert isinstance(up, nn.ConvTranspose2d) and up.bias is not None
        return rectified(norm(_transposed_compiled(x, up.weight, up.bias, self.padding)))


def audio_tower(width: float = 1.0, outputs: int = 512, last_residuals: int = 2) -> nn.Sequential:
    """The expert's 14-block audio tower (spec 3.3): mel window [B, 1, 80, 16] -> [B, outputs, 1, 1].

    Args:
        width: factor on the channels before the last two blocks.
        outputs: channels of the last two blocks.
        last_residuals: residual blocks at the smallest map; Wav2Lip's generator has 1, and so 13 blocks (spec 3.1).
    """
    a, b, c, d = (round(channels * width) for channels in (32, 64, 128, 256))
    return nn.Sequential(
        ConvBlock(1, a, 3, 1, 1),
        ConvBlock(a, a, 3, 1, 1, residual=True),
        ConvBlock(a, a, 3, 1, 1, residual=True),
        ConvBlock(a, b, 3, (3, 1), 1),
        ConvBlock(b, b, 3, 1, 1, residual=True),
        ConvBlock(b, b, 3, 1, 1, residual=True),
        ConvBlock(b, c, 3, 3, 1),
        ConvBlock(c, c, 3, 1, 1, residual=True),
        ConvBlock(c, c, 3, 1, 1, residual=True),
        ConvBlock(c, d, 3, (3, 2), 1),
        *(ConvBlock(d, d, 3, 1, 1, residual=True) for _ in range(last_residuals)),
        ConvBlock(d, outputs, 3, 1, 0),
        ConvBlock(outputs, outputs, 1, 1, 0),
    )


class InstanceNorm(nn.Module):
    """Parameter-free instance norm in SimSwap's form: biased variance, 1e-8 inside the root (spec 3.4).

    Statistics are taken in float32 whatever the input's type: in bfloat16 they lose what identity needs.
    """

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> same shape and dtype, zero mean and unit variance per channel."""
        y = x.float()
        y = y - y.mean((2, 3), keepdim=True)
        return (y * torch.rsqrt(y.square().mean((2, 3), keepdim=True) + 1e-8)).to(x.dtype)


class Style(nn.Module):
    """AdaIN's affine part: identity vector -> per-channel scale and shift, y = x * (1 + scale) + shift (spec A4)."""

    def __init__(self, dim: int, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, 2 * channels)

    def forward(self, vector: Tensor) -> Tensor:
        """[B, dim] -> [B, 2, channels, 1, 1]: scale, shift."""
        return self.linear(vector).unflatten(1, (2, -1))[..., None, None]


def apply_style(x: Tensor, style: Tensor) -> Tensor:
    """Modulate normalised features [B, C, H, W] with a style [B or 1, 2, C, 1, 1]."""
    style = style.to(x.dtype)
    return x * (1 + style[:, 0]) + style[:, 1]


def normalised(x: Tensor, style: Tensor) -> Tensor:
    """Instance norm and modulation in one: `apply_style(InstanceNorm()(x), style)`, in fewer passes over memory.

    Where no gradient is asked for, both are one multiplication and one sum a pixel with numbers per channel. Statistics
    are float32 there too; the bound on what else rounding does is `precision.BOUND`.

    Args:
        x: [B, C, H, W].
        style: [B or 1, 2, C, 1, 1].
    """
    if torch.is_grad_enabled():
        return apply_style(InstanceNorm()(x), style)
    scale, shift = 1 + style[:, 0].float(), style[:, 1].float()
    if compiled_for_cpu(x):
        return _normalised_compiled(x, scale, shift)
    if joining(x):
        return normalised_joined(x, scale, shift)
    pixels = x.shape[2] * x.shape[3]
    if x.device.type == "cpu" and pixels >= LARGE_MAP and len(style) == 1:
        return nn.functional.group_norm(x, x.shape[1], scale.flatten().to(x.dtype), shift.flatten().to(x.dtype), 1e-8)
    mean = x.mean((2, 3), keepdim=True, dtype=torch.float32)
    # Around the mean in the input's own type: the difference of two large squares would lose small variances.
    centred = x - mean.to(x.dtype)
    left = mean - mean.to(x.dtype).float()  # what rounding the mean left behind
    variance = centred.square().sum((2, 3), keepdim=True, dtype=torch.float32) / pixels - left.square()
    factor = torch.rsqrt(variance.clamp_min(0) + 1e-8) * scale
    return torch.addcmul((shift - left * factor).to(x.dtype), centred, factor.to(x.dtype))


def _normalised_compiled(x: Tensor, scale: Tensor, shift: Tensor) -> Tensor:
    """`normalised` as the compiler turns it into the fastest code of a CPU; scale, shift [B or 1, C, 1, 1], float32."""
    # Both sums in one pass, taken around a pixel so that squares stay near the variance.
    origin = x[:, :, :1, :1].float()
    moved = x.float() - origin
    share = 1 / (x.shape[2] * x.shape[3])
    mean = moved.sum((2, 3), keepdim=True) * share
    variance = moved.square().sum((2, 3), keepdim=True) * share - mean.square()
    factor = torch.rsqrt(variance.clamp_min(0) + 1e-8) * scale
    # Put together they exist in memory; the root would be taken for every pixel otherwise.
    factor, offset = torch.cat([factor, shift - (origin + mean) * factor], 1).chunk(2, 1)
    return (x.float() * factor + offset).to(x.dtype)


class IdentityBlock(nn.Module):
    """SimSwap's ID block: conv, AdaIN, ReLU, conv, AdaIN, plus the input; reflect padding (spec 3.4, A5)."""

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(ReflectionPad(1), nn.Conv2d(channels, channels, 3))
        self.conv2 = nn.Sequential(ReflectionPad(1), nn.Conv2d(channels, channels, 3))
        self.style1 = Style(dim, channels)
        self.style2 = Style(dim, channels)

    def styles(self, vector: Tensor) -> list[Tensor]:
        """Both styles of the block for identity vectors [B, dim]."""
        return [self.style1(vector), self.style2(vector)]

    def modulated(self, x: Tensor, first: Tensor, second: Tensor) -> Tensor:
        """Forward pass with styles computed beforehand."""
        y = rectified(normalised(_convolved(self.conv1, x), first))
        return added(normalised(_convolved(self.conv2, y), second), x)

    def forward(self, x: Tensor, vector: Tensor) -> Tensor:
        """Features [B, C, H, W] and identity [B, dim] -> [B, C, H, W]."""
        return self.modulated(x, *self.styles(vector))


def _convolved(padded: nn.Sequential, x: Tensor) -> Tensor:
    """Padding and convolution before a norm; see `convolved_in_parts`, `unbiased`."""
    pad, conv = padded
    assert isinstance(conv, nn.Conv2d) and conv.bias is not None
    if compiled_for_cpu(x):
        return convolved_in_parts(pad(x), conv.weight, conv.bias)
    return unbiased(conv, pad(x))
