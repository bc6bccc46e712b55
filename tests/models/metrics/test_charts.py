"""Charts: what is drawn where."""

from __future__ import annotations

import numpy as np
import pytest

from models.metrics import charts
from models.metrics.charts import Line, Panel, draw, ticks
from models.metrics.lse import SyncScore
from models.metrics.plots import identity_plot, sync_plot
from models.metrics.results import Result
from models.metrics.sync import ScoredFace, SyncReport

pytest.importorskip("cv2")


def coloured(picture: np.ndarray, index: int) -> np.ndarray:
    """Pixels inside the axes in a line's own colour."""
    inside = picture[charts.TOP + 1 : charts.HEIGHT - charts.BOTTOM, charts.LEFT + 1 : charts.WIDTH - charts.RIGHT]
    return (inside == charts.COLOURS[index]).all(-1)


@pytest.mark.parametrize(
    "low, high", [(0, 1), (-15, 15), (0, 13.2), (-0.2, 1.0), (3, 3.0001), (0, 36000), (-7e-5, 2e-5)]
)
@pytest.mark.parametrize("most", [8, 16])
def test_ticks_are_few_round_and_inside(low: float, high: float, most: int):
    found = ticks(low, high, most)
    assert 2 <= len(found) <= most
    assert low - 1e-9 <= found.min()
    assert found.max() <= high + 1e-9
    steps = np.diff(found)
    assert steps == pytest.approx(np.full(len(steps), steps[0]))
    assert f"{steps[0]:.3e}"[:5] in ("1.000", "2.000", "5.000")


def test_a_rising_line_rises_and_a_gap_stays_empty():
    y = np.linspace(0, 1, 200)
    y[80:120] = np.nan
    picture = draw([Panel("title", "x", [Line("a", np.arange(200.0), y)])])
    assert picture.shape == (charts.HEIGHT, charts.WIDTH, 3)
    drawn = coloured(picture, 0)
    columns = np.flatnonzero(drawn.any(0))
    heights = [np.flatnonzero(drawn[:, column]).mean() for column in columns]
    assert heights[0] > heights[-1] + 150
    width = drawn.shape[1]
    assert not drawn[:, int(0.43 * width) : int(0.57 * width)].any()
    assert drawn[:, int(0.30 * width)].any()


def test_panels_stack_and_odd_numbers_are_drawn():
    """One point, one value, nothing finite, a great many points."""
    lines = [
        Line("one", np.array([2.0]), np.array([5.0])),
        Line("flat", np.arange(3.0), np.full(3, 7.0)),
        Line("none", np.arange(3.0), np.full(3, np.nan)),
        Line("many", np.arange(20000.0), np.sin(np.arange(20000.0))),
    ]
    picture = draw([Panel(line.name, "x", [line]) for line in lines])
    assert picture.shape == (4 * charts.HEIGHT, charts.WIDTH, 3)
    one, flat, none, many = np.split(picture, 4)
    assert coloured(one, 0).sum() > 10
    assert coloured(flat, 0).any()
    assert not coloured(none, 0).any()
    assert coloured(many, 0).any()


def test_sync_plot_has_its_least_value_at_the_reported_offset():
    distances = np.full((60, 31), 10.0, np.float32)
    distances[:, 12] = 4  # sound from three frames earlier: offset +3
    score = SyncScore(distances)
    report = SyncReport("m", "video", False, (ScoredFace(0, 65, score),))
    assert score.offset == 3
    lower = sync_plot(report)[charts.HEIGHT :]
    drawn = coloured(lower, 0)
    rows, columns = np.nonzero(drawn)
    deepest = columns[rows == rows.max()].mean() / drawn.shape[1]
    assert deepest == pytest.approx(0.5 + 3 / 30 * 0.97, abs=0.01)


def test_identity_plot_without_a_target():
    curves = {"to_source": np.linspace(0.5, 0.6, 50), "to_target": np.full(50, np.nan)}
    result = Result({"to_source": 0.55, "to_target": np.nan}, "m", (), curves)
    picture = identity_plot(result, 25)
    assert coloured(picture, 0).any()
    assert not coloured(picture, 1).any()
