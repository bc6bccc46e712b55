"""One page that shows what was prepared: a picture of every track, histograms, and what was left out and why."""

from __future__ import annotations

import base64
import html
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..clips import FPS
from .pictures import Strip
from .work import replacing

MOST_PICTURES = 600  # of more tracks, every n-th is shown
MOST_FAILURES = 200
BINS = 24
LeftOut = tuple[dict[str, Any], bytes | None]  # entry of the list of failures, JPEG where there is one
STYLE = """
body { font: 14px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 76em; padding: 0 1em; color: #222 }
h2 { margin-top: 2em } table { border-collapse: collapse } td, th { padding: .15em .8em .15em 0; text-align: left }
.sheet { display: flex; flex-wrap: wrap; gap: 8px } figure { margin: 0; width: 120px; font-size: 11px }
figure img, figure p { width: 120px; height: 120px; margin: 0; display: block; object-fit: contain; background: #eee }
figcaption { overflow-wrap: anywhere }
.plots { display: flex; flex-wrap: wrap; gap: 24px } .val figcaption, .val_seen figcaption, .val span { color: #a40 }
rect { fill: #48c } text { font-size: 11px; fill: #444 }
"""


def histogram(title: str, values: Sequence[float], unit: str) -> str:
    """A bar chart as SVG, with its range, median and number of values."""
    if not values:
        return f"<div><b>{html.escape(title)}</b><p>unknown for all tracks</p></div>"
    numbers = np.asarray(values, np.float64)
    counts, edges = np.histogram(numbers, bins=BINS)
    high = max(counts.max(), 1)
    bars = "".join(
        f'<rect x="{12 * i}" y="{100 - 90 * count / high:.1f}" width="11" height="{90 * count / high:.1f}"/>'
        for i, count in enumerate(counts)
    )
    left, right = f"{edges[0]:.4g}", f"{edges[-1]:.4g}"
    axis = f'<text x="0" y="116">{left}</text><text x="{12 * BINS}" y="116" text-anchor="end">{right}</text>'
    return (
        f"<div><b>{html.escape(title)}</b> ({html.escape(unit)})<br>"
        f'<svg width="{12 * BINS}" height="120" role="img">{bars}{axis}</svg><br>'
        f"median {np.median(numbers):.4g}, {len(numbers)} tracks</div>"
    )


def contact_sheet(entries: list[dict[str, Any]], strips: list[Strip]) -> str:
    """The middle picture of every track with its name, person, split and length."""
    step = -(-len(entries) // MOST_PICTURES)
    cells = [_cell(entry, strip) for entry, strip in list(zip(entries, strips, strict=True))[::step]]
    note = f"<p>Every {step}th of {len(entries)} tracks.</p>" if step > 1 else ""
    return f'{note}<div class="sheet">{"".join(cells)}</div>'


def _cell(entry: dict[str, Any], strip: Strip) -> str:
    seconds = entry["frames"] / float(FPS)
    lines = (f"{entry['name']} {entry['identity']}, {entry['split']}, {seconds:.1f} s", entry["item"])
    return _figure(strip.middle(), lines, entry["split"])


def _figure(jpeg: bytes | None, lines: Sequence[str], kind: str = "") -> str:
    """A picture, or an empty box, with lines below it."""
    shown = "<p></p>"
    if jpeg is not None:
        shown = f'<img src="data:image/jpeg;base64,{base64.b64encode(jpeg).decode()}" alt="">'
    caption = "<br>".join(html.escape(line) for line in lines)
    return f'<figure class="{kind}">{shown}<figcaption>{caption}</figcaption></figure>'


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = "".join("<tr>" + "".join(f"<td>{html.escape(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{''.join(f'<th>{html.escape(name)}</th>' for name in head)}</tr>{lines}</table>"


def _splits(entries: list[dict[str, Any]]) -> str:
    rows = []
    for split in dict.fromkeys(entry["split"] for entry in sorted(entries, key=lambda entry: entry["split"])):
        part = [entry for entry in entries if entry["split"] == split]
        minutes = sum(entry["frames"] for entry in part) / float(FPS) / 60
        people, videos = (len({entry[key] for entry in part}) for key in ("identity", "item"))
        rows.append((split, videos, len(part), people, f"{minutes:.1f}"))
    return _table(("split", "videos", "tracks", "people", "minutes"), rows)


def _failures(left_out: Sequence[LeftOut]) -> str:
    if not left_out:
        return "<p>Nothing was left out.</p>"
    kinds = Counter((one["stage"], one["reason"].split(":")[0]) for one, _ in left_out)
    counted = _table(("stage", "reason", "number"), [(*kind, number) for kind, number in kinds.most_common()])
    cells = [
        _figure(jpeg, (f"{one['item']}, track {one.get('track', 'none')}", f"{one['stage']}: {one['reason']}"))
        for one, jpeg in left_out[:MOST_FAILURES]
    ]
    more = len(left_out) - MOST_FAILURES
    rest = f"<p>{more} more are in failures.jsonl.</p>" if more > 0 else ""
    return f'{counted}<h3>One by one</h3><div class="sheet">{"".join(cells)}</div>{rest}'


def _sync_note(entries: list[dict[str, Any]]) -> str:
    unknown = sum(entry["sync"]["offset"] is None for entry in entries)
    if not unknown:
        return "<p>The sound of every track was moved by its measured offset.</p>"
    return (
        f"<p>Sync is <b>unknown for {unknown} of {len(entries)} tracks</b>: nothing was moved, and faces that are seen "
        "while somebody else speaks are still among them. It is measured by a lip reader "
        "and a thousand frames of other videos, or with --sync.</p>"
    )


def write_report(
    path: Path,
    manifest: dict[str, Any],
    entries: list[dict[str, Any]],
    strips: list[Strip],
    left_out: Sequence[LeftOut],
) -> None:
    """Write the page; it needs no other file.

    Args:
        path: where.
        manifest: totals.
        entries: of the index, one a track.
        strips: the pictures of the same tracks as `entries`.
        left_out: item, track, stage and reason of what is not in them, each with its picture.
    """
    known = [entry["sync"]["offset"] for entry in entries if entry["sync"]["offset"] is not None]
    plots = (
        histogram("Sync offset", known, "frames; positive = the sound came late"),
        histogram("Length", [entry["frames"] / float(FPS) for entry in entries], "seconds"),
        histogram("Side of the crop in the video", [entry["quality"]["side"] for entry in entries], "pixels"),
        histogram("Sharpness", [entry["quality"]["sharpness"] for entry in entries], "Laplacian over grey variance"),
        histogram("Turn of the head", [entry["quality"]["turn"] for entry in entries], "nose offset in eye distances"),
        histogram("Silence", [100 * entry["quality"]["silence"] for entry in entries], "per cent of the frames"),
    )
    size = sum(shard["bytes"] for shard in manifest["shards"].values()) / 1e6
    totals = f"{manifest['videos']} videos, {manifest['tracks']} tracks, {manifest['people']} people, "
    body = (
        f"<h1>Training data</h1><p>{totals}{60 * manifest['hours']:.1f} minutes, {size:.0f} MB.</p>"
        f"{_splits(entries)}{_sync_note(entries)}<h2>Numbers</h2><div class='plots'>{''.join(plots)}</div>"
        f"<h2>Left out</h2>{_failures(left_out)}<h2>Tracks</h2><p>The middle picture of each; <span class='val'>"
        f"<span>coloured</span></span> ones are kept for measuring.</p>{contact_sheet(entries, strips)}"
    )
    page = f"<!doctype html><meta charset='utf-8'><title>Training data</title><style>{STYLE}</style>{body}\n"
    with replacing(path) as file:
        file.write(page.encode())
