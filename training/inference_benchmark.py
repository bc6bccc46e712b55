"""`python -m training benchmark inference`: every system on one machine in one run, as a table and as a record.

Systems take turns, forwards and backwards, so that a machine that slows down slows them all; medians count. `net` is
crops in, faces out, copies to and from the device included; `e2e` is file to file, detection included. Compare ratios
of one run: milliseconds depend on the day.
"""

from __future__ import annotations

import argparse
import json
import logging
import statistics
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch

from models.memory import out_of_memory, release, wait_for
from models.precision import NAMES, PRECISIONS, candidates

from .data.work import write_json
from .end_to_end import EndToEnd
from .hardware import environment, forget_peak_memory, peak, peak_memory
from .inference_systems import RECIPES, SYSTEMS, UPSTREAM, System, system

log = logging.getLogger(__name__)

FPS = 25  # of the video whose real time counts
FALL = 0.15  # share by which a ratio may fall against a record before it is told
SERIES = 0.2  # seconds at least of one timed run
COLUMNS = (
    ("system", "{}"), ("dtype", "{}"), ("batch", "{}"), ("parameters_m", "{:.1f}"), ("gmacs", "{:.2f}"),
    ("ms", "{:.3f}"), ("ms_range", "{}"), ("frames_s", "{:.1f}"), ("speedup", "{:.1f}"), ("rtf_net", "{:.4f}"),
    ("rtf_e2e", "{:.3f}"), ("speedup_e2e", "{:.1f}"), ("memory_mib", "{:.0f}"), ("of_matmul", "{:.0%}"),
    ("of_conv", "{:.0%}"),
)  # fmt: skip


class Variant:
    """A system in one number type and batch size, with its times."""

    def __init__(self, made: System, dtype: torch.dtype, batch: int, device: torch.device) -> None:
        self.system, self.dtype, self.batch, self.device = made, dtype, batch, device
        self.crops, self.windows = made.crops(batch), torch.randn(batch, 1, 80, 16)
        self.net: list[float] = []  # seconds a frame
        self.alone: list[float] = []  # the same, with everything on the device
        self.resident = made.resident(self.crops, self.windows)
        self.calls = 1

    def warm(self) -> None:
        """Compile, fill caches, and find out how many calls a timed run needs."""
        for _ in range(1 if self.device.type == "cpu" else 3):
            self._run()
            if self.device.type != "cpu":
                self.resident()
        wait_for(self.device)
        begun = time.perf_counter()
        self._run()
        wait_for(self.device)
        self.calls = max(1, round(SERIES / (time.perf_counter() - begun)))

    def time(self) -> None:
        """One round; a CPU has nothing to copy."""
        everything = ((self._run, self.net), (self.resident, self.alone))
        for run, times in everything[: 1 if self.device.type == "cpu" else 2]:
            wait_for(self.device)
            begun = time.perf_counter()
            for _ in range(self.calls):
                run()
            wait_for(self.device)
            times.append((time.perf_counter() - begun) / (self.calls * self.batch))

    def memory(self) -> int | None:
        """Most bytes of one call."""
        release(self.device)
        forget_peak_memory(self.device)
        self._run()
        return peak_memory(self.device)

    def _run(self) -> torch.Tensor:
        return self.system.run(self.crops, self.windows, self.batch)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """All of it; the record is JSON-ready."""
    device = torch.device(args.device)
    types = [PRECISIONS[name] for name in args.dtypes] if args.dtypes else [torch.float32, *candidates(device)]
    batches = args.batches or ([1, 16] if device.type == "cpu" else [1, 16, 64, 256])
    before = environment(device)
    variants = _variants(args, types, batches, device)
    computed = dict.fromkeys(variant.dtype for variant in variants)  # the public cascade has a type of its own
    peaks: dict[str, list[dict[str, float]]] = {NAMES[dtype]: [] for dtype in computed}
    for turn in range(args.rounds):
        for dtype in computed:
            peaks[NAMES[dtype]].append(peak(dtype, device))
        for variant in variants[:: 1 if turn % 2 == 0 else -1]:
            variant.time()
        log.info("round %d of %d", turn + 1, args.rounds)
    # The limit is the most that was seen in any round: other programs only ever lower it.
    limits = {name: {kind: max(p[kind] for p in seen) for kind in seen[0]} for name, seen in peaks.items()}
    rows = [_row(variant, limits) for variant in variants]
    record = {"environment": before, "limits": limits, "rounds": args.rounds, "rows": rows}
    _ratios(rows)
    if args.record:
        write_json(args.record, record)  # whole jobs take long, and may be broken off
    _end_to_end(args, record, variants, device)
    _ratios(rows)
    record["load_after"] = environment(device).get("load")
    return record


def _variants(
    args: argparse.Namespace, types: list[torch.dtype], batches: list[int], device: torch.device
) -> list[Variant]:
    variants = []
    for name in args.systems:
        for dtype in [torch.float32] if name == UPSTREAM else types:
            compiled, made = args.compile and name in RECIPES, None
            for batch in [1] if name == UPSTREAM else batches:
                try:
                    if compiled or made is None:  # compiled, smaller batches are filled up to the largest
                        made = system(name, dtype, device, compiled)
                    variant = Variant(made, dtype, batch, device)
                    variant.warm()
                except RuntimeError as error:
                    if not out_of_memory(error):
                        raise
                    log.warning("%s in %s at batch %d does not fit into memory.", name, NAMES[dtype], batch)
                    release(device)
                else:
                    variants.append(variant)
                    log.info("%s %s batch %d is ready", name, NAMES[dtype], batch)
    return variants


def _row(variant: Variant, limits: dict[str, dict[str, float]]) -> dict[str, Any]:
    made, name = variant.system, NAMES[variant.dtype]
    seconds, alone = statistics.median(variant.net), statistics.median(variant.alone or variant.net)
    memory = variant.memory()
    return {
        "system": made.name,
        "device": variant.device.type,
        "dtype": name,
        "batch": variant.batch,
        "parameters_m": made.parameters / 1e6,
        "gmacs": made.macs / 1e9,
        "ms": 1000 * seconds,
        "ms_range": f"{1000 * min(variant.net):.3f}-{1000 * max(variant.net):.3f}",
        "ms_on_device": 1000 * alone,
        "frames_s": 1 / seconds,
        "rtf_net": FPS * seconds,
        "memory_mib": None if memory is None else memory / 2**20,
        **{f"of_{kind}": 2 * made.macs / alone / limit for kind, limit in limits[name].items()},
    }


def _end_to_end(
    args: argparse.Namespace, record: dict[str, Any], variants: list[Variant], device: torch.device
) -> None:
    """Add the real-time factor file to file, in each system's fastest number type and batch."""
    if args.no_e2e:
        return
    try:
        whole = EndToEnd(args.clip, args.seconds, device)
    except ImportError as error:
        record["e2e"] = f"left out: {error}"
        log.warning("No end-to-end times: %s", error)
        return
    with whole:
        best: dict[str, tuple[dict[str, Any], Variant]] = {}
        for row, variant in zip(record["rows"], variants, strict=True):
            if row["system"] not in best or row["ms"] < best[row["system"]][0]["ms"]:
                best[row["system"]] = row, variant
        runs: dict[str, Callable[[], Any]] = {
            name: lambda made=variant.system: whole.run(made)  # type: ignore[misc]
            for name, (_, variant) in best.items()
        }
        times = whole.times(runs, args.e2e_rounds)
        for name, (row, _) in best.items():
            row["rtf_e2e"] = statistics.median(times[name]) / whole.duration
            row["rtf_e2e_range"] = f"{min(times[name]) / whole.duration:.3f}-{max(times[name]) / whole.duration:.3f}"
        record["e2e"] = whole.describe()
        record["profiles"] = whole.profiles


def _ratios(rows: list[dict[str, Any]]) -> None:
    """How many times as fast as the public cascade of the same run, where it was measured."""
    first = next((row for row in rows if row["system"] == UPSTREAM), None)
    for row in rows if first else []:
        assert first is not None
        row["speedup"] = first["ms"] / row["ms"]
        if "rtf_e2e" in row and "rtf_e2e" in first:
            row["speedup_e2e"] = first["rtf_e2e"] / row["rtf_e2e"]


def table(record: dict[str, Any]) -> str:
    """Markdown."""
    env = record["environment"]
    limits = "; ".join(
        f"{name}: matmul {found['matmul'] / 1e12:.2f}, conv {found['conv'] / 1e12:.2f} TFLOP/s"
        for name, found in record["limits"].items()
    )
    lines = [
        ", ".join(f"{key} {value}" for key, value in env.items()),
        "",
        f"Limits measured in this run: {limits}. {record['rounds']} rounds in turn, medians. e2e: {record.get('e2e')}",
        "",
        "| " + " | ".join(name.replace("_", " ") for name, _ in COLUMNS) + " |",
        "|" + "---|" * len(COLUMNS),
    ]
    for row in record["rows"]:
        cells = ["" if row.get(name) is None else form.format(row[name]) for name, form in COLUMNS]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def fallen(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    """Ratios that are more than `FALL` below an older record's, a line each.

    Ratios of one run are compared, speed-ups and shares of the limit: they say what the code does, not the day.
    """

    def key(row: dict[str, Any]) -> tuple[str, ...]:
        return tuple(str(row[name]) for name in ("system", "device", "dtype", "batch"))

    before = {key(row): row for row in old["rows"]}
    lines = []
    for row in new["rows"]:
        past = before.get(key(row), {})
        for name in ("speedup", "speedup_e2e", "of_conv"):
            if past.get(name) and row.get(name) is not None and row[name] < (1 - FALL) * past[name]:
                lines.append(f"{' '.join(key(row))}: {name} fell from {past[name]:.2f} to {row[name]:.2f}")
    return lines


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `python -m training benchmark inference`; device, rounds and output are shared with training."""
    group = parser.add_argument_group("inference")
    group.add_argument(
        "--systems",
        nargs="+",
        default=list(SYSTEMS),
        choices=SYSTEMS,
        metavar="NAME",
        help="some of %(choices)s (default: all)",
    )
    group.add_argument(
        "--dtypes", nargs="+", choices=sorted(PRECISIONS), help="number types (default: what the device computes)"
    )
    group.add_argument("--batches", type=int, nargs="+", help="faces a pass (default: 1 16, on a GPU also 64 256)")
    group.add_argument("--compile", action="store_true", help="own systems through torch.compile")
    group.add_argument("--no-e2e", action="store_true", help="leave out the runs from file to file")
    group.add_argument("--clip", type=Path, help="video for these (default: one made of a public-domain portrait)")
    group.add_argument("--seconds", type=Fraction, default=Fraction(4), help="length of it, s (default: %(default)s)")
    group.add_argument("--e2e-rounds", type=int, default=3, help="rounds of these (default: %(default)s)")
    group.add_argument("--record", type=Path, metavar="FILE", help="also write a JSON record (default: none)")
    group.add_argument(
        "--check", type=Path, metavar="FILE", help="warn of ratios more than 15 %% below this record's (default: none)"
    )


def run(args: argparse.Namespace) -> int:
    """Measure, print, and compare with a record."""
    old = json.loads(args.check.read_text(encoding="utf-8")) if args.check else None
    record = measure(args)
    text = table(record)
    print(text)
    if args.output:
        args.output.write_text(text, encoding="utf-8")
    if args.record:
        write_json(args.record, record)
    for line in [] if old is None else fallen(old, record):
        log.warning("slower: %s", line)
    return 0
