"""Which loss pulls how hard: gradients at the generated picture, the one place where all losses meet."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from .config import LossConfig

KEYS = {"matching": "feature_matching"}  # of losses that are not called what their weight is


def gradient_norms(losses: Mapping[str, Tensor], picture: Tensor, backward: Callable[..., None]) -> Tensor:
    """Euclidean norms of the gradients of each loss with respect to a picture, float32 [number of losses].

    Args:
        losses: scalars by name. Their graph is kept, and must not be compiled: compiled backward passes run once.
        picture: what they were computed from.
        backward: `Engine.backward`.
    """
    picture.retain_grad()
    norms = []
    for loss in losses.values():
        backward(loss, inputs=[picture], retain_graph=True)
        norms.append(picture.new_zeros(()) if picture.grad is None else picture.grad.float().norm())
        picture.grad = None
    return torch.stack(norms)


def shares(names: list[str], squares: Tensor) -> dict[str, float]:
    """Each loss's norm over the sum of all; from squared norms summed over the parts of a batch, [len(names)]."""
    norms = squares.sqrt()
    return {name: round(value, 4) for name, value in zip(names, (norms / norms.sum()).tolist(), strict=True)}


def unweighted(losses: Mapping[str, float], config: LossConfig) -> dict[str, float]:
    """Losses as they are before their weights; those of weight zero have no such number."""
    weights = {name: getattr(config, KEYS.get(name, name), 1.0) for name in losses}
    return {name: value / weights[name] for name, value in losses.items() if weights[name]}
