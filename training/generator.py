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
from torch import Tensor, nn

from models.checkpoints import load_into, load_pickle_state
from models.identity import load_recogniser

from .audio_tower import pretrain
from .batches import Batch, Batches
from .clips import ClipSet, load_clips
from .config import Recipe, to_toml
from .engine import Engine
from .keeper import Keeper, data_digest, note_data, write_whole
from .leak import leaks
from .lip_reader import LipReader, pretrain_reader
from .loop import Rhythm, add_run_arguments, chosen_recipe, follow, launch, stopped
from .plan import describe
from .report import write_report
from .samples import HeldOut
from .second_recogniser import second_recogniser
from .sources import source_bank
from .sync_loss import expert_of, sync_loss_of
from .trainer import Trainer
from .warm_start import open_start
from .watch import Watch

log = logging.getLogger(__name__)


class GeneratorCourse:
    """What the loop asks of a generator's training, see `loop.Course`."""

    def __init__(self, trainer: Trainer, batches: Batches, held_out: HeldOut | None) -> None:
        self.trainer, self.batches, self.held_out = trainer, batches, held_out

    def draw(self, step: int) -> Batch:
        """This process's rows of a step's batch."""
        schedule, engine = self.trainer.recipe.schedule, self.trainer.engine
        return self.batches.of(step, schedule, (engine.index, engine.count))

    def measure(self) -> tuple[dict[str, float], float] | None:
        """L1 and leaks of the averaged weights on people held out; the lowest L1 is the best."""
        if self.held_out is None:
            return None
        net = self.trainer.averaged()
        error, found = self.held_out.l1(net), dict[str, float]()
        if self.trainer.system.hears:  # else nothing is hidden from it, and there is nothing that it could copy unheard
            found = leaks(net, self.held_out.batch.to(self.trainer.device))
        return {"l1": error, **{f"leak_{name}": value for name, value in found.items()}}, -error

    def sample(self, watch: Watch) -> None:
        """A picture and a video of people held out, by the averaged weights."""
        if self.held_out is not None:
            step, net = self.trainer.step, self.trainer.averaged()
            watch.picture(step, self.held_out.grid(net))
            self.held_out.video(net, watch.sample(step, ".mp4"))


def train(
    data: ClipSet,
    folder: Path,
    output: Path,
    recipe: Recipe,
    init: Sequence[Path] = (),
    engine: Engine | None = None,
    compiled: bool = True,
) -> Trainer:
    """Train to the last step of the recipe, resuming when `output` holds a checkpoint.

    Args:
        data: prepared clips.
        folder: data folder with faces/ and, if there is a second recogniser, weights/.
        output: run folder that all processes see; gets recipe.toml, log.jsonl, the checkpoints last.pt and best.pt,
            samples/, report.md and the pre-trained parts.
        recipe: what to do.
        init: weights to start from instead of noise, one after the other, see `warm_start`; ignored when a run is
            resumed.
        engine: where to train; None = one process on the CPU.
        compiled: use torch.compile; a minute at the start, a quarter faster after.

    Returns:
        The trainer; its `step` is below the recipe's last one if the process was asked to stop.

    Raises:
        ValueError: the processes cannot share the recipe's batch.
    """
    engine = engine or Engine(precision=recipe.optim.precision)
    recipe.check_parts(engine.count)
    output.mkdir(parents=True, exist_ok=True)
    recogniser = load_recogniser("builtin")
    second = second_recogniser(folder) if recipe.loss.second_identity else None
    bank = source_bank(data, folder / "faces", recogniser, second)
    schedule, px, seen = recipe.schedule, recipe.model.px, recipe.system.seen
    batches = Batches(data, data.training(), bank, px, schedule.seed, engine.device, seen)
    with engine.one_by_one():
        reader, tower = _reader(data, batches, output, recipe), _tower(data, output, recipe, engine.device)
    held_out = HeldOut(data, folder, recogniser, px, seen) if engine.first and data.of("val") else None
    sync = sync_loss_of(recipe, data, recogniser, engine.device)
    trainer, keeper = Trainer(recipe, tower, recogniser, reader, second, engine, compiled, sync), Keeper(output)
    if keeper.last.exists():
        trainer.restore(keeper.last)
        log.info("resumed at step %d", trainer.step)
    else:
        for path in init:
            log.info("%s", trainer.start_from(path))
    note_data(trainer.record, data_digest(data, folder))
    if engine.first:
        (output / "recipe.toml").write_text(to_toml(recipe), encoding="utf-8")
    rhythm = Rhythm(
        schedule.steps,
        schedule.batch,
        schedule.save_every,
        schedule.measure_every,
        schedule.keep_every,
        schedule.sample_every,
    )
    watch = Watch(output, "log.jsonl", trainer.step, schedule.steps, engine.first)
    follow(GeneratorCourse(trainer, batches, held_out), engine, rhythm, keeper, watch)
    return trainer


def _tower(data: ClipSet, output: Path, recipe: Recipe, device: torch.device) -> nn.Module | None:
    """The run's audio tower: pre-trained once; None where nothing is heard."""
    path = output / "audio_tower.pt"
    torch.manual_seed(recipe.schedule.seed)
    fresh = recipe.system.tower(recipe.model)
    if fresh is None:
        return None
    if path.exists():
        load_into(fresh, _kept(path), path.name)
        return fresh
    tower, numbers = pretrain(data, recipe.schedule.tower_steps, fresh, recipe.schedule.seed, device)
    (output / "audio_tower.json").write_text(json.dumps(numbers))
    write_whole(path, tower.state_dict())
    return tower


def _reader(data: ClipSet, batches: Batches, output: Path, recipe: Recipe) -> LipReader | None:
    """The run's lip reader: pre-trained once; None where lips do not count."""
    path = output / "lip_reader.pt"
    if not recipe.loss.lips:
        return None
    if path.exists():
        reader = LipReader()
        load_into(reader, _kept(path), path.name)
        return reader.eval()
    reader, numbers = pretrain_reader(data, batches, recipe.schedule.reader_steps, recipe.schedule.seed)
    (output / "lip_reader.json").write_text(json.dumps(numbers))
    write_whole(path, reader.state_dict())
    return reader


def _kept(path: Path) -> dict[str, Tensor]:
    """Weights of a part that this run pre-trained.

    Raises:
        ValueError: the file is damaged; says what to do.
    """
    try:
        return load_pickle_state(path)
    except ValueError as error:
        raise ValueError(f"{error} This one is the run's own: delete {path}, and it is made anew.") from error


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of `python -m training generator`."""
    parser.add_argument("--data", type=Path, required=True, help="folder made by `prepare`, or of the research layout")
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
    recipe = chosen_recipe(args)
    if args.dry_run:
        print(describe(recipe, args.data))
        return 0
    if args.init:
        recipe.system.check_start()
    expert_of(recipe)  # what is wrong with a file is told before any work
    for path in args.init:
        open_start(path)
    engine = launch(args.device, recipe.optim.precision)
    recipe.check_parts(engine.count)
    with engine.one_by_one():
        data = load_clips(args.data, args.output / "clips", recipe.model.px)
    trainer = train(data, args.data, args.output, recipe, args.init, engine, not args.no_compile)
    if engine.first:
        report = write_report(args.output, "log.jsonl", "Generator", trainer.record)
        if trainer.step < recipe.schedule.steps:
            print(stopped("generator", args, trainer.step, recipe.schedule.steps))
        else:
            print(f"Done, see {report}. Weights for the nodes:")
            print(f"python -m training export {args.output}/last.pt FILE.safetensors")
    engine.close()
    return 0
