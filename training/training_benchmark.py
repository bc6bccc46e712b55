"""Training samples a second of generator and sync expert, by recipe and precision, as ratios within one run.

Variants take turns, so that a machine that slows down slows them all; the median round counts. Pictures are noise: the
time of a step does not depend on what is in them. Batches are drawn as the training loop draws them.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from models.identity import load_recogniser
from models.memory import wait_for

from .batches import Batches, SourceBank
from .clips import Clip, ClipSet, stored_side
from .config import Recipe, load_recipe
from .engine import Engine
from .hardware import environment
from .lip_reader import LipReader
from .loop import drawn_ahead
from .sync_windows import PX, SyncBatches
from .syncnet import SyncTrainer
from .trainer import Trainer

KINDS = ("generator", "syncnet")
PRECISIONS = ("fp32", "bf16")
PEOPLE, FRAMES = 8, 64
WARM = 2  # steps before anything is timed: they compile, and fill caches
OF_CLIP = 8  # windows of one clip in a batch of the sync expert


def noise_clips(px: int) -> ClipSet:
    """Clips of people who are noise, cut like real ones."""
    random = np.random.default_rng(0)
    side, frames = stored_side(px), PEOPLE * FRAMES
    crops = random.integers(0, 256, (frames, side, side, 3), np.uint8)
    windows = random.uniform(-4, 4, (frames, 80, 16)).astype(np.float32)
    clips = [Clip(f"c{i}", f"p{i}", "train", i * FRAMES, FRAMES, False) for i in range(PEOPLE)]
    return ClipSet(clips, crops, windows, random.standard_normal((frames, 14)).astype(np.float32))


def generator_steps(recipe: Recipe, batch: int, engine: Engine, compiled: bool) -> tuple[Any, Callable[[int], Any]]:
    """A generator's trainer with the GAN on, and what draws its batches."""
    swapped = round(batch * recipe.schedule.swapped / recipe.schedule.batch)
    swapped = max(swapped, int(recipe.system.swaps))
    schedule = replace(recipe.schedule, batch=batch, swapped=swapped, kept=0, windows=0, gan_start=0)
    recipe = replace(recipe, schedule=schedule)
    recogniser, data = load_recogniser("builtin"), noise_clips(recipe.model.px)
    tower = recipe.system.tower(recipe.model)
    labels = [clip.identity for clip in data.clips]
    bank = SourceBank(torch.nn.functional.normalize(torch.randn(PEOPLE, recogniser.dim), dim=1), labels)
    batches = Batches(data, data.clips, bank, recipe.model.px, 0, engine.device, recipe.system.seen)
    trainer = Trainer(recipe, tower, recogniser, LipReader() if recipe.loss.lips else None, None, engine, compiled)
    return trainer, lambda step: batches(step, batch, swapped)


def syncnet_steps(recipe: Recipe, batch: int, engine: Engine, compiled: bool) -> tuple[Any, Callable[[int], Any]]:
    """A sync expert's trainer with its contrastive losses on, and what draws its windows."""
    windows = min(OF_CLIP, batch // 2)
    config = replace(recipe.syncnet, clips=batch // windows, windows=windows, supervised_steps=0, teacher="")
    data = noise_clips(PX)
    batches = SyncBatches(data, data.clips, 0, engine.device)
    trainer = SyncTrainer(replace(recipe, syncnet=config), engine, compiled)
    return trainer, lambda step: batches(step, config.clips, config.windows)


class Variant:
    """One kind of training by one recipe in one precision, ready to run steps.

    Args:
        kind: of `KINDS`.
        name: of the recipe.
        precision: of `PRECISIONS`.
        batch: samples a step: pictures of the generator, windows of five frames of the expert.
        device: where.
        compiled: use torch.compile.
    """

    def __init__(self, kind: str, name: str, precision: str, batch: int, device: str, compiled: bool) -> None:
        recipe = load_recipe(name, [f"optim.precision={precision}"])
        engine = Engine(device, precision)
        build = {"generator": generator_steps, "syncnet": syncnet_steps}[kind]
        self.trainer, self.draw = build(recipe, batch, engine, compiled)
        self.kind, self.name, self.precision, self.batch, self.device = kind, name, precision, batch, engine.device
        self.rounds: list[tuple[float, float]] = []

    def run(self, steps: int) -> tuple[float, float]:
        """Seconds of `steps` steps, and seconds of these spent waiting for batches."""
        waiting = 0.0
        wait_for(self.device)
        begun = time.perf_counter()
        with drawn_ahead(self.draw, range(steps), self.device) as take:
            for step in range(steps):
                asked = time.perf_counter()
                batch = take(step)
                waiting += time.perf_counter() - asked
                self.trainer.train_step(batch)
            wait_for(self.device)
        return time.perf_counter() - begun, waiting

    def median(self, steps: int) -> tuple[float, float]:
        """Samples a second, and the share of the time spent waiting for batches, of the median round."""
        seconds, waiting = (statistics.median(column) for column in zip(*self.rounds, strict=True))
        return steps * self.batch / seconds, waiting / seconds


def measure(args: argparse.Namespace) -> str:
    """Run all variants in turn; the table."""
    variants = [
        Variant(kind, name, precision, args.batch, args.device, not args.no_compile)
        for kind in args.kinds
        for name in args.recipes
        for precision in PRECISIONS
    ]
    for variant in variants:
        variant.run(WARM)
    for _ in range(args.rounds):
        for variant in variants:
            variant.rounds.append(variant.run(args.steps))
    known = ", ".join(f"{key} {value}" for key, value in environment(variants[0].device).items())
    return f"{known}\n\n{table(variants, args.steps)}"


def table(variants: list[Variant], steps: int) -> str:
    """Markdown; ratios are to the same recipe in fp32, and to the first row."""
    lines = [
        "| training | recipe | precision | batch | samples/s | of fp32 | of first row | waits for data |",
        "|---|---|---|---|---|---|---|---|",
    ]
    speeds = {(v.kind, v.name, v.precision): v.median(steps) for v in variants}
    first = next(iter(speeds.values()))[0]
    for variant in variants:
        speed, share = speeds[variant.kind, variant.name, variant.precision]
        full = speeds[variant.kind, variant.name, "fp32"][0]
        what = f"{variant.kind} | {variant.name} | {variant.precision} | {variant.batch}"
        lines.append(f"| {what} | {speed:.1f} | {speed / full:.2f} | {speed / first:.2f} | {100 * share:.1f} % |")
    return "\n".join(lines) + "\n"
