"""Does the mouth rest while nobody speaks? Measured in the stretches that the sound says are silent.

The opening needs a landmark model; the change of the mouth's pixels needs none, but sees light and noise too.
"""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray

from ..audio import WINDOW_COLUMNS, window_starts
from ..resample import to_mono_16k
from ..speech import speech_activity
from .landmarks import opening
from .lmd import both_points
from .results import Result
from .subject import CROP, MOUTH, Subject

ACTIVE = 0.05  # speech activity from which on somebody speaks
LEAST = 5  # frames of a stretch

Span = tuple[int, int]


def silent_spans(audio: tuple[NDArray[np.float32], int], frames: int, fps: Fraction) -> list[Span]:
    """Stretches (start, stop) of five frames or more with no speech in the 200 ms of sound round any of them."""
    activity = speech_activity(to_mono_16k(torch.as_tensor(audio[0]), audio[1]))
    activity = torch.nn.functional.pad(activity, (0, max(0, WINDOW_COLUMNS - len(activity))))
    columns = window_starts(frames, fps, len(activity), lag=-1)[:, None] + torch.arange(WINDOW_COLUMNS)
    quiet = (activity[columns].amax(1) < ACTIVE).numpy()
    edges = np.flatnonzero(np.diff(np.concatenate([[False], quiet, [False]]).astype(np.int8))).reshape(-1, 2)
    return [(int(start), int(stop)) for start, stop in edges if stop - start >= LEAST]


def spread(values: NDArray[np.floating], spans: Sequence[Span]) -> float:
    """Standard deviation within stretches: root of the mean square distance to each stretch's own mean; NaN = none."""
    parts = [values[start:stop] for start, stop in spans]
    parts = [part[np.isfinite(part)] for part in parts]
    away = np.concatenate([part - part.mean() for part in parts if len(part)] or [np.empty(0)])
    return float(np.sqrt((away**2).mean())) if len(away) else float("nan")


def measure(subject: Subject) -> Result:
    """Spread of the lips' opening, and change of the mouth from frame to frame, while nobody speaks."""
    assert subject.audio is not None
    spans = silent_spans(subject.audio, subject.frames, subject.video.info.fps)
    silent = sum(stop - start for start, stop in spans)
    note = f"{silent} of {subject.frames} frames silent, in {len(spans)} stretches"
    scores, method = {}, "mouth pixels"
    made, given = _changes(subject)
    for name, change in (("silence_change", made), ("silence_change_given", given)):
        parts = [change[start + 1 : stop] for start, stop in spans] if change is not None else []
        values = np.concatenate([*parts, np.empty(0)])
        values = values[np.isfinite(values)]
        scores[name] = float(values.mean()) if len(values) else np.nan
    scores |= {"silence_opening": np.nan, "silence_opening_given": np.nan}
    if subject.tools.landmarks is not None:
        points = both_points(subject)
        for name, one in zip(("silence_opening", "silence_opening_given"), points, strict=True):
            if one is not None:
                scores[name] = 100 * spread(opening(one), spans)
        method = f"mouth pixels; opening by {subject.tools.landmarks.name}"
    return Result(scores, method, (note,))


def _changes(subject: Subject) -> tuple[NDArray[np.float64], NDArray[np.float64] | None]:
    """Mean absolute change of the mouth against the frame before, grey levels of 255, [N] of result and reference."""
    made = np.full(subject.frames, np.nan)
    given = None if subject.reference is None else made.copy()
    before: list[NDArray | None] = [None, None]
    for chunk in subject.chunks():
        for which, (frames, change) in enumerate(((chunk.made, made), (chunk.given, given))):
            if frames is None or change is None:
                continue
            mouths = subject.crops(frames, chunk, side=CROP)[:, MOUTH[0], MOUTH[1]].astype(np.float32)
            previous = before[which]
            row = mouths if previous is None else np.concatenate([previous[None], mouths])
            steps = np.abs(np.diff(row, axis=0)).mean((1, 2, 3))
            change[chunk.start + len(mouths) - len(steps) : chunk.start + len(mouths)] = steps
            before[which] = mouths[-1]
    for change in (made, given):
        if change is not None:
            change[1:][~(subject.seen[1:] & subject.seen[:-1])] = np.nan
    return made, given
