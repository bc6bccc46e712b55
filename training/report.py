"""A run at a glance: report.md with curves, speed and the last measurements, drawn from its JSON lines."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path
from typing import Any

from .keeper import Record
from .watch import entries, flat

SPEED = ("samples_per_s", "data_share")
UNSEEN = "val_"  # names of held-out numbers begin so
Curves = dict[str, list[tuple[int, float]]]


def write_report(folder: Path, log_name: str, title: str, record: Record) -> Path:
    """Write STEM.report.md and its curves beside the log.

    Args:
        folder: run folder.
        log_name: its file of JSON lines.
        title: first line.
        record: what the trainer knows of its run.

    Returns:
        The report's path.
    """
    log = entries(folder / log_name)
    prefix = "" if log_name == "log.jsonl" else f"{Path(log_name).stem}_"
    lines = [f"# {title}", "", *_summary(log, record), ""]
    charts = _draw(log, folder, prefix) if log else []
    lines += [f"![{name}]({name})" for name in charts]
    samples = sorted(path for path in (folder / "samples").glob("*.png") if not prefix)
    if samples:
        lines += [
            "",
            f"Held-out people, [as video]({samples[-1].relative_to(folder).with_suffix('.mp4')}). Columns: source, "
            "target, reference, generated, ground truth; own identity above, another below.",
            "",
            f"![samples]({samples[-1].relative_to(folder)})",
        ]
    report = folder / f"{prefix}report.md"
    report.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return report


def curves(log: list[dict[str, Any]]) -> Curves:
    """Entries -> (step, value) pairs by name; groups as group/name."""
    result: Curves = defaultdict(list)
    for entry in log:
        for name, value in flat(entry):
            result[name].append((entry["step"], value))
    return dict(result)


def _summary(log: list[dict[str, Any]], record: Record) -> list[str]:
    if not log:
        return ["Nothing was logged yet."]
    last, named = log[-1], curves(log)
    lines = [
        f"{last['step']:,} steps; {last['samples_per_s']} samples/s in its last process, "
        f"{100 * last['data_share']:.1f} % of the time waiting for data. Data {record.data[:12]}.",
        "",
        "| measured on held-out people | last | lowest | highest |",
        "|---|---|---|---|",
    ]
    for name, points in named.items():
        if name.startswith(UNSEEN):
            values = [value for _, value in points]
            lines.append(f"| {name.removeprefix(UNSEEN)} | {values[-1]} | {min(values)} | {max(values)} |")
    lines += ["", "| loss at the end | weighted | raw | share of the gradient |", "|---|---|---|---|"]
    raw, share = last.get("raw", {}), last.get("share", {})
    for name, value in flat(last):
        if name not in SPEED and "/" not in name and not name.startswith(UNSEEN):
            cells = (f"{group[name]:.4f}" if name in group else "" for group in (raw, share))
            lines.append(f"| {name} | {value:.4f} | {' | '.join(cells)} |")
    return lines


def _draw(log: list[dict[str, Any]], folder: Path, prefix: str) -> list[str]:
    """One chart a kind of number; names of the files, none where matplotlib is absent."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return []
    named = curves(log)
    kinds: dict[str, Curves] = {"measured": {}, "losses": {}, "shares": {}, "speed": {}}
    for name, points in named.items():
        group, _, inner = name.rpartition("/")
        kind = "measured" if name.startswith(UNSEEN) else "speed" if name in SPEED[:1] else "losses"
        if group == "share":
            kinds["shares"][inner] = points
        elif not group and name not in SPEED[1:]:
            kinds[kind][name] = points
    files = []
    for kind, chosen in kinds.items():
        if not chosen:
            continue
        figure = Figure(figsize=(8, 4), layout="constrained")
        axes = figure.subplots()
        for name, points in chosen.items():
            axes.plot(*zip(*points, strict=True), label=name, marker="." if len(points) < 20 else "")
        axes.set_xlabel("step")
        axes.set_title(kind)
        if kind == "losses":
            axes.set_yscale("log")
        axes.legend(fontsize="small")
        files.append(f"{prefix}{kind}.png")
        figure.savefig(folder / files[-1], dpi=100)
    return files
