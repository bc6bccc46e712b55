"""From single videos to the numbers of a table: means, and intervals by bootstrap over videos."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.metrics import METRICS
from models.metrics.identity import combine
from models.metrics.results import Collected

from .judging import Item, Judge

RESAMPLES = 2000
PERCENTILES = (2.5, 97.5)
SEED = 0


@dataclass(frozen=True)
class Cell:
    """One number.

    Attributes:
        value: mean over videos, or of the set.
        low: 2.5th percentile of the bootstrap; NaN = no interval.
        high: 97.5th.
        videos: that went in.
        notes: of the metric.
    """

    value: float
    low: float
    high: float
    videos: int
    notes: tuple[str, ...] = ()


def interval(count: int, statistic: Callable[[NDArray[np.intp]], float]) -> tuple[float, float]:
    """Percentile bootstrap.

    Args:
        count: of videos; below two there is no interval.
        statistic: of a resample, given as row numbers [count].

    Returns:
        Low and high end, NaN where there is none.
    """
    if count < 2:
        return float("nan"), float("nan")
    random = np.random.default_rng(SEED)
    values = [statistic(random.integers(0, count, count)) for _ in range(RESAMPLES)]
    low, high = np.nanpercentile(values, PERCENTILES)
    return float(low), float(high)


def cells(items: Sequence[Item], judge: Judge, people: NDArray[np.floating]) -> tuple[dict[str, Cell], dict[str, str]]:
    """A system's numbers by score, and by metric what measured them.

    Args:
        items: its videos.
        judge: what measured them.
        people: sources of the whole test set, [M, D]: the gallery is the same for systems that lack a video.
    """
    found: dict[str, Cell] = {}
    methods: dict[str, str] = {}
    results = [item.results(judge) for item in items]
    for name in judge.names:
        if METRICS[name].level == "set":
            parts = [part for item in items if (part := item.collected(name, judge)) is not None]
            if parts:
                methods[name] = parts[0].method
                found |= _of_set(name, parts, people)
            continue
        measured = [result[name] for result in results if name in result]
        if measured:
            methods[name] = measured[0].method
        for score in METRICS[name].scores if measured else ():
            values = np.array([one.scores[score.name] for one in measured])
            values = values[np.isfinite(values)]
            if len(values):
                low, high = _mean_interval(values)
                found[score.name] = Cell(float(values.mean()), low, high, len(values))
    return found, methods


def _mean_interval(values: NDArray[np.float64]) -> tuple[float, float]:
    return interval(len(values), lambda rows: float(values[rows].mean()))


@dataclass(frozen=True)
class Difference:
    """One system's number less another's, of the videos that both have.

    Attributes:
        cell: mean over videos, with interval.
        wins: videos on which the one is better; None = the score has no better.
    """

    cell: Cell
    wins: int | None


def differences(one: Sequence[Item], other: Sequence[Item], judge: Judge) -> dict[str, Difference]:
    """By score, what `one` has more than `other`, pair by pair in the same order."""
    results = [(a.results(judge), b.results(judge)) for a, b in zip(one, other, strict=True)]
    found = {}
    for name in judge.names:
        both = [(a[name].scores, b[name].scores) for a, b in results if name in a and name in b]
        for score in METRICS[name].scores if both and METRICS[name].level == "clip" else ():
            values = np.array([(a[score.name], b[score.name]) for a, b in both])
            values = values[np.isfinite(values).all(1)]
            if not len(values):
                continue
            more = values[:, 0] - values[:, 1]
            low, high = _mean_interval(more)
            better = {"lower": -more, "higher": more, "zero": np.abs(values[:, 1]) - np.abs(values[:, 0])}
            wins = int((better[score.better] > 0).sum()) if score.better else None
            found[score.name] = Difference(Cell(float(more.mean()), low, high, len(more)), wins)
    return found


def _of_set(name: str, parts: list[Collected], people: NDArray[np.floating]) -> dict[str, Cell]:
    """Numbers of a set of videos.

    Distances between distributions get no interval: a resample holds fewer different faces, and such a distance grows
    as they get fewer, so the interval would lie beside the number.
    """
    retrieval = name == "id_retrieve"
    result = combine(parts, people) if retrieval else METRICS[name].combine(parts)
    made = {}
    for score, value in result.scores.items():
        if not np.isfinite(value):
            continue
        low = high = float("nan")
        if retrieval:
            low, high = _retrieval_interval(parts, score, people)
        made[score] = Cell(value, low, high, len(parts), result.notes)
    return made


def _retrieval_interval(parts: Sequence[Collected], score: str, people: NDArray[np.floating]) -> tuple[float, float]:
    """The gallery stays whole: only whose videos are asked is drawn anew."""
    rates = np.array([combine([part], people).scores[score] for part in parts])
    counts = np.array([len(part.arrays["vectors"]) if score == "id_frames" else 1 for part in parts])
    hits = np.nan_to_num(rates) * counts
    return interval(len(parts), lambda rows: float(hits[rows].sum() / max(1, counts[rows].sum())))
