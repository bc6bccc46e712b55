"""Runs on made-up people, as a program: for tests that need processes of their own.

`python small_run.py generator FOLDER SECTION.KEY=VALUE ...` trains in FOLDER/run as the command would. `KILL=N` ends
the last process with SIGKILL after step N, `TERM=N` asks it to end with SIGTERM.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from models.geometry import ARCFACE_TEMPLATE
from training import generator, syncnet
from training.clips import Clip, ClipSet
from training.config import load_recipe
from training.loop import launch


def made_up_people(frames: int = 12) -> ClipSet:
    """Three people, smooth coloured pictures of 120 px; the third is for validation."""
    random = np.random.default_rng(0)
    small = random.random((3 * frames, 6, 6, 3)).astype(np.float32)
    crops = np.repeat(np.repeat(small, 20, 1), 20, 2)
    clips = [Clip(f"c{i}", f"p{i}", "val" if i == 2 else "train", frames * i, frames, False) for i in range(3)]
    windows = random.uniform(-4, 4, (3 * frames, 80, 16)).astype(np.float32)
    lips = random.standard_normal((3 * frames, 14)).astype(np.float32)
    return ClipSet(clips, (crops * 255).astype(np.uint8), windows, lips)


def write_still(folder: Path) -> None:
    """A data folder with one still of somebody else."""
    (folder / "faces").mkdir()
    picture = np.random.default_rng(0).integers(0, 256, (112, 112, 3), np.uint8)
    cv2.imwrite(str(folder / "faces" / "a.png"), picture)
    points = " ".join(f"{value:.1f}" for value in ARCFACE_TEMPLATE.ravel())
    (folder / "faces" / "manifest.csv").write_text(f"file,kind,kps5,identity\na.png,photo,{points},somebody\n")


def interrupted(method: Any, step: int, number: signal.Signals) -> Any:
    """A train_step after which the process, if it is the last one, gets a signal."""

    def train_step(self: Any, batch: Any) -> Any:
        losses = method(self, batch)
        if self.step == step and self.engine.index == self.engine.count - 1:
            os.kill(os.getpid(), number)
        return losses

    return train_step


def main(kind: str, folder: Path, *changes: str) -> None:
    values = dict(change.split("=") for change in changes)
    signals = {name: int(values.pop(name)) for name in ("KILL", "TERM") if name in values}
    recipe = load_recipe("debug", [f"{key}={value}" for key, value in values.items()])
    engine = launch("cpu", recipe.optim.precision)
    module: Any = {"generator": generator, "syncnet": syncnet}[kind]
    trainer_class = generator.Trainer if kind == "generator" else syncnet.SyncTrainer
    for name, step in signals.items():
        wrapped = interrupted(trainer_class.train_step, step, signal.Signals[f"SIG{name}"])
        trainer_class.train_step = wrapped  # type: ignore[method-assign]
    frames = 12 if kind == "generator" else 60
    trainer = module.train(made_up_people(frames), folder, folder / "run", recipe, engine=engine, compiled=False)
    trainer.save(folder / f"process{engine.index}.pt")
    engine.close()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
