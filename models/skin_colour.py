"""The colours of a face: those of the generated crop's skin are brought to those of the frame's own.

Mean and spread in CIELAB after Reinhard et al. 2001 ("Color transfer between images"), with Lab in place of their
colour space. Every frame on its own: the statistics are means over a stabilised area and hardly flicker, and a result
that depended on neighbours would depend on how a clip was cut into chunks.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .geometry import CROP_TEMPLATE, Matrices, invert, warp_crops

Floats = NDArray[np.float32]
Mask = NDArray[np.bool_]

SIDE = 96  # px of the small crops that statistics are taken from
SKIN_LEFT, SKIN_TOP, SKIN_SIDE = 16, 21, 64  # px in them: the square that holds all of the skin
SQUARE = slice(SKIN_TOP, SKIN_TOP + SKIN_SIDE), slice(SKIN_LEFT, SKIN_LEFT + SKIN_SIDE)
LEAST_SKIN = 64  # pixels of skin inside the frame below which colours are left alone
GAIN = (0.7, 1.4)  # limits of the spread's correction: a blurry or noisy face must not be blown up
SKIN_SPREAD = 4.0  # standard deviations from the skin's mean up to which the spread is corrected
COLOURED = 1.0  # spread of a or b below which a face has less colour than any in colour: of 44, the least had 1.5
LEAST_SPREAD = 1e-3  # a flat crop has none to divide by


def skin() -> Mask:
    """Where there is skin in the square that holds it: brow to chin, but eyes and mouth, which differ for good reasons.

    Returns:
        bool [SKIN_SIDE, SKIN_SIDE].
    """
    x, y = (np.arange(SKIN_SIDE) + 0.5 + start for start in (SKIN_LEFT, SKIN_TOP))
    x, y = x / SIDE, y[:, None] / SIDE

    def ellipse(middle: NDArray[np.float64], a: float, b: float) -> Mask:
        return np.asarray(((x - middle[0]) / a) ** 2 + ((y - middle[1]) / b) ** 2 < 1)

    area = ellipse(np.array([0.5, 0.55]), 0.25, 0.32)
    for eye in CROP_TEMPLATE[:2]:
        area &= ~ellipse(eye, 0.10, 0.06)
    return area & ~ellipse(CROP_TEMPLATE[3:].mean(0), 0.18, 0.10)


def square_of(matrices: Matrices) -> Matrices:
    """Frame pixels -> unit crop becomes frame pixels -> the square that holds the skin, as a unit; [..., 2, 3]."""
    squares = matrices * (SIDE / SKIN_SIDE)
    squares[..., 2] -= (SKIN_LEFT / SKIN_SIDE, SKIN_TOP / SKIN_SIDE)
    return squares


def matched(crop: Floats, frame: NDArray[Any], matrix: Matrices, skin: Mask) -> Floats:
    """The crop with its skin's mean and spread in Lab taken from the frame's own face.

    Args:
        crop: float32 [S, S, 3] RGB 0..1, of any size.
        frame: uint8 or float32 (0..1) [H, W, 3] RGB.
        matrix: [2, 3] frame pixels -> unit crop.
        skin: what `skin` gives.

    Returns:
        float32 [S, S, 3] RGB 0..1; the crop itself where hardly any skin lies in the frame.
    """
    import cv2

    to_square = square_of(matrix)
    skin = _inside_frame(skin, to_square, *frame.shape[:2])
    if np.count_nonzero(skin) < LEAST_SKIN:
        return crop
    original = warp_crops(frame[None], to_square[None], SKIN_SIDE)[0]
    original = np.multiply(original, np.float32(1 / 255 if frame.dtype == np.uint8 else 1), dtype=np.float32)
    lab = small = _lab(crop)
    if len(crop) != SIDE:
        way = cv2.INTER_AREA if len(crop) > SIDE else cv2.INTER_LINEAR
        small = _lab(cv2.resize(crop, (SIDE, SIDE), interpolation=way))
    wanted, wanted_spread = _statistics(_lab(original), skin)
    found, spread = _statistics(small[SQUARE], skin)
    spread = np.maximum(spread, LEAST_SPREAD)
    gain = np.clip(wanted_spread / spread, *GAIN)
    # Stretched like skin, colours far from it (a blue wall, hair, teeth) would run away; they are only moved along.
    reach = SKIN_SPREAD * spread
    stretch = _each_channel(lab, 1 / reach, -found / reach)
    np.clip(stretch, -1, 1, out=stretch)
    lab += _each_channel(stretch, (gain - 1) * reach, wanted - found)
    colour = min(1.0, float(wanted_spread[1:].max()) / COLOURED)
    if colour < 1:  # a black-and-white picture stays one, lips and hair too
        kept = np.array([1, colour, colour])
        lab = _each_channel(lab, kept, (1 - kept) * wanted)
    result = np.asarray(cv2.cvtColor(lab, cv2.COLOR_Lab2RGB), np.float32)
    return np.clip(result, 0, 1, out=result)


def _lab(picture: NDArray[Any]) -> Floats:
    import cv2

    return np.asarray(cv2.cvtColor(picture, cv2.COLOR_RGB2Lab), np.float32)


def _statistics(lab: Floats, skin: Mask) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of each channel where there is skin, [3]."""
    import cv2

    mean, spread = np.asarray(cv2.meanStdDev(lab, mask=skin.view(np.uint8)), np.float64)[..., 0]
    return mean, spread


def _each_channel(picture: Floats, factor: NDArray[np.float64], shift: NDArray[np.float64]) -> Floats:
    """`picture * factor + shift`, ten times as fast as NumPy spreads three numbers over the pixels."""
    import cv2

    return np.asarray(cv2.transform(picture, np.column_stack([np.diag(factor), shift])), np.float32)


def _inside_frame(skin: Mask, matrix: Matrices, height: int, width: int) -> Mask:
    """What of a square's skin lies in the frame; `matrix` leads from frame pixels to the square as a unit."""
    back = invert(matrix)

    def inside(at: NDArray[np.float64]) -> Mask:
        points = np.stack(np.meshgrid(at, at), -1) @ back[:, :2].T + back[:, 2]
        return np.asarray(((points >= 0) & (points <= (width, height))).all(-1))

    if inside(np.array([0.0, 1.0])).all():  # the corners: so is all between them
        return skin
    return skin & inside((np.arange(SKIN_SIDE) + 0.5) / SKIN_SIDE)
