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
from models.footage import Footage, gather
from models.generator import load_generator
from models.identity import load_recogniser
from models.metrics.sync_model import load_sync_model
from models.selection import Selection
from models.sound import whole
from models.video import VideoFile

from .adapt_judge import Judges, compare, halves
from .infer import embed_faces, open_sound
from .outputs import check_outputs

log = logging.getLogger(__name__)


def bar_of(text: str, unit: str) -> tuple[tqdm, Callable[..., None]]:
    """A bar, and what moves it to (done, total) or (done, total, picture)."""
    bar = tqdm(unit=unit, desc=text)

    def move(done: int, total: int, _: Any = None) -> None:
        bar.total = total
        bar.update(done - bar.n)

    return bar, move


class Clip:
    """The clip of a command, gathered, and the networks that look at it."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.source, self.args = VideoFile(args.video), args
        self.sound = whole(open_sound(args.audio)) if args.audio else self.source.audio()
        self.generator = load_generator(args.weights, args.device, "fp32")
        self.recogniser = load_recogniser(args.recogniser, args.device)
        self.detector = load_detector(args.detector, args.device, args.threshold)
        selection = Selection(order=args.select, index=args.index)
        bar, move = bar_of("find the face", "frame")
        with bar:
            self.footage = gather(
                self.source, self.sound, self.generator, self.detector, self.recogniser, selection, move
            )

    def adapted(self, footage: Footage) -> Adaptation:
        """Adapt to it or to a part of it, with a progress bar."""
        args = self.args
        bar, move = bar_of("adapt", "step")
        with bar:
            options = {"steps": args.steps, "minutes": args.minutes, "seed": args.seed, "rank": args.rank}
            return adapt(self.generator, footage, **options, progress=move)


def judge_halves(args: argparse.Namespace) -> str:
    """Adapt to the first half and measure on the second."""
    clip = Clip(args)
    first, second = halves(clip.footage)
    result = clip.adapted(first)
    sources = tuple(embed_faces([path], clip.recogniser, clip.detector) for path in args.faces)
    judges = Judges(clip.recogniser, load_sync_model(args.sync), clip.sound, sources)
    return f"{result.report}\n\n{compare(clip.generator, result.state, second, judges)}"


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
    judged = parser.add_argument_group("measuring")
    judged.add_argument(
        "--halves", action="store_true", help="adapt to the first half, measure on the second, write nothing"
    )
    judged.add_argument(
        "--sync", type=Path, metavar="FILE", help="with --halves: sync model that judges (default: the bundled expert)"
    )
    judged.add_argument(
        "--faces",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="with --halves: pictures of people to swap in, one each (default: none)",
    )
    parser.add_argument("--device", default="cpu", help="torch device, e.g. cpu, cuda (default %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Adapt, report, write."""
    if args.halves:
        print(judge_halves(args))
        return 0
    output = args.output or args.video.with_suffix(".adapter.safetensors")
    read = [(f"--{name}", getattr(args, name)) for name in ("video", "audio", "weights", "recogniser", "detector")]
    check_outputs([("--output", output)], read)
    clip = Clip(args)
    result = clip.adapted(clip.footage)
    if not result.state and output.exists():
        print(f"{result.report}\nNothing was learnt: the earlier {output} was left as it is.")
        return 0
    output.parent.mkdir(parents=True, exist_ok=True)
    save_weights(output, result.state, result.metadata)
    print(result.report)
    print(f"{output} ({output.stat().st_size / 1e6:.2f} MB); use it with: python -m training infer --adapter {output}")
    return 0
