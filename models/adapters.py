"""Small changes of a generator's weights in a file of their own, merged into the weights when they are applied.

Every convolution that draws pixels gets a low-rank term and a new bias. The terms belong to the network in inference
form (batch norms folded), so merging costs inference nothing, and to one file of weights, which the adapter names.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from .checkpoints import load_weights

if TYPE_CHECKING:
    from .generator import FaceGenerator

KIND = "wavsyncswap_adapter"
RANK = 16
# What puts pixels together. Left alone: the audio tower, which seconds of speech would spoil, and encoder and identity
# blocks, which a swap needs as they are. Terms in the encoder gained nothing and cost a third of the time.
PARTS = ("fuse", "decoder", "skips", "output_block")


class LowRank(nn.Module):
    """A convolution's weight plus the product of two thin matrices.

    Args:
        weight: as it is, of two axes or more.
        rank: of the product; no more than the weight's own.
        random: where the first values come from.

    Attributes:
        active: whether the product is added.
    """

    def __init__(self, weight: Tensor, rank: int, random: torch.Generator) -> None:
        super().__init__()
        rows, columns = weight.flatten(1).shape
        rank = min(rank, rows, columns)
        self.down = nn.Parameter(torch.randn(rank, columns, generator=random).to(weight) / columns**0.5)
        self.up = nn.Parameter(torch.zeros(rows, rank).to(weight))
        self.active = True

    def forward(self, weight: Tensor) -> Tensor:
        """The weight with the term, same shape."""
        return weight + (self.up @ self.down).view(weight.shape) if self.active else weight


class Shift(nn.Module):
    """A bias plus another one; see `LowRank`."""

    def __init__(self, bias: Tensor) -> None:
        super().__init__()
        self.by = nn.Parameter(torch.zeros_like(bias))
        self.active = True

    def forward(self, bias: Tensor) -> Tensor:
        """The sum, same shape."""
        return bias + self.by if self.active else bias


class Adapter:
    """Terms on a network that can be trained, switched off and read out. All else in the network is frozen.

    Args:
        network: the pack's generator in inference form, float32.
        rank: see `LowRank`.
        seed: of the first values; with them the network still draws what it drew before.
    """

    def __init__(self, network: nn.Module, rank: int = RANK, seed: int = 0) -> None:
        random = torch.Generator().manual_seed(seed)
        network.requires_grad_(False)
        self._terms: dict[str, LowRank | Shift] = {}
        for name, module in list(network.named_modules()):
            if name.split(".")[0] in PARTS and isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                self._add(name, module, "weight", LowRank(module.weight, rank, random))
                if module.bias is not None:
                    self._add(name, module, "bias", Shift(module.bias))

    def _add(self, name: str, module: nn.Module, tensor: str, term: LowRank | Shift) -> None:
        parametrize.register_parametrization(module, tensor, term)
        self._terms[f"{name}.{tensor}"] = term

    def parameters(self) -> list[nn.Parameter]:
        """What is to be trained."""
        return [parameter for term in self._terms.values() for parameter in term.parameters()]

    @contextmanager
    def off(self) -> Iterator[None]:
        """Inside, the network is as it was without the terms."""
        for term in self._terms.values():
            term.active = False
        try:
            yield
        finally:
            for term in self._terms.values():
                term.active = True

    @contextmanager
    def holding(self, values: list[Tensor]) -> Iterator[None]:
        """Inside, the terms have other values, in the order of `parameters`."""
        own = self.parameters()
        former = [parameter.data for parameter in own]
        for parameter, value in zip(own, values, strict=True):
            parameter.data = value
        try:
            yield
        finally:
            for parameter, value in zip(own, former, strict=True):
                parameter.data = value

    def state(self) -> dict[str, Tensor]:
        """Copies of all values, by the name of the tensor they belong to and their own."""
        pairs = ((name, term.named_parameters()) for name, term in self._terms.items())
        return {f"{name}.{part}": value.detach().clone() for name, values in pairs for part, value in values}


def merge(network: nn.Module, state: Mapping[str, Tensor], what: str, strength: float = 1.0) -> None:
    """Add an adapter's terms to a network's weights for good.

    Args:
        network: in inference form, float32.
        state: what `Adapter.state` gave; empty = nothing to add.
        what: how to call the adapter in an error.
        strength: factor on what is added.

    Raises:
        ValueError: the terms do not fit the network; nothing was changed.
    """
    own = dict(network.named_parameters())
    added = {}
    for name, value in state.items():
        tensor, part = name.rpartition(".")[::2]
        if part == "down":
            continue
        change = value if part == "by" else _product(value, state.get(f"{tensor}.down"))
        if tensor not in own or part not in ("up", "by") or change is None or change.numel() != own[tensor].numel():
            raise ValueError(f"{what} has no place for {name} in this network. Adapt this model anew.")
        added[tensor] = change.view(own[tensor].shape)
    with torch.inference_mode():  # in place, whether or not the weights were loaded in this mode
        for tensor, change in added.items():
            own[tensor].add_(change.to(own[tensor]), alpha=strength)


def _product(up: Tensor, down: Tensor | None) -> Tensor | None:
    fit = down is not None and up.ndim == down.ndim == 2 and up.shape[1] == len(down)
    return up @ down if fit and down is not None else None


def load_adapter(path: str | os.PathLike[str]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """An adapter file's terms and metadata.

    Raises:
        ValueError: the file is missing or damaged, or holds something else.
    """
    state, metadata = load_weights(path)
    if (found := metadata.get("network", "weights without metadata")) != KIND:
        raise ValueError(
            f"{os.path.basename(path)} holds {found}, not an adapter. Choose a file that WavSyncSwap Adapt or "
            "`python -m training adapt` wrote."
        )
    return state, metadata


def apply_adapter(generator: FaceGenerator, path: str | os.PathLike[str], strength: float = 1.0) -> None:
    """Merge an adapter file into a generator's weights; its metadata then says so.

    Args:
        generator: in inference form, float32.
        path: adapter file.
        strength: factor on what is added; 0 leaves the weights as they are.

    Raises:
        ValueError: as `load_adapter`, or the adapter was made for other weights.
    """
    state, metadata = load_adapter(path)
    name = os.path.basename(path)
    base = str(metadata.get("base", "unknown"))
    if not generator.digest or base != generator.digest:
        raise ValueError(
            f"{name} was made for other weights ({base[:12]}) than the model that is loaded "
            f"({generator.digest[:12] or generator.metadata.get('network', 'unknown')}). Load the model it was made "
            "for, or adapt this one anew."
        )
    merge(generator.network, state, name, strength)
    generator.metadata = {**generator.metadata, "adapter": {"file": name, "strength": strength, **metadata}}
