"""The registry: every entry is whole, and says what it lacks."""

from __future__ import annotations

from importlib import import_module

import numpy as np
import pytest

from models.metrics import BETTER, METRICS, NEEDS, metric
from models.metrics.results import Result, average
from models.metrics.subject import Subject, Tools
from tests.models.metrics.stage import MarkDetector, murmur, video


@pytest.mark.parametrize("name", METRICS)
def test_entries_are_whole(name: str):
    entry = METRICS[name]
    module = import_module(f"models.metrics.{entry.module}")
    assert all(callable(getattr(module, function)) for function in entry.functions)
    assert (entry.level, len(entry.functions)) in (("clip", 1), ("set", 2))
    assert set(entry.needs) <= set(NEEDS)
    assert all(score.better in BETTER and score.title for score in entry.scores)
    assert len({score.name for entry in METRICS.values() for score in entry.scores}) == sum(
        len(entry.scores) for entry in METRICS.values()
    )


@pytest.mark.parametrize("name", [name for name, entry in METRICS.items() if entry.needs])
def test_lacking_needs_are_named(name: str):
    subject = Subject(video(np.ones(3)), Tools(MarkDetector()))
    entry = metric(name)
    assert entry.lacking(subject) == list(entry.needs)
    with pytest.raises(ValueError, match=f"lacks {', '.join(entry.needs)}: give"):
        (entry.measure if entry.level == "clip" else entry.collect)(subject)


def test_scores_are_those_announced():
    subject = Subject(video(np.ones(30)), Tools(MarkDetector()), audio=murmur(np.ones(30)))
    for name in ("cpbd", "silence"):
        assert set(metric(name).measure(subject).scores) == {score.name for score in METRICS[name].scores}


def test_clip_and_set_are_not_mixed_up():
    subject = Subject(video(np.ones(3)), Tools(MarkDetector()))
    with pytest.raises(ValueError, match="collect from each"):
        metric("fid").measure(subject)
    with pytest.raises(ValueError, match="measure each"):
        metric("cpbd").collect(subject)
    with pytest.raises(ValueError, match="at least one"):
        metric("fid").combine([])


def test_unknown_name():
    with pytest.raises(ValueError, match="Unknown metric 'ssim'.*lse"):
        metric("ssim")


def test_averages_leave_out_what_could_not_be_measured():
    results = [
        Result({"a": 1.0, "b": np.nan}, "m"),
        Result({"a": 3.0, "b": 5.0}, "m"),
        Result({"a": 2.0, "b": 7.0}, "m"),
    ]
    mean = average(results)
    assert mean.scores == {"a": 2.0, "b": 6.0}
    assert mean.notes == ("3 videos", "b: 1 of 3 videos without a value")
    with pytest.raises(ValueError, match="one method"):
        average([*results, Result({"a": 1.0, "b": 1.0}, "other")])
    with pytest.raises(ValueError, match="one method.*nothing"):
        average([])
