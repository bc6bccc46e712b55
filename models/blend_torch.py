"""`blend` for many frames at once in torch, on a graphics card: the same edge, averaging, resampling and rounding."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import skin_colour_torch, warp
from .blend import ERODE, edge, fitted_side
from .geometry import Matrices
from .memory import parts


@torch.inference_mode()
def paste(
    frames: Tensor,
    crops: Tensor,
    matrices: Matrices,
    feather: float = 0.05,
    erode: float = ERODE,
    colour_match: str = "lab",
) -> Tensor:
    """Lay a face back into each frame, see `blend.paste_faces`.

    Args:
        frames: uint8 [N, 3, H, W] RGB.
        crops: float32 [N, 3, S, S] RGB 0..1, on the same device.
        matrices: [N, 2, 3] frame pixels -> unit crop.
        feather: width of the soft edge as a share of the crop's side.
        erode: width of the untouched border of the crop, the same way.
        colour_match: "lab" or "off".

    Returns:
        New frames, laid out in memory as those given. Pixels where nothing is drawn are equal bit for bit.
    """
    result = torch.empty_like(frames)
    for part in parts(len(frames), max(frames.shape[2] * frames.shape[3], crops.shape[2] * crops.shape[3])):
        some, maps = frames[part], matrices[part]
        faces, sides = _fitted(crops[part].clamp(0, 1), maps)
        if colour_match == "lab":
            faces = skin_colour_torch.matched(faces, sides, some, maps)
        where = warp.places_in_crops(maps, some.shape[2], some.shape[3], some.device)
        alpha = _soft_rectangle(where, maps, feather, erode)
        if (sides < faces.shape[-1]).any():
            share = torch.from_numpy(np.float32(sides / faces.shape[-1])).to(some.device)[:, None, None, None]
            where = (where + 1) * share - 1
        mixed = warp.sampled(faces * 255, where, "bicubic").clamp_(0, 255)
        mixed.sub_(some).mul_(alpha).add_(some).add_(0.5)  # the end cuts off
        torch.where(alpha > 0, mixed.to(torch.uint8), some, out=result[part])
    return result


def _soft_rectangle(where: Tensor, matrices: Matrices, feather: float, erode: float) -> Tensor:
    """How much is drawn at places in the crop [N, H, W, 2] in -1 .. 1: float32 [N, 1, H, W], see `blend`."""
    half, radius, widths = edge(matrices, feather, erode)
    width = torch.from_numpy(np.float32(widths)).to(where.device)[:, None, None]
    beyond = (where.abs() / 2).sub_(half - radius)  # the straight part of a side, from the centre outwards
    depth = torch.hypot(*beyond.clamp(min=0).unbind(-1))
    if (widths > radius).any():  # otherwise opaque, however deep
        depth += beyond.amax(-1).clamp_(max=0)
    t = (radius - depth).div_(width).clamp_(0, 1)
    return (t * t * (3 - 2 * t))[:, None]


def _fitted(crops: Tensor, matrices: Matrices) -> tuple[Tensor, NDArray[np.int64]]:
    """Crops averaged down where they are clearly larger than their place.

    Returns:
        [N, 3, S', S'], and how many of the first rows and columns each fills [N]; those beyond repeat the last.
    """
    size = crops.shape[-1]
    sides = fitted_side(matrices, size)
    if (sides == size).all():
        return crops, sides
    wanted = torch.from_numpy(sides).to(crops.device)
    weights = warp.resizing(torch.full_like(wanted, size), wanted, size, int(sides.max()))[:, None]
    return weights @ crops @ weights.mT, sides
