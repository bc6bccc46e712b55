"""`python -m training benchmark [training | inference]`: how fast, as ratios within one run.

`training` compares generator and sync expert by recipe and precision, see `training_benchmark`; `inference` compares
finished systems, see `inference_benchmark`.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from . import inference_benchmark, training_benchmark
from .config import names
from .outputs import check_outputs


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `python -m training benchmark`."""
    parser.add_argument(
        "what", nargs="?", choices=("training", "inference"), default="training", help="(default: %(default)s)"
    )
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each variant, in turn (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="also write the table to this file (default: none)")
    group = parser.add_argument_group("training")
    group.add_argument(
        "--kinds",
        nargs="+",
        choices=training_benchmark.KINDS,
        default=list(training_benchmark.KINDS),
        help="what is trained (default: both)",
    )
    group.add_argument(
        "--recipes",
        nargs="+",
        default=["small-96", "base-96"],
        metavar="NAME",
        help=f"some of {', '.join(names())}, or TOML files (default: small-96 base-96)",
    )
    group.add_argument(
        "--batch",
        type=int,
        default=16,
        help="samples a step, at least 4: pictures, or windows of five frames (default: %(default)s)",
    )
    group.add_argument("--steps", type=int, default=4, help="steps a round (default: %(default)s)")
    group.add_argument("--no-compile", action="store_true", help="do without torch.compile")
    inference_benchmark.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Measure and print.

    Raises:
        ValueError: a batch too small to be trained on, or a file to be written is read too, or cannot be written.
    """
    check_outputs([("--output", args.output), ("--record", args.record)], [("--clip", args.clip)])
    if args.what == "inference":
        return inference_benchmark.run(args)
    if args.batch < 4 or min(args.steps, args.rounds) < 1:
        raise ValueError(
            f"Measuring needs --batch of at least 4 and --steps and --rounds of at least 1; got --batch {args.batch} "
            f"--steps {args.steps} --rounds {args.rounds}."
        )
    text = training_benchmark.measure(args)
    if args.output:
        args.output.write_text(text, encoding="utf-8")
    print(text)
    return 0
