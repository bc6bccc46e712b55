"""How much more the mouth trembles than in the video it was made from.

Trembling is the second difference of the mouth's points over time: a steady motion has none, and what speech itself has
is in the reference too.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .landmarks import MOUTH
from .lmd import both_points
from .results import Result
from .subject import CROP, Subject

CORNERS = slice(3, 5)  # of the mouth, among the detector's five points


def jitter(points: NDArray[np.floating]) -> float:
    """Mean length of the second difference of points [N, P, 2] over time; frames without points are NaN.

    Returns:
        NaN when no three frames in a row have points.
    """
    second = np.linalg.norm(points[2:] - 2 * points[1:-1] + points[:-2], axis=-1)
    valid = second[np.isfinite(second)]
    return float(valid.mean()) if len(valid) else float("nan")


def measure(subject: Subject) -> Result:
    """Jitter of the result less that of the reference, in px of a crop of 256.

    The points are the 20 of the mouth where there is a landmark model, else the detector's two mouth corners.
    """
    landmarks = subject.tools.landmarks
    if landmarks is not None:
        made, given = both_points(subject)
        assert given is not None
        made, given, method = made[:, MOUTH], given[:, MOUTH], f"20 mouth points of {landmarks.name}"
    else:
        made, given = (_corners(subject, track.landmarks) for track in (subject.track, subject.place))
        method = f"two mouth corners of the detector {subject.tools.detector.name}"
    one, two = jitter(made), jitter(given)
    scores = {"jitter": one - two, "jitter_made": one, "jitter_given": two}
    return Result(scores, method, (f"{int(np.isfinite(made[:, 0, 0]).sum())} of {subject.frames} frames",))


def _corners(subject: Subject, five: NDArray[np.float32]) -> NDArray[np.float64]:
    """Mouth corners of [N, 5, 2] frame pixels in px of the unit crop at 256, NaN where a face is missing."""
    matrices = subject.place.matrices
    points = (five[:, CORNERS] + 0.5) @ matrices[:, :, :2].transpose(0, 2, 1) + matrices[:, None, :, 2]
    points = np.asarray(points * CROP, np.float64)
    points[~subject.seen] = np.nan
    return points
