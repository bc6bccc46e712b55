"""`python -m training benchmark`: training samples a second by recipe and precision, as ratios within one run.

`benchmark inference` compares finished systems, see `inference_benchmark`.

Variants take turns, so that a machine that slows down slows them all; the median round counts. Pictures are noise: the
time of a step does not depend on what is in them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from models.identity import load_recogniser
from models.networks.blocks import audio_tower
from models.networks.wavsyncswap import PRESETS

from . import inference_benchmark
from .batches import Batches, SourceBank
from .clips import Clip, ClipSet, stored_side
from .config import Recipe, load_recipe, names
from .engine import Engine
from .lip_reader import LipReader
from .trainer import Trainer

FRAMES = 64


def noise_batches(recipe: Recipe, dim: int, device: torch.device) -> Batches:
    """Batches of two people of noise, cut like real ones, on a device."""
    random = np.random.default_rng(0)
    side = stored_side(recipe.model.px)
    crops = random.integers(0, 256, (2 * FRAMES, side, side, 3), np.uint8)
    windows = random.uniform(-4, 4, (2 * FRAMES, 80, 16)).astype(np.float32)
    clips = [Clip(name, name, "train", i * FRAMES, FRAMES, False) for i, name in enumerate("ab")]
    data = ClipSet(clips, crops, windows, np.zeros((2 * FRAMES, 14), np.float32))
    vectors = torch.nn.functional.normalize(torch.randn(2, dim), dim=1)
    return Batches(data, clips, SourceBank(vectors, ["a", "b"]), recipe.model.px, 0, device)


class Variant:
    """A recipe in one precision, ready to run steps with the GAN on."""

    def __init__(self, name: str, batch: int, precision: str, device: str, compiled: bool) -> None:
        recipe = load_recipe(name, [f"optim.precision={precision}"])
        swapped = max(1, round(batch * recipe.schedule.swapped / recipe.schedule.batch))
        recipe = replace(recipe, schedule=replace(recipe.schedule, batch=batch, swapped=swapped, kept=0, gan_start=0))
        recogniser = load_recogniser("builtin")
        tower = audio_tower(PRESETS[recipe.model.width].audio_width)
        self.name, self.precision, self.recipe = name, precision, recipe
        engine = Engine(device, precision)
        self.batches = noise_batches(recipe, recogniser.dim, engine.device)
        self.trainer = Trainer(recipe, tower, recogniser, LipReader(), None, engine, compiled)
        self.rounds: list[tuple[float, float]] = []

    def run(self, steps: int) -> tuple[float, float]:
        """Seconds of `steps` steps, and seconds of these spent on drawing batches."""
        schedule, waiting, begun = self.recipe.schedule, 0.0, time.perf_counter()
        for step in range(steps):
            drawn = time.perf_counter()
            batch = self.batches(step, schedule.batch, schedule.swapped)
            waiting += time.perf_counter() - drawn
            self.trainer.train_step(batch)  # ends with .item(): the device has finished
        return time.perf_counter() - begun, waiting

    def median(self, steps: int) -> tuple[float, float]:
        """Samples a second, and the share of the time spent on drawing batches, of the median round."""
        seconds, waiting = (statistics.median(column) for column in zip(*self.rounds, strict=True))
        return steps * self.recipe.schedule.batch / seconds, waiting / seconds


def table(variants: list[Variant], steps: int) -> str:
    """Markdown; ratios are to the first row."""
    lines = ["| recipe | precision | batch | samples/s | ratio | data |", "|---|---|---|---|---|---|"]
    first = variants[0].median(steps)[0]
    for variant in variants:
        speed, share = variant.median(steps)
        what = f"{variant.name} | {variant.precision} | {variant.recipe.schedule.batch}"
        lines.append(f"| {what} | {speed:.1f} | {speed / first:.2f} | {100 * share:.1f} % |")
    return "\n".join(lines) + "\n"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `python -m training benchmark`."""
    parser.add_argument(
        "what", nargs="?", choices=("training", "inference"), default="training", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--recipes", nargs="+", default=["small-96", "base-96"], metavar="NAME", help=f"some of {', '.join(names())}"
    )
    parser.add_argument("--batch", type=int, default=16, help="samples a step (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=4, help="steps a round (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each variant, in turn (default: %(default)s)")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: %(default)s)")
    parser.add_argument("--no-compile", action="store_true", help="do without torch.compile")
    parser.add_argument("--output", type=Path, help="also write the table to this file")
    inference_benchmark.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Measure and print."""
    if args.what == "inference":
        return inference_benchmark.run(args)
    variants = [
        Variant(name, args.batch, precision, args.device, not args.no_compile)
        for name in args.recipes
        for precision in ("fp32", "bf16")
    ]
    for variant in variants:
        variant.run(2)  # compiles, fills caches
    for _ in range(args.rounds):
        for variant in variants:
            variant.rounds.append(variant.run(args.steps))
    text = table(variants, args.steps)
    if args.output:
        args.output.write_text(text, encoding="utf-8")
    print(text)
    return 0
