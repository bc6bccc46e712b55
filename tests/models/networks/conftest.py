"""The specification's recipe for golden values (3.10): weights from key names, inputs from seeds."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn


def fill(module: nn.Module) -> nn.Module:
    """Give every state entry the value its name asks for, and switch to eval."""
    state = module.state_dict()
    module.load_state_dict({key: _value(key, tuple(old.shape), state) for key, old in state.items()})
    return module.eval()


def _value(key: str, shape: tuple[int, ...], state: dict[str, Tensor]) -> Tensor:
    parent, _, leaf = key.rpartition(".")
    if leaf == "num_batches_tracked":
        return torch.zeros(shape, dtype=torch.long)
    n = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape)
    if leaf == "running_var":
        n = 1 + 0.25 * np.abs(n)
    elif leaf == "running_mean":
        n = 0.1 * n
    elif n.ndim >= 2:
        n = n * math.sqrt(2 / (n.size / shape[0]))
    elif leaf == "bias":
        n = 0.05 * n
    elif f"{parent}.running_mean" in state:
        n = 1 + 0.1 * n
    else:
        n = 0.25 + 0.01 * n
    return torch.from_numpy(n).float()


@dataclass(frozen=True)
class Golden:
    """Builders of the recipe, handed to tests as one fixture."""

    fill: Callable[[nn.Module], nn.Module] = staticmethod(fill)

    @staticmethod
    def uniform(seed: int, *shape: int) -> Tensor:
        return torch.from_numpy(np.random.RandomState(seed).uniform(0, 1, shape)).float()

    @staticmethod
    def normal(seed: int, *shape: int) -> Tensor:
        return torch.from_numpy(np.random.RandomState(seed).standard_normal(shape)).float()

    @classmethod
    def identity(cls) -> Tensor:
        return nn.functional.normalize(cls.normal(6, 2, 512), dim=1)

    @staticmethod
    def check(output: Tensor, mean: float, std: float, picks: tuple[float, ...]) -> None:
        """Compare mean, population deviation and four elements, relative to the output's scale."""
        flat = output.detach().flatten()
        n = len(flat)
        found = [flat.mean(), flat.std(unbiased=False), *(flat[i] for i in (0, n // 3, 2 * n // 3, n - 1))]
        scale = max(abs(mean), std)
        np.testing.assert_allclose([float(v) for v in found], [mean, std, *picks], rtol=1e-4, atol=1e-4 * scale)


@pytest.fixture(scope="session")
def golden() -> Golden:
    return Golden()


@pytest.fixture(scope="session")
def count_macs() -> Callable[..., int]:
    """Multiply-adds of convolutions and linear layers in one forward pass (runs on the meta device too)."""

    def count(module: nn.Module, *inputs: Tensor) -> int:
        total = 0

        def hook(layer: nn.Module, _: object, output: Tensor) -> None:
            nonlocal total
            weight = layer.weight
            if isinstance(layer, nn.ConvTranspose2d):  # every input position meets the whole kernel
                total += sizes[layer] * weight[0].numel()
            else:
                total += output.numel() * weight[0].numel()

        def before(layer: nn.Module, args: tuple[Tensor, ...]) -> None:
            sizes[layer] = args[0].numel()

        sizes: dict[nn.Module, int] = {}
        layers = [m for m in module.modules() if isinstance(m, nn.Conv2d | nn.Conv3d | nn.ConvTranspose2d | nn.Linear)]
        handles = [m.register_forward_hook(hook) for m in layers]
        handles += [m.register_forward_pre_hook(before) for m in layers]
        with torch.no_grad():
            module(*inputs)
        for handle in handles:
            handle.remove()
        return total

    return count
