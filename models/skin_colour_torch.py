"""`skin_colour` for many faces at once in torch, on a graphics card: the same definitions, other instructions."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import warp
from .geometry import Matrices, invert
from .lab import to_lab, to_rgb
from .skin_colour import COLOURED, GAIN, LEAST_SKIN, LEAST_SPREAD, SIDE, SKIN_SIDE, SKIN_SPREAD, SQUARE, skin, square_of


def matched(crops: Tensor, sides: NDArray[np.int64], frames: Tensor, matrices: Matrices) -> Tensor:
    """Crops with their skin's mean and spread in Lab taken from the faces in the frames, see `skin_colour.matched`.

    Args:
        crops: float32 [N, 3, S, S] RGB 0..1.
        sides: [N], how many of their first rows and columns each fills; those beyond repeat the last.
        frames: uint8 [N, 3, H, W].
        matrices: [N, 2, 3] frame pixels -> unit crop.

    Returns:
        float32 [N, 3, S, S] RGB 0..1.
    """
    squares, device = square_of(matrices), crops.device
    where = warp.places(invert(squares), (SKIN_SIDE, SKIN_SIDE), frames.shape[-2:], device)
    shown = (torch.from_numpy(skin()).to(device) & (where.abs() <= 1).all(-1))[:, None]  # inside the frame
    wanted, wanted_spread = _statistics(to_lab(warp.crops(frames, squares, SKIN_SIDE) / 255), shown)
    found, spread = _statistics(to_lab(_small(crops, sides)), shown)
    spread = spread.clamp(min=LEAST_SPREAD)
    gain = (wanted_spread / spread).clamp(*GAIN)
    reach = SKIN_SPREAD * spread
    lab = to_lab(crops)
    stretch = ((lab - found) / reach).clamp_(-1, 1)
    lab += stretch.mul_((gain - 1) * reach).add_(wanted - found)
    colour = (wanted_spread[:, 1:].amax(1, keepdim=True) / COLOURED).clamp(max=1)
    lab[:, 1:] = torch.lerp(wanted[:, 1:], lab[:, 1:], colour)
    enough = shown.sum((1, 2, 3), keepdim=True) >= LEAST_SKIN
    return torch.where(enough, to_rgb(lab), crops)


def _small(crops: Tensor, sides: NDArray[np.int64]) -> Tensor:
    """The square that holds the skin in crops brought to `SIDE` pixels."""
    filled = torch.from_numpy(sides).to(crops.device)
    weights = warp.resizing(filled, torch.full_like(filled, SIDE), crops.shape[-1], SIDE)[:, None]
    rows, columns = SQUARE
    return weights[..., rows, :] @ crops @ weights[..., columns, :].mT


def _statistics(lab: Tensor, shown: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel where `shown`, [N, 3, 1, 1]."""
    count = shown.sum((2, 3), keepdim=True).clamp(min=1)
    mean = (lab * shown).sum((2, 3), keepdim=True) / count
    return mean, (((lab - mean) * shown).square_().sum((2, 3), keepdim=True) / count).sqrt_()
