"""Warps of many pictures at once in torch: `geometry`'s crops, and crops back into their frames, on a graphics card.

The same places are sampled as on the CPU. OpenCV rounds them to a 32nd of a pixel where pictures are bytes; here
nothing is rounded before the end.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .geometry import Matrices, invert, supersampling


def crops(frames: Tensor, matrices: Matrices, size: int) -> Tensor:
    """`geometry.warp_crops` for tensors.

    Args:
        frames: [N, C, H, W] on any device; uint8, or float in [0, 1].
        matrices: [N, 2, 3] frame pixels -> unit crop.
        size: side of the crop in pixels.

    Returns:
        float32 [N, C, size, size], of bytes in 0 .. 255 and rounded.
    """
    highest = 255 if frames.dtype == torch.uint8 else 1
    made = torch.empty(len(frames), frames.shape[1], size, size, device=frames.device)
    kinds = [supersampling(matrix, size) for matrix in matrices]
    for kind in dict.fromkeys(kinds):  # hardly ever more than two in a clip
        rows = [i for i, other in enumerate(kinds) if other == kind]
        factor, smooth = kind
        chosen = frames if len(rows) == len(frames) else frames[rows]
        grid = places(invert(matrices[rows]), (size * factor,) * 2, chosen.shape[-2:], chosen.device)
        some = sampled(chosen.float(), grid, "bilinear" if smooth else "bicubic")
        made[rows] = functional.avg_pool2d(some, factor) if factor > 1 else some
    made = made.clamp_(0, highest)
    return made.round_() if highest == 255 else made


def places_in_crops(matrices: Matrices, height: int, width: int, device: torch.device) -> Tensor:
    """Where each pixel of a frame lies in its crop, see `places`.

    Args:
        matrices: [N, 2, 3] frame pixels -> unit crop.
        height: of the frames.
        width: of the frames.
        device: of the result.
    """
    scaled = matrices.copy()
    scaled[:, :, :2] *= (width, height)  # from the unit frame
    return places(scaled, (height, width), (1, 1), device)


def sampled(pictures: Tensor, grid: Tensor, mode: str) -> Tensor:
    """`grid_sample` with the border repeated; see there."""
    return functional.grid_sample(pictures, grid, mode, "border", align_corners=False)


def places(maps: Matrices, out: tuple[int, int], source: tuple[int, int] | torch.Size, device: torch.device) -> Tensor:
    """Where each output pixel lies in the source, as `grid_sample` wants it: float32 [N, *out, 2] in -1 .. 1.

    Args:
        maps: [N, 2, 3] unit output -> continuous source coordinates of a picture of size `source` (height, width).
        out: height and width of the output.
        source: height and width of the source.
        device: of the result.
    """
    height, width = source
    sides = np.array([[width], [height]])
    linear, shift = maps[:, :, :2] / sides, maps[:, :, 2:] / sides
    # Both sides are -1 .. 1 from edge to edge: unit = (g + 1) / 2.
    theta = np.concatenate([linear, 2 * shift + linear.sum(2, keepdims=True) - 1], 2)
    across, down, origin = torch.from_numpy(theta.astype(np.float32)).to(device)[:, None, None].unbind(-1)
    y, x = ((2 * torch.arange(side, device=device) + 1) / side - 1 for side in out)
    # Not torch's `affine_grid`: it multiplies matrices, which on cards may be told to round to 10 bits (TF32).
    return across * x[:, None] + (down * y[:, None, None] + origin)


def resizing(sides: Tensor, wanted: Tensor, size: int, most: int) -> Tensor:
    """How pixels of pictures of different sizes add up to those of resized ones, along one side.

    Smaller ones are averages over areas, larger ones interpolated linearly (OpenCV's INTER_AREA and INTER_LINEAR).

    Args:
        sides: int [N] of the pictures, which fill `size` pixels or the first of them.
        wanted: int [N] of what is made of them.
        size: at least the largest of `sides`.
        most: at least the largest of `wanted`; what is beyond these repeats the last pixel.

    Returns:
        float32 [N, most, size].
    """
    scale, last = (sides / wanted)[:, None, None], wanted[:, None, None] - 1
    new = torch.minimum(torch.arange(most, device=sides.device)[:, None], last)
    old = torch.arange(size, device=sides.device)
    low = new * scale
    shared = torch.minimum(old + 1, low + scale) - torch.maximum(old, low)
    at = ((new + 0.5) * scale - 0.5).clamp(min=0).minimum(sides[:, None, None] - 1)
    return torch.where(scale >= 1, shared / scale, 1 - (old - at).abs()).clamp_(min=0)
