"""The charts of the two scores that are looked at over time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from .charts import Line, Panel, draw
from .lse import SHIFTS
from .results import Result
from .sync import SyncReport
from .sync_model import FPS

SHOWN = 3  # faces


def sync_plot(report: SyncReport) -> NDArray[np.uint8]:
    """Distance and confidence second by second, and the distance at every offset, uint8 [600, 960, 3] RGB."""
    course, offsets = [], []
    for i, face in enumerate(report.faces[:SHOWN]):
        which = f" {i + 1}" if len(report.faces) > 1 else ""
        seconds = face.score.per_second()
        middle = float(face.first / FPS) + 0.5 + np.arange(len(seconds))
        course += [Line(f"LSE-D{which}", middle, seconds[:, 0]), Line(f"LSE-C{which}", middle, seconds[:, 1])]
        # The sound is taken from s frames later where the offset is -s.
        offsets.append(Line(f"face{which}", np.arange(SHIFTS, -SHIFTS - 1, -1.0)[::-1], face.score.curve[::-1]))
    best = f"offset {report.offset:+d} ({report.offset_ms:+.0f} ms)"
    return draw(
        [
            Panel(
                f"LSE-D {report.distance:.2f}   LSE-C {report.confidence:.2f}   second by second",
                f"seconds   ({report.method})",
                course,
                limits=(0.0, 0.0),
            ),
            Panel(
                "Mean distance of lips and sound at each offset",
                "offset in frames at 25 fps, + = the sound is early",
                offsets,
                marks=[(float(report.offset), best)],
            ),
        ]
    )


def identity_plot(result: Result, fps: float) -> NDArray[np.uint8]:
    """Cosines to source and target over time, uint8 [300, 960, 3] RGB."""
    names = {"to_source": "to source", "to_target": "to target"}
    lines, means = [], []
    for key, name in names.items():
        curve = result.curves[key]
        if key == "to_source" or np.isfinite(curve).any():
            lines.append(Line(name, np.arange(len(curve)) / fps, curve))
            means.append(f"{name} {result.scores[key]:.3f}")
    title = f"Cosine {', '.join(means)} (means)"
    return draw([Panel(title, f"seconds   ({result.method})", lines, limits=(0.0, 1.0))])
