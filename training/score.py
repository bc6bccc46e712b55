"""`python -m training score`: every metric that a video, its sound and what else is given allow, as a table or JSON."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from models.faces import load_detector
from models.identity import load_recogniser
from models.metrics import METRICS
from models.metrics.landmarks import load_landmarks
from models.metrics.results import Result
from models.metrics.subject import Subject, Tools
from models.metrics.sync_model import bundled_expert, load_sync_model
from models.video import VideoFile, read_audio

from .infer import embed_faces
from .outputs import check_outputs


def table(results: dict[str, Result], skipped: dict[str, str]) -> str:
    """Markdown: a row a number, then what measured it, then what could not be measured."""
    lines = ["| score | value | unit | better |", "|---|---|---|---|"]
    for name, result in results.items():
        for score in METRICS[name].scores:
            value = result.scores.get(score.name, np.nan)
            text = f"{value:.{score.digits}f}" if np.isfinite(value) else "-"
            lines.append(f"| {score.title} | {text} | {score.unit} | {score.better} |")
    lines += ["", *(f"{name}: {'; '.join([one.method, *one.notes])}" for name, one in results.items())]
    return "\n".join([*lines, *(f"{name} left out: {reason}" for name, reason in skipped.items())]) + "\n"


def measured(subject: Subject, names: list[str]) -> tuple[dict[str, Result], dict[str, str]]:
    """Results of these metrics, and why others have none."""
    results, skipped = {}, {}
    for name in names:
        try:
            results[name] = METRICS[name].measure(subject)
        except (ValueError, RuntimeError) as error:  # nothing to measure, or a package is absent
            skipped[name] = str(error)
    return results, skipped


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `python -m training score`."""
    clips = [name for name, metric in METRICS.items() if metric.level == "clip"]
    parser.add_argument("--video", type=Path, required=True, help="video to judge")
    parser.add_argument("--audio", type=Path, help="sound it should go with (default: its own)")
    parser.add_argument(
        "--reference", type=Path, help="target video that it was made from, of the same size and rate (default: none)"
    )
    parser.add_argument(
        "--source", type=Path, nargs="+", default=[], help="pictures of the face it should show (default: none)"
    )
    parser.add_argument("--metrics", nargs="+", choices=clips, default=clips, help="some of %(choices)s (default: all)")
    parser.add_argument("--sync", type=Path, help="syncnet_v2.model or a sync expert (default: the bundled expert)")
    parser.add_argument(
        "--landmarks", type=Path, help="face_landmarker.task, or 1k3d68.onnx of buffalo_l (default: none, no LMD)"
    )
    parser.add_argument("--recogniser", default="builtin", help="builtin, or a recogniser file (default: %(default)s)")
    parser.add_argument(
        "--min-track", type=int, default=100, help="least detections of a face, frames (default: %(default)s)"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="also write the numbers to this JSON file (default: none)")


def run(args: argparse.Namespace) -> int:
    """Measure and print.

    Raises:
        ValueError: the file to be written is one that is read, or cannot be written; and what the tools say.
    """
    names = ("video", "audio", "reference", "sync", "landmarks", "recogniser")
    read = [(f"--{name}", getattr(args, name)) for name in names] + [("--source", path) for path in args.source]
    check_outputs([("--output", args.output)], read)
    detector, recogniser = load_detector("builtin", device=args.device), load_recogniser(args.recogniser, args.device)
    tools = Tools(
        detector,
        recogniser,
        load_sync_model(args.sync, args.device) if args.sync or bundled_expert() else None,
        load_landmarks(args.landmarks) if args.landmarks else None,
        min_track=args.min_track,
    )
    with VideoFile(args.video) as video:
        reference = VideoFile(args.reference) if args.reference else None
        subject = Subject(
            video,
            tools,
            read_audio(args.audio) if args.audio else video.audio(),
            reference,
            embed_faces(args.source, recogniser, detector) if args.source else None,
        )
        results, skipped = measured(subject, args.metrics)
    print(table(results, skipped))
    if args.output:
        args.output.parent.mkdir(parents=True, exist_ok=True)
        content = {
            name: {"scores": dict(one.scores), "method": one.method, "notes": one.notes}
            for name, one in results.items()
        }
        args.output.write_text(json.dumps(content | {"skipped": skipped}, indent=1) + "\n", encoding="utf-8")
    return 0
