"""sRGB to CIELAB and back in torch, with the numbers of OpenCV: D65, and the curves' straight ends.

Not kornia's, which on cards leaves the sums over channels to a convolution: that may be told to round its factors to
10 bits (TF32), and a colour that is only converted there and back would not be the same any more.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor, stack, where

XYZ = np.array([(0.412453, 0.357580, 0.180423), (0.212671, 0.715160, 0.072169), (0.019334, 0.119193, 0.950227)])
LINEAR, LINEAR_STEP, GAMMA, OFFSET = 0.0031308, 12.92, 2.4, 0.055  # of sRGB
CUBIC, STRAIGHT, START = 0.008856, 7.787, 16 / 116  # of CIELAB: the cube root begins, slope and height of the end


def to_lab(rgb: Tensor) -> Tensor:
    """RGB 0..1 [N, 3, H, W] -> L 0..100, a and b around 0, float32."""
    linear = where(
        rgb > LINEAR * LINEAR_STEP, ((rgb.clamp(min=0) + OFFSET) / (1 + OFFSET)).pow_(GAMMA), rgb / LINEAR_STEP
    )
    seen = _mixed(linear, XYZ / XYZ.sum(1, keepdims=True))  # white is 1, 1, 1
    x, y, z = where(seen > CUBIC, seen.clamp(min=CUBIC).pow_(1 / 3), seen * STRAIGHT + START).unbind(1)
    return stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def to_rgb(lab: Tensor) -> Tensor:
    """The way back, what RGB cannot show cut off at 0 and 1."""
    lightness, a, b = lab.unbind(1)
    y = (lightness + 16) / 116
    curved = stack([a / 500 + y, y, y - b / 200], 1)
    seen = where(curved > STRAIGHT * CUBIC + START, curved**3, (curved - START) / STRAIGHT)
    linear = _mixed(seen, np.linalg.inv(XYZ / XYZ.sum(1, keepdims=True))).clamp_(0, 1)
    return where(linear > LINEAR, linear.pow(1 / GAMMA) * (1 + OFFSET) - OFFSET, linear * LINEAR_STEP)


def _mixed(channels: Tensor, factors: np.ndarray) -> Tensor:
    """Sums of three channels [N, 3, H, W] by the rows of `factors` [3, 3]."""
    first, second, third = channels.unbind(1)
    return stack([first * a + second * b + third * c for a, b, c in factors.tolist()], 1)
