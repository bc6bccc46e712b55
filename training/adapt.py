"""`python -m training adapt --video clip.mp4`: adapt a generator to one clip, write what changed as a small file."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from models.adaptation import Adaptation, adapt
from models.adapters import RANK
from models.checkpoints import save_weights
from models.faces import load_detector
from models.footage import gather
from models.generator import load_generator
from models.identity import load_recogniser
from models.tracks import Selection
from models.video import VideoFile

from .infer import read_sound

log = logging.getLogger(__name__)


def bar_of(text: str, unit: str) -> tuple[tqdm, Callable[..., None]]:
    """A bar, and what moves it to (done, total) or (done, total, picture)."""
    bar = tqdm(unit=unit, desc=text)

    def move(done: int, total: int, _: Any = None) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return bar, move


def adapted(args: argparse.Namespace) -> Adaptation:
    """Gather the clip and adapt to it, with a progress bar each."""
    source = VideoFile(args.video)
    sound = read_sound(args.audio) if args.audio else source.audio()
    generator = load_generator(args.weights, args.device, "fp32")
    recogniser, detector = (
        load_recogniser(args.recogniser, args.device),
        load_detector(args.detector, args.device, args.threshold),
    )
    bar, move = bar_of("find the face", "frame")
    with bar:
        selection = Selection(order=args.select, index=args.index)
        footage = gather(source, sound, generator, detector, recogniser, selection, move)
    bar, move = bar_of("adapt", "step")
    with bar:
        return adapt(
            generator, footage, steps=args.steps, minutes=args.minutes, seed=args.seed, rank=args.rank, progress=move
        )


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `python -m training adapt`."""
    parser.add_argument("--video", type=Path, required=True, metavar="FILE", help="clip of the face, 10 s or more")
    parser.add_argument(
        "--audio", type=Path, metavar="FILE", help="what is said in it, in sync (default: the clip's own sound)"
    )
    parser.add_argument(
        "--output", type=Path, metavar="FILE", help="adapter to write (default: beside the video, .adapter.safetensors)"
    )
    parser.add_argument("--minutes", type=float, default=5.0, help="how long to train (default %(default)s)")
    parser.add_argument(
        "--steps", type=int, help="steps to train, whatever time they take (default: as many as fit into --minutes)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of everything random (default %(default)s)")
    parser.add_argument(
        "--rank", type=int, default=RANK, help="of what is added to each convolution (default %(default)s)"
    )
    parser.add_argument(
        "--select",
        choices=("largest", "smallest", "left-right", "right-left"),
        default="largest",
        help="order in which faces are counted (default %(default)s)",
    )
    parser.add_argument("--index", type=int, default=0, help="which face in that order, from 0 (default %(default)s)")
    parser.add_argument(
        "--threshold", type=float, default=0.6, help="detector score from which a face counts (default %(default)s)"
    )
    parser.add_argument("--weights", default="builtin", metavar="FILE", help="generator to adapt (default %(default)s)")
    parser.add_argument(
        "--recogniser", default="builtin", metavar="FILE", help="the generator's own (default %(default)s)"
    )
    parser.add_argument("--detector", default="builtin", help="builtin, or an insightface pack (default %(default)s)")
    parser.add_argument("--device", default="cpu", help="torch device, e.g. cpu, cuda (default %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Adapt, report, write."""
    output = args.output or args.video.with_suffix(".adapter.safetensors")
    output.parent.mkdir(parents=True, exist_ok=True)
    result = adapted(args)
    save_weights(output, result.state, result.metadata)
    print(result.report)
    print(f"{output} ({output.stat().st_size / 1e6:.2f} MB); use it with: python -m training infer --adapter {output}")
    return 0
