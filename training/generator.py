"""`python -m training generator --data DIR --output DIR`: train the generator, or go on training it.

Batches are a pure function of seed and step, so a run that was stopped goes on from its last checkpoint as if it had
never been stopped.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import nn

from models.identity import load_recogniser
from models.networks.wavsyncswap import PRESETS

from .audio_tower import pretrain
from .batches import Batches
from .clips import ClipSet, load_clips
from .config import Recipe, load_recipe, to_toml
from .leak import leaks
from .lip_reader import LipReader, load_reader, pretrain_reader
from .loop import LOG_EVERY, Clock, add_run_arguments, stop_requested
from .plan import describe
from .second_recogniser import second_recogniser
from .sources import source_bank
from .sync_loss import expert_of, sync_loss_of
from .trainer import Trainer
from .warm_start import recognise

log = logging.getLogger(__name__)


def train(
    data: ClipSet,
    folder: Path,
    output: Path,
    recipe: Recipe,
    init: Sequence[Path] = (),
    device: str = "cpu",
    compiled: bool = True,
) -> Trainer:
    """Train to the last step of the recipe, resuming when `output` holds a checkpoint.

    Args:
        data: prepared clips.
        folder: data folder with faces/ and, if there is a second recogniser, weights/.
        output: run folder; gets recipe.toml, log.jsonl, last.pt and the pre-trained parts.
        recipe: what to do.
        init: weights to start from instead of noise, one after the other, see `warm_start`; ignored when a run is
            resumed.
        device: where to train.
        compiled: use torch.compile; a minute at the start, a quarter faster after.

    Returns:
        The trainer; its `step` is below the recipe's last one if the process was asked to stop.
    """
    output.mkdir(parents=True, exist_ok=True)
    recogniser, second = load_recogniser("builtin"), second_recogniser(folder)
    bank = source_bank(data, folder / "faces", recogniser, second)
    schedule = recipe.schedule
    batches = Batches(data, data.of("train", generated=True), bank, recipe.model.px, schedule.seed)
    reader = _reader(data, batches, output, recipe)
    sync = sync_loss_of(recipe, data, recogniser, torch.device(device))
    trainer = Trainer(recipe, _tower(data, output, recipe), recogniser, reader, second, device, compiled, sync)
    checkpoint = output / "last.pt"
    if checkpoint.exists():
        trainer.restore(checkpoint)
        log.info("resumed at step %d", trainer.step)
    else:
        for path in init:
            log.info("%s", trainer.start_from(path))
    (output / "recipe.toml").write_text(to_toml(recipe), encoding="utf-8")
    with stop_requested() as stop, (output / "log.jsonl").open("a") as lines:
        clock = Clock(trainer.step)
        while trainer.step < schedule.steps and not stop.is_set():
            batch = clock.waited(lambda: batches.of(trainer.step, schedule))
            entry = trainer.train_step(batch)
            saving = trainer.step % schedule.save_every == 0
            if saving:
                trainer.save(checkpoint)
                entry |= {f"leak_{name}": value for name, value in leaks(trainer.averaged(), batch).items()}
                log.info("step %d saved, %s", trainer.step, clock.rates(trainer.step, schedule.batch))
            if saving or trainer.step % LOG_EVERY == 0 or trainer.step == schedule.steps:
                lines.write(json.dumps({"step": trainer.step, **clock.rates(trainer.step, schedule.batch), **entry}))
                lines.write("\n")
                lines.flush()
        trainer.save(checkpoint)
    return trainer


def _tower(data: ClipSet, output: Path, recipe: Recipe) -> nn.Module:
    """The run's audio tower: pre-trained once."""
    path = output / "audio_tower.pt"
    width = PRESETS[recipe.model.width].audio_width
    if path.exists():
        from models.networks.blocks import audio_tower

        tower: nn.Module = audio_tower(width)
        tower.load_state_dict(torch.load(path, weights_only=True))
        return tower
    tower, numbers = pretrain(data, recipe.schedule.tower_steps, width, recipe.schedule.seed)
    torch.save(tower.state_dict(), path)
    (output / "audio_tower.json").write_text(json.dumps(numbers))
    return tower


def _reader(data: ClipSet, batches: Batches, output: Path, recipe: Recipe) -> LipReader:
    """The run's lip reader: pre-trained once."""
    path = output / "lip_reader.pt"
    if path.exists():
        return load_reader(path)
    reader, numbers = pretrain_reader(data, batches, recipe.schedule.reader_steps, recipe.schedule.seed)
    torch.save(reader.state_dict(), path)
    (output / "lip_reader.json").write_text(json.dumps(numbers))
    return reader


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `python -m training generator`."""
    parser.add_argument("--data", type=Path, required=True, help="folder with talking/, faces/ and landmarks.npz")
    parser.add_argument("--output", type=Path, required=True, help="run folder: checkpoints, log, prepared clips")
    add_run_arguments(parser)
    parser.add_argument(
        "--init",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="weights to start from: exported ones, or what fits of wav2lip.pth, a SimSwap generator or "
        "lipsync_expert.pth; repeatable (default: noise)",
    )
    parser.add_argument("--dry-run", action="store_true", help="print the whole recipe, sizes and data; do nothing")


def run(args: argparse.Namespace) -> int:
    """Train, or go on training; status 0 also when asked to stop, since nothing is lost."""
    recipe = load_recipe(args.recipe, args.set)
    if args.dry_run:
        print(describe(recipe, args.data))
        return 0
    expert_of(recipe)  # what is wrong with a file is told before any work
    for path in args.init:
        recognise(path)
    data = load_clips(args.data, args.output / "clips", recipe.model.px)
    trainer = train(data, args.data, args.output, recipe, args.init, args.device, not args.no_compile)
    if trainer.step < recipe.schedule.steps:
        again = (
            f"python -m training generator --data {args.data} --output {args.output} --recipe {args.output}/recipe.toml"
        )
        print(f"Stopped and saved after step {trainer.step} of {recipe.schedule.steps}. Go on with:\n{again}")
    else:
        print(f"Done. Weights for the nodes: python -m training export {args.output}/last.pt FILE.safetensors")
    return 0
