"""What a metric gives back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Result:
    """Numbers of one metric for one video, or for a set.

    Attributes:
        scores: by name, see the registry; NaN = could not be measured, and a note says why.
        method: what measured them, in a line; numbers of different methods do not compare.
        notes: counts and remarks.
        curves: course over the frames, by name of the score, float [N].
    """

    scores: Mapping[str, float]
    method: str
    notes: tuple[str, ...] = ()
    curves: Mapping[str, NDArray[np.floating]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Collected:
    """What a metric over a set takes from one video, to become a number together with that of others.

    Attributes:
        arrays: by name; can be stored as they are.
        method: as of a `Result`.
    """

    arrays: Mapping[str, NDArray]
    method: str


def arrays_of(collected: Sequence[Collected], name: str) -> NDArray:
    """One array of all videos, end to end.

    Raises:
        ValueError: nothing given, or parts of different methods.
    """
    _one_method([part.method for part in collected])
    return np.concatenate([part.arrays[name] for part in collected])


def average(results: Sequence[Result]) -> Result:
    """Means over videos, with their number; a video without a score (NaN) does not count in it.

    Raises:
        ValueError: nothing given, or results of different methods.
    """
    method = _one_method([result.method for result in results])
    means, notes = {}, []
    for name in results[0].scores:
        values = np.array([result.scores[name] for result in results])
        valid = values[np.isfinite(values)]
        means[name] = float(valid.mean()) if len(valid) else float("nan")
        if len(valid) < len(values):
            notes.append(f"{name}: {len(values) - len(valid)} of {len(values)} videos without a value")
    return Result(means, method, (f"{len(results)} videos", *notes))


def _one_method(methods: Sequence[str]) -> str:
    different = sorted(set(methods))
    if len(different) != 1:
        found = "; ".join(different) or "nothing"
        raise ValueError(f"Only numbers of one method can be taken together; got: {found}.")
    return different[0]
