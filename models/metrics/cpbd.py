"""CPBD, the share of edges whose blur nobody would notice (Narvekar and Karam 2011; specification section 6.4).

Equal to the PyPI package cpbd 1.0.7 to rounding, whole rows at a time. Only whole blocks of 64 x 64 px count, and the
score depends on the scale: it compares only between pictures of one size.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .results import Result
from .subject import Subject

BLOCK = 64  # px
EDGE_SHARE = 0.002  # of a block's pixels on Canny edges, above which it counts
BETA = 3.6
LONGEST = 100  # px of a run that is counted
CONTRAST = 50  # grey levels of a block up to which an edge may be 5 px wide unnoticed, above 3 px
UNNOTICED = 64  # bins of the probability's histogram, of 101

Floats = NDArray[np.float64]


def cpbd(grey: NDArray) -> float:
    """Sharpness of one picture, 0 (blurred) to 1.

    Args:
        grey: [H, W] luma in 0..255, any number type.

    Returns:
        0 also for a picture smaller than one block, or without an edge in a whole block.

    Raises:
        RuntimeError: scikit-image is not installed.
    """
    try:
        from skimage.feature import canny
    except ImportError as error:
        raise RuntimeError(
            f"CPBD needs the package scikit-image ({error}). Install it: pip install scikit-image."
        ) from error

    image = np.asarray(grey, np.float64)
    rows, columns = (side // BLOCK for side in image.shape)
    if not rows or not columns:
        return 0.0
    widths, edges = _blocks(edge_widths(image), rows, columns), _blocks(canny(image), rows, columns)
    blocks = _blocks(image, rows, columns)
    counts = (edges > 0).sum(-1) > EDGE_SHARE * BLOCK * BLOCK
    contrast = (blocks.max(-1) - blocks.min(-1)).astype(int)
    noticeable = np.where(contrast <= CONTRAST, 5.0, 3.0)[..., None]
    seen = 1 - np.exp(-((widths / noticeable) ** BETA))
    bins = np.rint(100 * seen[(widths > 0) & counts[..., None]])
    return float((bins < UNNOTICED).mean()) if len(bins) else 0.0


def _blocks(image: NDArray, rows: int, columns: int) -> NDArray:
    """Whole blocks of an image, [rows, columns, 4096]."""
    whole = image[: rows * BLOCK, : columns * BLOCK].reshape(rows, BLOCK, columns, BLOCK)
    return whole.transpose(0, 2, 1, 3).reshape(rows, columns, -1)


def edge_widths(image: Floats) -> Floats:
    """Width in px of the edge at each pixel where a vertical edge stands, 0 elsewhere, [H, W] (Marziliano's method).

    An edge is as wide as the strictly monotone run of grey levels through it, measured along the row.
    """
    down, across = np.gradient(image)
    # The reference implementation leaves the angle of a purely vertical gradient at 0, so such pixels count as rising.
    angles = 45 * np.round(np.where(across != 0, np.degrees(np.arctan2(down, across)), 0.0) / 45)
    rising = _run_lengths(np.diff(image, axis=1) > 0)
    falling = _run_lengths(np.diff(image, axis=1) < 0)
    edges = _edge_pixels(image)
    edges[[0, -1]] = False
    edges[:, [0, -1]] = False
    widths = np.zeros(image.shape)
    for wanted, (leftwards, rightwards) in ((angles == 0, rising), (np.abs(angles) == 180, falling)):
        y, x = np.nonzero(edges & wanted)
        widths[y, x] = leftwards[y, x - 1] + rightwards[y, x + 1] + 2
    return widths


def _run_lengths(steps: NDArray[np.bool_]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """How many steps in a row hold, up to 100: to the left of each pixel and to the right of it.

    Args:
        steps: bool [H, W - 1], between neighbours of a row.

    Returns:
        int64 [H, W] each.
    """

    def before(held: NDArray[np.bool_]) -> NDArray[np.int64]:
        place = np.arange(held.shape[1] + 1)
        broken = np.where(np.pad(held, ((0, 0), (1, 0))), 0, place)
        return np.minimum(place - np.maximum.accumulate(broken, 1), LONGEST)

    return before(steps), before(steps[:, ::-1])[:, ::-1]


def _edge_pixels(image: Floats) -> NDArray[np.bool_]:
    """Thinned vertical edges: strong horizontal change, more than at both neighbours in the row or the column."""
    from scipy.ndimage import convolve

    kernel = np.array([[1.0, 0.0, -1.0], [2.0, 0.0, -2.0], [1.0, 0.0, -1.0]]) / 8
    strength = convolve(image, kernel) ** 2
    strength[strength <= 2 * np.sqrt(strength.mean())] = 0
    padded = np.pad(strength, 1)
    beside = np.maximum(padded[1:-1, :-2], padded[1:-1, 2:])
    above = np.maximum(padded[:-2, 1:-1], padded[2:, 1:-1])
    return (strength > beside) | (strength > above)


def measure(subject: Subject) -> Result:
    """Mean CPBD over the frames of the face square, at each of the tools' sides."""
    import cv2

    values: dict[int, list[float]] = {side: [] for side in subject.tools.sides}
    for chunk in subject.chunks():
        for picture in subject.squares(chunk.made, chunk):
            for side in values:
                values[side].append(cpbd(cv2.cvtColor(subject.fitted(picture, side), cv2.COLOR_RGB2GRAY)))
    scores = {f"cpbd_{side}": float(np.mean(found)) if found else np.nan for side, found in values.items()}
    return Result(scores, "own CPBD on the face square", (f"{len(next(iter(values.values())))} frames",))
