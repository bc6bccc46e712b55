"""Landmark distances of a result and the video it was made from (specification section 6.2).

Points of both are looked for in the same upright crop, in px of a crop of 256 px, and each set is taken round its own
centre: LMD is the mean distance over all 68 points, LMD-m over the 20 of the mouth round the mouth's centre. Systems
that give the face another shape, as swaps do, cannot reach 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .landmarks import MARGIN, MOUTH, eye_distance, in_unit_crop
from .results import Result
from .subject import CROP, Subject

Points = NDArray[np.float64]


def distances(made: Points, given: Points) -> dict[str, Points]:
    """Distances frame by frame.

    Args:
        made: [N, 68, 2], NaN where there is no face.
        given: the same frames of the reference.

    Returns:
        "lmd" and "lmd_m" in the points' unit, "lmd_eyes" and "lmd_m_eyes" as shares of the reference's distance of the
        outer eye corners; float64 [N] each, NaN where either is.
    """
    whole, mouth = _apart(made, given), _apart(made[:, MOUTH], given[:, MOUTH])
    eyes = eye_distance(given)
    return {"lmd": whole, "lmd_m": mouth, "lmd_eyes": whole / eyes, "lmd_m_eyes": mouth / eyes}


def _apart(a: Points, b: Points) -> Points:
    centred = (a - a.mean(1, keepdims=True)) - (b - b.mean(1, keepdims=True))
    return np.asarray(np.linalg.norm(centred, axis=-1).mean(1))


def both_points(subject: Subject) -> tuple[Points, Points | None]:
    """Landmarks of result and reference (None without one), [N, 68, 2] px of the unit crop at 256; NaN = no face."""
    landmarks = subject.tools.landmarks
    assert landmarks is not None
    made: list[Points] = []
    given: list[Points] = []
    side = round(CROP * MARGIN)
    for chunk in subject.chunks():
        for frames, points in ((chunk.made, made), (chunk.given, given)):
            if frames is not None:
                points.append(in_unit_crop(landmarks(subject.crops(frames, chunk, MARGIN, side))) * CROP)
    sets = [np.concatenate(points) for points in (made, given) if points]
    for found in sets:
        found[~subject.seen] = np.nan
    return sets[0], sets[1] if len(sets) > 1 else None


def measure(subject: Subject) -> Result:
    """LMD and LMD-m, over the frames in which detector and landmark model find the face in both videos."""
    landmarks = subject.tools.landmarks
    assert landmarks is not None
    made, given = both_points(subject)
    assert given is not None
    curves = distances(made, given)
    used = int(np.isfinite(curves["lmd"]).sum())
    scores = {name: float(curve[np.isfinite(curve)].mean()) if used else np.nan for name, curve in curves.items()}
    return Result(scores, landmarks.name, (f"{used} of {subject.frames} frames have the face in both",), curves)
