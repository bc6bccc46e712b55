"""What every training loop shares: its options, its clock, its rhythm, and how it is asked to stop."""

from __future__ import annotations

import argparse
import logging
import shlex
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch

from models.stages import ahead

from .config import Recipe, in_precision, load_recipe, names
from .engine import Engine, settled
from .keeper import Keeper, Trainable
from .outputs import check_folder

if TYPE_CHECKING:
    from .watch import Watch

log = logging.getLogger(__name__)
LOG_EVERY = 20  # steps
T = TypeVar("T")


class Clock:
    """Samples a second, and the share of the time spent waiting for batches."""

    def __init__(self, step: int) -> None:
        self.first, self.begun, self.waiting = step, time.monotonic(), 0.0

    def waited(self, draw: Callable[[], T]) -> T:
        """The result of `draw`, its time counted as waiting."""
        begun = time.monotonic()
        result = draw()
        self.waiting += time.monotonic() - begun
        return result

    def rates(self, step: int, batch: int) -> dict[str, float]:
        """Since the clock was made."""
        passed = time.monotonic() - self.begun
        return {
            "samples_per_s": round((step - self.first) * batch / passed, 1),
            "data_share": round(self.waiting / passed, 3),
        }


@dataclass(frozen=True)
class Rhythm:
    """When a loop does what, in steps; 0 = never, where that makes sense.

    Attributes:
        steps: the last one.
        batch: samples of a step, all processes together.
        save: the checkpoint that a run goes on from.
        measure: held-out numbers.
        keep: checkpoints that stay.
        sample: pictures and a video.
    """

    steps: int
    batch: int
    save: int
    measure: int
    keep: int = 0
    sample: int = 0

    def shows(self, every: int, step: int) -> bool:
        """Whether something that is looked at every so many steps is looked at after this one; so is the last."""
        return every > 0 and (step % every == 0 or step == self.steps)


class Course(Protocol):
    """What is special about one kind of training."""

    trainer: Any  # a Trainable with train_step(batch) -> losses by name

    def draw(self, step: int) -> Any:
        """This process's share of a step's batch."""

    def measure(self) -> tuple[dict[str, float], float] | None:
        """Held-out numbers, and the score that the best checkpoint is chosen by; None = nobody is held out."""

    def sample(self, watch: Watch) -> None:
        """Show what the network does."""


def follow(course: Course, engine: Engine, rhythm: Rhythm, keeper: Keeper, watch: Watch) -> None:
    """Train to the last step, or until any process is asked to stop; all stop at the same step, saved.

    Only the first process measures, shows and writes; the others wait for it at their next step.
    """
    trainer, first = course.trainer, engine.first
    coming = range(trainer.step, rhythm.steps)
    with stop_requested() as stop, watch, drawn_ahead(course.draw, coming, engine.device) as draw:
        clock = Clock(trainer.step)
        while trainer.step < rhythm.steps and not engine.any(stop.is_set()):
            losses = trainer.train_step(clock.waited(lambda: draw(trainer.step)))
            if first:
                _after_step(course, rhythm, keeper, watch, losses, clock.rates(trainer.step, rhythm.batch))
        if first:
            keeper.save(trainer)
    engine.wait()


def _after_step(
    course: Course, rhythm: Rhythm, keeper: Keeper, watch: Watch, losses: dict[str, Any], rates: dict[str, float]
) -> None:
    trainer: Trainable = course.trainer
    step, entry = trainer.step, dict[str, float]()
    if (step == 1 or rhythm.shows(rhythm.measure, step)) and (found := course.measure()):
        numbers, score = found
        entry = {f"val_{name}": round(value, 4) for name, value in numbers.items()}
        keeper.judge(trainer, entry, score)
    watch.advance(step, rates, losses)
    if entry or step % LOG_EVERY == 0 or step == rhythm.steps:
        watch.write({"step": step, **rates, **losses, **entry})
    if rhythm.shows(rhythm.sample, step):
        course.sample(watch)
    if rhythm.keep and step % rhythm.keep == 0:
        keeper.keep(trainer)
    if step % rhythm.save == 0:
        keeper.save(trainer)
        log.info("step %d saved, %s", step, {**rates, **entry})


@contextmanager
def drawn_ahead(draw: Callable[[int], T], steps: range, device: torch.device) -> Iterator[Callable[[int], T]]:
    """Give `draw` back, on a GPU with a thread that draws the next steps' batches while it works on the ones before.

    A batch depends on its step alone, so the result is the same. On a CPU the drawing would take the training's cores.

    Args:
        draw: makes the batch of a step.
        steps: those that will be asked for, one after the other.
        device: where the training runs.
    """
    if device.type != "cuda":
        yield draw
        return
    with ahead(draw(step) for step in steps) as batches:
        yield lambda _: next(batches)


@contextmanager
def stop_requested() -> Iterator[threading.Event]:
    """An event that SIGTERM sets, so that a run that is asked to end saves what it has."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():  # only the main thread may listen
        yield event
        return
    before = signal.signal(signal.SIGTERM, lambda *_: event.set())
    try:
        yield event
    finally:
        signal.signal(signal.SIGTERM, before)


def add_run_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that every trainer takes: recipe, device, compiler."""
    parser.add_argument(
        "--recipe",
        default="small-96",
        help=f"{', '.join(names())}, a TOML file, or weights made here, which hold theirs (default: %(default)s)",
    )
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help="change a value of the recipe; repeatable (default: none)",
    )
    parser.add_argument(
        "--device", default="cpu", help="cpu, cuda or cuda:N; under torchrun without N (default: %(default)s)"
    )
    parser.add_argument("--no-compile", action="store_true", help="do without torch.compile and a C++ compiler")


def chosen_recipe(args: argparse.Namespace, changes: Sequence[str] = ()) -> Recipe:
    """The recipe that a trainer's options ask for, its number type that of the device.

    Raises:
        ValueError: as `load_recipe`, or nothing can be written to the run folder.
    """
    check_folder("--output", args.output)
    recipe = load_recipe(args.recipe, [*args.set, *changes])
    kind = torch.device(args.device.partition(":")[0])
    return in_precision(recipe, settled(recipe.optim.precision, kind))


def launch(device: str, precision: str) -> Engine:
    """Join the run's other processes, if there are any; only the first one logs what is merely worth knowing."""
    engine = Engine(device, precision)
    if not engine.first:
        logging.getLogger().setLevel(logging.WARNING)
    return engine


def stopped(command: str, args: argparse.Namespace, step: int, steps: int, recipe: str = "recipe.toml") -> str:
    """What to tell who stopped a run: nothing is lost, and how it goes on; `recipe` is its file in the run folder."""
    again = ["--data", str(args.data), "--output", str(args.output), "--recipe", str(args.output / recipe)]
    again += ["--device", args.device] if args.device != "cpu" else []
    again += ["--no-compile"] if args.no_compile else []
    return (
        f"Stopped and saved after step {step} of {steps}. Go on with:\npython -m training {command} {shlex.join(again)}"
    )
