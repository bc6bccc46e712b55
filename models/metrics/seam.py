"""Does the border of the pasted face show? The gradient across it, against that of the video behind.

Across means along the mask's own gradient, and where the mask changes faster a pixel counts more: of a hard edge only
the edge counts, of a feathered one all of the transition.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..blend import paste_area
from .results import Result
from .subject import Subject

LUMA = np.array([0.299, 0.587, 0.114])


def across(picture: NDArray[np.uint8], mask: NDArray[np.floating]) -> float:
    """Mean absolute gradient of the luma across the mask's border, grey levels of 255 a pixel.

    Args:
        picture: uint8 [H, W, 3] RGB.
        mask: [H, W] in 0..1, how much was drawn.

    Returns:
        NaN where the mask has no border.
    """
    mask_y, mask_x = np.gradient(np.asarray(mask, np.float64))
    steepness = np.hypot(mask_x, mask_y)
    if not steepness.any():
        return float("nan")
    light_y, light_x = np.gradient(picture @ LUMA)
    return float(np.abs(light_x * mask_x + light_y * mask_y).sum() / steepness.sum())


def measure(subject: Subject) -> Result:
    """Gradient across the border in the result less that in the reference, mean over the frames with a face."""
    pairs = []
    for chunk in subject.chunks():
        assert chunk.given is not None
        for i in np.flatnonzero(subject.place.present[chunk.start : chunk.start + len(chunk.made)]):
            area, mask = _border(subject, chunk.start + int(i))
            if mask is not None:
                pairs.append([across(frames[i][area], mask) for frames in (chunk.made, chunk.given)])
    values = np.array([*pairs, *np.empty((0, 2))]).reshape(-1, 2)
    values = values[np.isfinite(values).all(1)]
    made, given = values.mean(0) if len(values) else (np.nan, np.nan)
    scores = {"seam": float(made - given), "seam_made": float(made), "seam_given": float(given)}
    method = "border of this pack's own paste" if subject.border is None else "border as given"
    return Result(scores, method, (f"{len(values)} frames",))


def _border(subject: Subject, frame: int) -> tuple[tuple[slice, slice], NDArray | None]:
    """The part of the frame round the border, and the mask in it."""
    whole = (slice(None), slice(None))
    if subject.border is not None:
        return whole, np.asarray(subject.border(frame))
    width, height = subject.place.frame_size
    found = paste_area(subject.place.matrices[frame], height, width)
    return found if found is not None else (whole, None)
