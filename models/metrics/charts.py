"""Small line charts as pictures, with OpenCV and Pillow alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

WIDTH, HEIGHT = 960, 300  # px of a panel
LEFT, RIGHT, TOP, BOTTOM = 74, 24, 46, 52  # px round its axes
PAPER, INK, FAINT, GRID = (255, 255, 255), (40, 40, 46), (110, 110, 118), (226, 226, 230)
COLOURS = ((31, 99, 184), (214, 92, 28), (34, 139, 84), (150, 60, 160), (120, 90, 40), (90, 100, 110))
SHIFT = 4  # fractional bits of OpenCV's drawing coordinates
TEXT, TITLE = 14, 17  # px
DOTS = 60  # points up to which each gets a dot

Picture = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Line:
    """A curve: its name for the legend, and x and y [N]; NaN leaves a gap."""

    name: str
    x: NDArray[np.floating]
    y: NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Panel:
    """One pair of axes.

    Attributes:
        title: over it.
        across: what x is.
        lines: at least one.
        marks: (x, text) of vertical marks.
        limits: least and greatest y that are shown in any case.
    """

    title: str
    across: str
    lines: Sequence[Line]
    marks: Sequence[tuple[float, str]] = ()
    limits: tuple[float, float] | None = None


def draw(panels: Sequence[Panel]) -> Picture:
    """Panels below each other, uint8 [300 a panel, 960, 3] RGB."""
    return np.concatenate([_panel(panel) for panel in panels])


def ticks(low: float, high: float, most: int = 8) -> NDArray[np.float64]:
    """Round numbers (1, 2 or 5 times a power of ten apart) within a range, at most `most`, at least two."""
    span = max(high - low, 1e-9)
    power = 10.0 ** math.floor(math.log10(span / most))
    step = next(factor * power for factor in (1, 2, 5, 10, 20) if span / (factor * power) <= most - 1)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return np.arange(first, last + 1, dtype=np.float64) * step


def _panel(panel: Panel) -> Picture:
    import cv2

    canvas = np.full((HEIGHT, WIDTH, 3), PAPER, np.uint8)
    (x0, x1), (y0, y1) = _ranges(panel)
    axis = _Axes(x0, x1, y0, y1)
    across, up = ticks(x0, x1, 16), ticks(y0, y1)
    for value in across:
        axis.segment(canvas, (value, y0), (value, y1), GRID)
    for value in up:
        axis.segment(canvas, (x0, value), (x1, value), GRID)
    for x, _ in panel.marks:
        axis.segment(canvas, (x, y0), (x, y1), FAINT)
    for line, colour in zip(panel.lines, _colours(panel), strict=True):
        points = axis.places(line.x, line.y)
        for run in _runs(line.y):
            cv2.polylines(canvas, [points[run]], False, colour, 2, cv2.LINE_AA, SHIFT)
            if len(points) <= DOTS or run.stop - run.start == 1:
                for point in points[run]:
                    cv2.circle(canvas, point.tolist(), 3 << SHIFT, colour, -1, cv2.LINE_AA, SHIFT)
    cv2.rectangle(canvas, (LEFT, TOP), (WIDTH - RIGHT, HEIGHT - BOTTOM), FAINT, 1)
    return _lettered(canvas, panel, axis, across, up)


@dataclass(frozen=True)
class _Axes:
    """Ranges of x and y, and where they lie in the picture."""

    x0: float
    x1: float
    y0: float
    y1: float

    def place(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Numbers -> px."""
        across = LEFT + (x - self.x0) / (self.x1 - self.x0) * (WIDTH - LEFT - RIGHT)
        return across, HEIGHT - BOTTOM - (y - self.y0) / (self.y1 - self.y0) * (HEIGHT - TOP - BOTTOM)

    def places(self, x: Any, y: Any) -> NDArray[np.int32]:
        """The same as OpenCV's fixed-point numbers; NaN becomes anything, as nothing is drawn there."""
        points = np.stack(self.place(np.asarray(x, np.float64), np.nan_to_num(np.asarray(y, np.float64))), -1)
        return np.rint(points.clip(-1e4, 1e4) * (1 << SHIFT)).astype(np.int32)

    def segment(self, canvas: Picture, begin: tuple[float, float], end: tuple[float, float], colour: Any) -> None:
        import cv2

        (xa, ya), (xb, yb) = (self.place(*point) for point in (begin, end))
        cv2.line(canvas, (round(xa), round(ya)), (round(xb), round(yb)), colour, 1)


def _ranges(panel: Panel) -> tuple[tuple[float, float], tuple[float, float]]:
    """Of x and y; neither is empty."""
    x = np.concatenate([line.x for line in panel.lines])
    y = np.concatenate([line.y for line in panel.lines])
    y = np.concatenate([y[np.isfinite(y)], panel.limits or ()])
    low, high = (float(y.min()), float(y.max())) if len(y) else (0.0, 1.0)
    room = 0.06 * (high - low) or 0.5
    begin, end = float(x.min()), float(x.max())
    margin = 0.015 * (end - begin) or 0.5
    return (begin - margin, end + margin), (low - room, high + room)


def _runs(y: NDArray[np.floating]) -> list[slice]:
    """Stretches without NaN."""
    valid = np.concatenate([[False], np.isfinite(y), [False]]).astype(np.int8)
    return [slice(int(start), int(stop)) for start, stop in np.flatnonzero(np.diff(valid)).reshape(-1, 2)]


def _colours(panel: Panel) -> list[tuple[int, int, int]]:
    return [COLOURS[i % len(COLOURS)] for i in range(len(panel.lines))]


def _lettered(canvas: Picture, panel: Panel, axis: _Axes, across: Any, up: Any) -> Picture:
    """Title, legend, numbers and marks, by Pillow: OpenCV's letters are strokes without lower lengths."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.fromarray(canvas)
    pen = ImageDraw.Draw(image)
    small, large = (ImageFont.load_default(size) for size in (TEXT, TITLE))
    pen.text((LEFT, 14), panel.title, INK, large, "lt")
    for value in across:
        pen.text((axis.place(value, 0)[0], HEIGHT - BOTTOM + 8), f"{value + 0.0:g}", FAINT, small, "mt")
    for value in up:
        pen.text((LEFT - 8, axis.place(0, value)[1]), f"{value + 0.0:g}", FAINT, small, "rm")
    pen.text(((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 10), panel.across, INK, small, "mb")
    for x, text in panel.marks:
        half = pen.textlength(text, small) / 2
        place = min(max(axis.place(x, 0)[0], LEFT + half), WIDTH - RIGHT - half)
        pen.text((place, TOP - 4), text, INK, small, "mb")
    right = WIDTH - RIGHT
    for line, colour in reversed(list(zip(panel.lines, _colours(panel), strict=True))):
        pen.text((right, 24), line.name, colour, small, "rm")
        right -= int(pen.textlength(line.name, small)) + 24
    return np.array(image)
