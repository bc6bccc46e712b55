"""A trained network made ready to run: batch norms folded away, frozen, in the memory order that convolutions like."""

from __future__ import annotations

from itertools import pairwise
from typing import TypeVar

import torch
from torch import nn

from .precision import set_precision

Net = TypeVar("Net", bound=nn.Module)


def inference_form(network: Net, dtype: torch.dtype) -> Net:
    """Fold batch norms into their convolutions, freeze, convert; the styles' linear layers stay float32.

    Changes the network it is given and returns it; its state dict no longer has the training layout.
    """
    network.eval().requires_grad_(False)
    for module in list(network.modules()):
        if isinstance(module, nn.Sequential):
            _fold_norms(module)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs
    set_precision(network, dtype)
    return network.requires_grad_(False)


def _fold_norms(layers: nn.Sequential) -> None:
    """Each batch norm becomes part of the convolution before it; numbers of layers stay."""
    for i, (conv, norm) in enumerate(pairwise(list(layers))):
        if isinstance(conv, nn.Conv2d | nn.ConvTranspose2d) and isinstance(norm, nn.BatchNorm2d):
            transposed = isinstance(conv, nn.ConvTranspose2d)
            layers[i] = nn.utils.fusion.fuse_conv_bn_eval(conv, norm, transpose=transposed)
            layers[i + 1] = nn.Identity()
