"""The three tables, and a fourth of what only this project measures, in forms for people and for programs."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from models.metrics import METRICS, Score
from models.metrics.rtf import Timing, ratio

from . import paper
from .contenders import Entry
from .summary import Cell, Difference

KNOWN_SCORES = {score.name: score for metric in METRICS.values() for score in metric.scores}
QUALITY = (
    ("Table 1: lips", ("lse_d", "lse_c", "lmd", "lmd_m")),
    ("Table 2: picture and identity", ("fid_96", "cpbd_96", "id_videos")),
    (
        "Table 2, further: other sizes and measures",
        ("fid_256", "recogniser_distance", "cpbd_256", "id_frames", "to_source", "to_target"),
    ),
    ("Beside the paper: steadiness and paste", ("offset", "jitter", "silence_change", "silence_opening", "seam")),
)
DIFFERENCES = ("lse_d", "lse_c", "lmd", "lmd_m", "cpbd_96", "to_source", "to_target", "jitter", "seam")
ARROWS = {"lower": " ↓", "higher": " ↑", "zero": " → 0", "": ""}
NONE = "-"


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
        title: with number.
        head: of the columns.
        rows: cells as text.
        notes: between title and table.
        values: what the cells were made of, a dictionary each number: for CSV and JSON.
    """

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    notes: Sequence[str] = ()
    values: Sequence[Mapping[str, Any]] = field(default_factory=list)

    def markdown(self) -> str:
        """GitHub's form."""
        lines = [f"## {self.title}", "", *(f"{note}\n" for note in self.notes)]
        for i, row in enumerate((self.head, *self.rows)):
            lines.append(f"| {' | '.join(cell.replace('|', '/') for cell in row)} |")
            lines += [f"|{'---|' * len(self.head)}"] if i == 0 else []
        return "\n".join([*lines, ""])

    def page(self) -> str:
        """HTML."""
        rows = [
            f"<tr>{''.join(f'<{tag}>{html.escape(cell)}</{tag}>' for cell in row)}</tr>"
            for tag, row in (("th", self.head), *(("td", row) for row in self.rows))
        ]
        notes = "".join(f"<p class='note'>{html.escape(note)}</p>" for note in self.notes)
        return f"<h2>{html.escape(self.title)}</h2>{notes}<table>{''.join(rows)}</table>"


def label(entry: Entry) -> str:
    """A system's name, with a warning where its weights are random."""
    return f"{entry.name} (random weights)" if entry.stand_in else entry.name


def quality_tables(
    found: Sequence[tuple[Entry, Mapping[str, Cell]]], methods: Mapping[str, str], notes: Sequence[str]
) -> list[Table]:
    """Tables 1, 2 and what belongs beside them; scores that nobody has are left out.

    Args:
        found: each system's numbers by score.
        methods: what measured them, by metric.
        notes: what the head of each has to say, such as stand-ins.
    """
    tables = []
    for title, names in QUALITY:
        scores = [KNOWN_SCORES[name] for name in names if any(name in cells for _, cells in found)]
        absent = [KNOWN_SCORES[name].title for name in names if all(name not in cells for _, cells in found)]
        if not scores:
            continue
        missing = [f"Not measured: {', '.join(absent)}; see Left out."] if absent else []
        by = [f"{_titles(name, scores)}: {text}" for name, text in methods.items() if _titles(name, scores)]
        tables.append(_quality_table(title, scores, found, [*notes, f"Measured by: {'; '.join(by)}.", *missing]))
    return tables


def _titles(metric: str, scores: Sequence[Score]) -> str:
    """Those of a table's scores that a metric gives; "" = none."""
    return ", ".join(score.title for score in scores if score in METRICS[metric].scores)


def _quality_table(
    title: str, scores: Sequence[Score], found: Sequence[tuple[Entry, Mapping[str, Cell]]], notes: Sequence[str]
) -> Table:
    quoted = [score.name for score in scores if any(score.name in row for row in paper.SCORES.values())]
    head, values = ["system", "n"], []
    for score in scores:
        unit = f", {score.unit}" if score.unit else ""
        head += [f"{score.title}{unit}{ARROWS[score.better]}", *(["paper"] if score.name in quoted else [])]
    rows = []
    for entry, cells in found:
        most = max((cell.videos for name, cell in cells.items()), default=0)
        row = [label(entry), str(most)]
        for score in scores:
            cell, given = cells.get(score.name), paper.SCORES.get(entry.of_paper, {}).get(score.name)
            row.append(NONE if cell is None else shown(cell, score.digits, most))
            if score.name in quoted:
                row.append(NONE if given is None else f"{given:g}")
            if cell is not None:
                values.append(_value(title, entry, score, cell, given))
        rows.append(row)
    return Table(title, head, rows, notes, values)


def difference_table(
    proposed: Entry, others: Sequence[tuple[Entry, Mapping[str, Difference]]], notes: Sequence[str]
) -> Table | None:
    """The proposed system less each other one, video by video; None = they share no number.

    Args:
        proposed: the one.
        others: each other system, and the differences by score.
        notes: what the head has to say.
    """
    title = f"{proposed.name} less each other system, video by video"
    scores = [KNOWN_SCORES[name] for name in DIFFERENCES if any(name in found for _, found in others)]
    if not scores:
        return None
    rows, values = [], []
    for entry, found in others:
        row = [label(entry)]
        for score in scores:
            one = found.get(score.name)
            row.append(NONE if one is None else _shown_difference(one, score.digits))
            if one is not None:
                value = _value(title, entry, score, one.cell, None)
                values.append({**value, "score": f"{score.name}_of_{proposed.name}_less", "wins": one.wins})
        rows.append(row)
    how = f"In brackets the 95 % interval, then on how many of the videos that both have {proposed.name} is better."
    head = ["less", *(f"{score.title}{ARROWS[score.better]}" for score in scores)]
    return Table(title, head, rows, [*notes, how], values)


def _shown_difference(one: Difference, digits: int) -> str:
    cell, text = one.cell, f"{one.cell.value:+.{digits}f}"
    if np.isfinite(cell.low):
        text += f" [{cell.low:+.{digits}f}, {cell.high:+.{digits}f}]"
    return text if one.wins is None else f"{text}, {one.wins} of {cell.videos}"


def shown(cell: Cell, digits: int, most: int) -> str:
    """A number with its interval, and how many videos it is of where these are fewer than the row's."""
    text = f"{cell.value:.{digits}f}"
    if np.isfinite(cell.low):
        text += f" [{cell.low:.{digits}f}, {cell.high:.{digits}f}]"
    return text if cell.videos == most else f"{text} (n {cell.videos})"


def _value(title: str, entry: Entry, score: Score, cell: Cell, given: float | None) -> dict[str, Any]:
    low, high = (value if np.isfinite(value) else None for value in (cell.low, cell.high))
    return {
        "table": title,
        "system": entry.name,
        "stand_in": entry.stand_in,
        "score": score.name,
        "title": score.title,
        "unit": score.unit,
        "better": score.better,
        "value": cell.value,
        "low": low,
        "high": high,
        "n": cell.videos,
        "paper": given,
    }


def speed_tables(entries: Sequence[Entry], timed: Mapping[str, Sequence[Timing]], notes: Sequence[str]) -> list[Table]:
    """Table 3: real-time factors, and how many times as long every system takes as each of the proposed ones.

    Args:
        entries: the systems that were timed.
        timed: "net" and "e2e" -> a timing a system.
        notes: what was timed where.
    """
    of = {what: {timing.name: timing for timing in timings} for what, timings in timed.items()}
    rows, values = [], []
    for entry in entries:
        row = [label(entry)]
        for what in timed:
            timing = of[what][entry.name]
            row += [f"{timing.mean:.4f} ± {timing.deviation:.4f}", f"{min(timing.factors):.4f}"]
            values.append(_speed_value(entry, what, timing))
        given = paper.FACTORS.get(entry.of_paper)
        rows.append([*row, str(len(timing.seconds)), f"{given[0]:.4f} ± {given[1]:.4f}" if given else NONE])
    head = ["system", *(text for what in timed for text in (f"RTF {what} ↓", f"least {what}")), "runs", "paper (V100)"]
    tables = [Table("Table 3: real-time factor, seconds of work for a second of video", head, rows, notes, values)]
    proposed = [entry for entry in entries if entry.of_paper == "wavsyncswap"]
    if proposed and len(entries) > 1:
        tables.append(_ratio_table(entries, proposed, of))
    return tables


def _ratio_table(entries: Sequence[Entry], proposed: Sequence[Entry], of: Mapping[str, Mapping[str, Timing]]) -> Table:
    title = "Table 3, ratios: how many times as long as the proposed system"
    head = ["system", *(f"{what}, over {entry.name}" for entry in proposed for what in of)]
    rows, values = [], []
    for entry in entries:
        row = [label(entry)]
        for other in proposed:
            for what, timings in of.items():
                mean, deviation = ratio(timings[entry.name], timings[other.name])
                row.append(NONE if entry.name == other.name else f"{mean:.2f} ± {deviation:.2f}")
                values.append(
                    {
                        "table": title,
                        "system": entry.name,
                        "score": f"ratio_{what}_over_{other.name}",
                        "value": mean,
                        "deviation": deviation,
                        "n": len(timings[entry.name].seconds),
                    }
                )
        rows.append(row)
    return Table(
        title,
        head,
        rows,
        [f"Mean and deviation of the ratios of single rounds. The paper's cascade takes {paper.RATIO} times as long."],
        values,
    )


def _speed_value(entry: Entry, what: str, timing: Timing) -> dict[str, Any]:
    given = paper.FACTORS.get(entry.of_paper)
    return {
        "table": "Table 3",
        "system": entry.name,
        "stand_in": entry.stand_in,
        "score": f"rtf_{what}",
        "title": f"RTF {what}",
        "better": "lower",
        "value": timing.mean,
        "deviation": timing.deviation,
        "least": min(timing.factors),
        "n": len(timing.seconds),
        "paper": given[0] if given else None,
        "seconds": list(timing.seconds),
    }


def csv_text(tables: Sequence[Table]) -> str:
    """All numbers, a line each."""
    values = [value for table in tables for value in table.values]
    columns = ["table", "system", "stand_in", "score", "title", "unit", "better", "value", "low", "high", "deviation"]
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, [*columns, "n", "paper"], extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(values)
    return text.getvalue()
