"""Where the mouth is in an aligned crop: the region that scores look at and losses weigh more."""

from __future__ import annotations

import torch
from torch import Tensor


def mouth_box(side: int) -> tuple[slice, slice]:
    """Rows and columns of the region around the mouth of aligned crops of a side."""
    return slice(int(0.58 * side), int(0.90 * side)), slice(int(0.28 * side), int(0.72 * side))


def mouth(pictures: Tensor) -> Tensor:
    """The region around the mouth of aligned crops [..., S, S]."""
    rows, columns = mouth_box(pictures.shape[-1])
    return pictures[..., rows, columns]


def mouth_weights(px: int) -> Tensor:
    """L1 weights [1, 1, px, px], mean 1: lower half twice, the mouth twice more (spec section 9)."""
    weights = torch.ones(px, px)
    weights[px // 2 :] += 1
    weights[mouth_box(px)] += 2
    return (weights / weights.mean())[None, None]


def mouth_psnr(pictures: Tensor, truth: Tensor) -> Tensor:
    """PSNR (dB) of the mouth region of each picture, [N, 3, S, S] against the same shape -> [N]; at most 80."""
    error = (mouth(pictures) - mouth(truth)).double().square().mean((1, 2, 3))
    return -10 * error.clamp_min(1e-8).log10()
