"""Means, intervals, and the tables they go into."""

from __future__ import annotations

import csv
import io
from types import SimpleNamespace

import numpy as np
import pytest

from models.metrics.results import Collected, Result
from models.metrics.rtf import Timing
from training.evaluation.contenders import TRUTH, Contender, Entry, Origin
from training.evaluation.report import skipped_table, warning, weights_table
from training.evaluation.summary import Cell, cells, differences, interval
from training.evaluation.tables import csv_text, difference_table, quality_tables, shown, speed_tables


def entry(name: str, network: str = "wavsyncswap", what: str = "weights", **options) -> Entry:
    if network == TRUTH:
        return Entry(Contender(TRUTH))
    stand_in = what == "random weights"
    origin = Origin("f.pth", None, 64 * "a", what, network, stand_in)  # type: ignore[arg-type]
    return Entry(Contender(name, ("f.pth",), **options), (origin,))


class StubItem:
    """A video whose numbers are given."""

    def __init__(self, scores: dict[str, float], vectors=None, source=None) -> None:
        self.scores, self.vectors, self.source = scores, vectors, source

    def results(self, judge) -> dict[str, Result]:
        return {"cpbd": Result(self.scores, "by hand")} if self.scores else {}

    def collected(self, name: str, judge) -> Collected | None:
        if self.vectors is None:
            return None
        return Collected({"vectors": self.vectors, "source": self.source[None]}, "recogniser r")


def test_interval():
    values = np.random.default_rng(0).normal(5, 1, 400)
    low, high = interval(len(values), lambda rows: float(values[rows].mean()))
    assert low < values.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * values.std() / 20, rel=0.1)
    assert np.isnan(interval(1, lambda rows: 0.0)).all()


def test_cells_are_means_of_what_there_is():
    items = [StubItem({"cpbd_96": 0.2, "cpbd_256": np.nan}), StubItem({"cpbd_96": 0.4, "cpbd_256": 0.1}), StubItem({})]
    found, methods = cells(items, SimpleNamespace(names=("cpbd",)), np.eye(3))  # type: ignore[arg-type]
    assert found["cpbd_96"].value == pytest.approx(0.3)
    assert (found["cpbd_96"].low, found["cpbd_96"].high) == pytest.approx((0.2, 0.4))
    assert [found[name].videos for name in ("cpbd_96", "cpbd_256")] == [2, 1]
    assert np.isnan(found["cpbd_256"].low)
    assert methods == {"cpbd": "by hand"}


def test_retrieval_draws_whose_videos_are_asked():
    people = np.eye(3, dtype=np.float32)
    right, wrong = np.stack([people[0]] * 4), np.stack([people[2]] * 2)
    items = [StubItem({}, right, people[0]), StubItem({}, wrong, people[1]), StubItem({}, people[2:], people[2])]
    found, _ = cells(items, SimpleNamespace(names=("id_retrieve",)), people)  # type: ignore[arg-type]
    assert found["id_frames"].value == pytest.approx(100 * 5 / 7)
    assert found["id_videos"].value == pytest.approx(100 * 2 / 3)
    assert found["id_videos"].low == 0
    assert found["id_videos"].high == 100


def test_differences_are_video_by_video():
    one = [StubItem({"cpbd_96": value, "cpbd_256": np.nan}) for value in (0.5, 0.2, 0.9)]
    other = [StubItem({"cpbd_96": value, "cpbd_256": 0.1}) for value in (0.1, 0.3)] + [StubItem({})]
    found = differences(one, other, SimpleNamespace(names=("cpbd",)))  # type: ignore[arg-type]
    assert list(found) == ["cpbd_96"]
    assert found["cpbd_96"].cell.value == pytest.approx(0.15)
    assert (found["cpbd_96"].cell.videos, found["cpbd_96"].wins) == (2, 1)
    table = difference_table(entry("ours"), [(entry("w", "wav2lip"), found), (entry("x"), {})], ["Stand-ins."])
    assert table is not None
    assert list(table.rows) == [["w", "+0.150 [-0.100, +0.400], 1 of 2"], ["x", "-"]]
    assert difference_table(entry("ours"), [(entry("x"), {})], []) is None


def test_numbers_as_shown():
    assert shown(Cell(1.23456, np.nan, np.nan, 3), 2, 3) == "1.23"
    assert shown(Cell(1.2, 1.0, 1.5, 2), 1, 3) == "1.2 [1.0, 1.5] (n 2)"


def test_quality_tables_stand_beside_the_papers_numbers():
    numbers = {"lse_d": Cell(7.5, 7.0, 8.0, 4), "lse_c": Cell(6.0, 5.0, 7.0, 4)}
    found = [(entry("", TRUTH), numbers), (entry("ours"), numbers), (entry("kept", keep=True), {})]
    (table,) = quality_tables(found, {"lse": "SyncNet v2"}, ["Stand-ins."])
    assert list(table.head) == ["system", "n", "LSE-D ↓", "paper", "LSE-C ↑", "paper"]
    assert list(table.rows[0]) == ["ground_truth", "4", "7.500 [7.000, 8.000]", "7.19", "6.000 [5.000, 7.000]", "7.74"]
    assert table.rows[1][3] == "5.88"
    assert list(table.rows[2]) == ["kept", "0", "-", "-", "-", "-"]
    text = table.markdown()
    assert text.index("Stand-ins.") < text.index("Measured by: LSE-D, LSE-C: SyncNet v2.") < text.index("| system |")
    assert "Not measured: LMD, LMD-m" in text
    assert "<td>7.500 [7.000, 8.000]</td>" in table.page()
    rows = list(csv.DictReader(io.StringIO(csv_text([table]))))
    assert [(row["system"], row["score"], row["paper"]) for row in rows[:2]] == [
        ("ground_truth", "lse_d", "7.19"),
        ("ground_truth", "lse_c", "7.74"),
    ]


def test_speed_tables():
    slow, fast = entry("cascade", "cascade", "random weights"), entry("ours")
    timed = {
        what: [Timing("cascade", what, (2.0, 4.0), 2), Timing("ours", what, (1.0, 1.0), 2)] for what in ("net", "e2e")
    }
    factors, ratios = speed_tables([slow, fast], timed, [])
    assert list(factors.rows[0]) == [
        "cascade (random weights)",
        "1.5000 ± 0.7071",
        "1.0000",
        "1.5000 ± 0.7071",
        "1.0000",
        "2",
        "0.2005 ± 0.0239",
    ]
    assert list(ratios.head) == ["system", "net, over ours", "e2e, over ours"]
    assert ratios.rows[0][1] == "3.00 ± 1.41"
    assert ratios.rows[1][1] == "-"


def test_warning_names_stand_ins():
    public = entry("w", "wav2lip", "public file wav2lip.pth")
    assert warning([public, entry("", TRUTH)]) == ""
    text = warning([public, entry("r", "wav2lip", "random weights"), entry("m")])
    assert "only the speed means something: r; not the public weights: m." in text
    assert 64 * "a" in weights_table([public]).markdown()


def test_equal_reasons_stand_together():
    table = skipped_table([("a", "p1", "lse", "short"), ("a", "p2", "lse", "short"), ("b", "p1", "lse", "short")], 2)
    assert list(table.rows) == [("lse", "a: all 2; b: p1", "short")]
    assert skipped_table([], 2).rows[0][0] == "nothing"
