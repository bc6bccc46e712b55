"""Where a run stands: JSON lines always, a progress bar on a terminal, TensorBoard where it is installed."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Watch:
    """Receives what a training loop has to say. Use as a context manager.

    Args:
        folder: run folder; pictures and videos go into its `samples`, TensorBoard's files into `tensorboard`.
        log_name: file of JSON lines, one an entry.
        step: steps done before; lines of later ones are of a process that died before it saved, and are taken out.
        steps: steps to be done.
        active: False in all processes but the first: nothing is written then.
    """

    def __init__(self, folder: Path, log_name: str, step: int, steps: int, active: bool = True) -> None:
        self.folder, self.log = folder, folder / log_name
        self.active = active
        self._step, self._steps = step, steps
        self._stack = ExitStack()
        self._bar: Any = None
        self._board: Any = None

    def __enter__(self) -> Watch:
        if self.active:
            _forget_after(self.log, self._step)
            self._lines = self._stack.enter_context(self.log.open("a", encoding="utf-8"))
            self._board = _tensorboard(self.folder / "tensorboard", self._step)
            if self._board:
                self._stack.callback(self._board.close)
            self._bar = self._stack.enter_context(_progress(self._step, self._steps))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def advance(self, step: int, rates: Mapping[str, float], losses: Mapping[str, Any]) -> None:
        """Move the progress bar."""
        if self._bar:
            total = sum(value for value in losses.values() if isinstance(value, float))
            self._bar.update(
                0, completed=step, told=f"{rates['samples_per_s']:.1f} samples/s, losses {total:.3f} together"
            )

    def write(self, entry: Mapping[str, Any]) -> None:
        """Append an entry; it has a "step", numbers, and groups of numbers."""
        self._lines.write(json.dumps(entry) + "\n")
        self._lines.flush()
        if self._board:
            for name, value in flat(entry):
                self._board.add_scalar(name, value, entry["step"])

    def picture(self, step: int, picture: NDArray[np.uint8]) -> None:
        """Keep a picture, uint8 [H, W, 3] RGB, as samples/STEP.png."""
        from PIL import Image

        Image.fromarray(picture).save(self.sample(step, ".png"))
        if self._board:
            self._board.add_image("samples", picture, step, dataformats="HWC")

    def sample(self, step: int, suffix: str) -> Path:
        """Path of a step's sample; its folder is there."""
        (self.folder / "samples").mkdir(exist_ok=True)
        return self.folder / "samples" / f"{step:07d}{suffix}"


def flat(entry: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """Numbers of an entry but its step; those of groups are named group/number."""
    for name, value in entry.items():
        if isinstance(value, Mapping):
            yield from ((f"{name}/{inner}", number) for inner, number in value.items())
        elif name != "step":
            yield name, value


def entries(log: Path) -> list[dict[str, Any]]:
    """Entries of a file of JSON lines; a last line that was not finished is left out."""
    lines = log.read_text(encoding="utf-8").splitlines(keepends=True) if log.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def _forget_after(log: Path, step: int) -> None:
    kept = [entry for entry in entries(log) if entry["step"] <= step]
    partial = log.with_name(f"{log.name}.tmp")
    partial.write_text("".join(json.dumps(entry) + "\n" for entry in kept), encoding="utf-8")
    os.replace(partial, log)


def _tensorboard(folder: Path, step: int) -> Any:
    """A writer, or None where the package is absent."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1)


@contextmanager
def _progress(step: int, steps: int) -> Iterator[Any]:
    """A bar with the time left, or None where standard error is no terminal or rich is absent."""
    try:
        from rich import progress
        from rich.console import Console
    except ImportError:
        yield None
        return
    if not sys.stderr.isatty():
        yield None
        return
    columns = (
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TimeRemainingColumn(),
        progress.TextColumn("{task.fields[told]}"),
    )
    terminal = sys.stderr
    written = [h for h in logging.getLogger().handlers if getattr(h, "stream", None) is terminal]
    with progress.Progress(*columns, console=Console(stderr=True)) as bar:
        bar.add_task("training", total=steps, completed=step, told="")
        for handler in written:  # through the bar, or each message would tear it
            handler.setStream(sys.stderr)  # type: ignore[attr-defined]
        try:
            yield bar
        finally:
            for handler in written:
                handler.setStream(terminal)  # type: ignore[attr-defined]
