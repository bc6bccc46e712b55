"""What an evaluation leaves: report.md and report.html for people, tables.csv and tables.json for programs."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..data.work import replacing, write_json
from . import paper
from .contenders import Entry
from .tables import Table, csv_text

STYLE = """
body { font: 14px/1.45 system-ui, sans-serif; margin: 2em auto; max-width: 100em; padding: 0 1em; color: #222 }
h2 { margin-top: 2em } table { border-collapse: collapse } code { overflow-wrap: anywhere }
td, th { padding: .2em .9em .2em 0; text-align: left; border-bottom: 1px solid #ddd; vertical-align: top }
.note { margin: .3em 0; color: #555; max-width: 70em } .warning { color: #a30; font-weight: 600 }
figure { margin: 1.5em 0 } img { max-width: 100% }
"""


@dataclass(frozen=True)
class Findings:
    """Everything that is reported.

    Attributes:
        entries: the systems.
        tables: in order.
        about: circumstances in lines.
        skipped: system, pair, metric and reason of what was left out.
        pairs: names of the test set's pairs; where there are strips, each has one.
        strips: whether there are.
        settings: the same circumstances for programs.
    """

    entries: Sequence[Entry]
    tables: Sequence[Table]
    about: Sequence[str]
    skipped: Sequence[tuple[str, str, str, str]]
    pairs: Sequence[str]
    strips: bool
    settings: dict[str, Any] = field(default_factory=dict)


def warning(entries: Sequence[Entry]) -> str:
    """What the head of every table says of weights that are not the public ones; "" = they all are."""
    random = [entry.name for entry in entries if entry.stand_in]
    others = [
        entry.name
        for entry in entries
        if not entry.stand_in and any(not origin.what.startswith("public file") for origin in entry.origins)
    ]
    parts = [f"random weights, of which only the speed means something: {', '.join(random)}"] if random else []
    parts += [f"not the public weights: {', '.join(others)}"] if others else []
    return f"Stand-ins. {'; '.join(parts)}. See Systems." if parts else ""


def weights_table(entries: Sequence[Entry]) -> Table:
    """Every system and the SHA-256 of its files."""
    rows = []
    for entry in entries:
        digests = " + ".join(f"{origin.given.rpartition('/')[2]} {origin.sha256}" for origin in entry.origins)
        rows.append((entry.name, paper.NAMES.get(entry.of_paper, "-"), entry.described(), digests or "-"))
    return Table("Systems", ("name", "the paper's", "what", "SHA-256 of its weights"), rows)


def skipped_table(skipped: Sequence[tuple[str, str, str, str]], pairs: int) -> Table:
    """What was left out of so many pairs, equal reasons together."""
    grouped: dict[tuple[str, str], dict[str, list[str]]] = {}
    for system, pair, metric, reason in skipped:
        grouped.setdefault((metric, reason), {}).setdefault(system, []).append(pair)
    rows = [
        (metric, "; ".join(f"{system}: {_some(names, pairs)}" for system, names in of.items()), reason)
        for (metric, reason), of in grouped.items()
    ]
    return Table("Left out", ("what", "where", "why"), rows or [("nothing", "-", "-")])


def _some(names: Sequence[str], all_of_them: int, most: int = 6) -> str:
    if len(names) == all_of_them > 1:
        return f"all {all_of_them}"
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def write_report(folder: Path, found: Findings) -> Path:
    """Write all forms; returns the page's path."""
    tables = [*found.tables, weights_table(found.entries), skipped_table(found.skipped, len(found.pairs))]
    _write(folder / "report.md", _markdown(found, tables))
    _write(folder / "report.html", _page(found, tables))
    _write(folder / "tables.csv", csv_text(found.tables))
    content = {
        "settings": found.settings,
        "systems": [
            {
                "name": entry.name,
                "kind": entry.kind,
                "what": entry.described(),
                "stand_in": entry.stand_in,
                "files": [
                    {"given": o.given, "sha256": o.sha256, "network": o.network, "what": o.what} for o in entry.origins
                ],
            }
            for entry in found.entries
        ],
        "values": [dict(value) for table in found.tables for value in table.values],
        "skipped": [dict(zip(("system", "pair", "metric", "reason"), one, strict=True)) for one in found.skipped],
    }
    write_json(folder / "tables.json", content)
    return folder / "report.html"


def _markdown(found: Findings, tables: Sequence[Table]) -> str:
    lines = ["# Comparison", "", *(f"{line}\n" for line in found.about)]
    lines += [f"**{warning(found.entries)}**\n"] if warning(found.entries) else []
    lines += [table.markdown() for table in tables]
    lines += ["## Pictures", ""] if found.strips else []
    lines += [f"{name}\n\n![{name}](strips/{name}.jpg)\n" for name in (found.pairs if found.strips else ())]
    return "\n".join(lines)


def _page(found: Findings, tables: Sequence[Table]) -> str:
    head = warning(found.entries)
    figures = "".join(
        f"<figure><figcaption>{name}, videos: {_videos(found.entries, name)}</figcaption>"
        f"<img src='strips/{name}.jpg' loading='lazy' alt=''></figure>"
        for name in (found.pairs if found.strips else ())
    )
    return (
        f"<!doctype html><meta charset='utf-8'><title>Comparison</title><style>{STYLE}</style><h1>Comparison</h1>"
        + "".join(f"<p class='note'>{html.escape(line)}</p>" for line in found.about)
        + (f"<p class='warning'>{html.escape(head)}</p>" if head else "")
        + "".join(table.page() for table in tables)
        + (f"<h2>Pictures</h2>{figures}" if figures else "")
        + "\n"
    )


def _videos(entries: Sequence[Entry], pair: str) -> str:
    """Links to what each system made of a pair; names of pairs and systems need no escapes."""
    made = [entry.name for entry in entries if not entry.contender.is_truth and not entry.stand_in]
    return ", ".join(f"<a href='items/{name}/{pair}/video.mp4'>{name}</a>" for name in made)


def _write(path: Path, text: str) -> None:
    with replacing(path) as file:
        file.write(text.encode())
