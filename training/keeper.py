"""Checkpoints of a run folder: the last, the best by a held-out number, and every so many steps one that stays."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch

from models.checkpoints import sha256_file

from .clips import ClipSet
from .config import Recipe

log = logging.getLogger(__name__)


@dataclass
class Record:
    """What a checkpoint knows of its run beside weights.

    Attributes:
        data: SHA-256 of the data folder's manifest.json, or of the list of clips where it has none.
        measured: held-out numbers by name, as last measured.
        best: the best score so far, higher is better; None = nothing was measured yet.
        start: name and SHA-256 of each file of weights that the run began with, in order.
    """

    data: str = ""
    measured: dict[str, float] = field(default_factory=dict)
    best: float | None = None
    start: list[list[str]] = field(default_factory=list)


class Trainable(Protocol):
    """What the loop and the keeper ask of a trainer."""

    step: int
    record: Record

    def save(self, path: Path) -> None:
        """Write everything that going on needs."""

    def restore(self, path: Path) -> None:
        """Go on from such a file."""


class Keeper:
    """Writes a run's checkpoints.

    Args:
        folder: run folder.
        last: name of the file that a run goes on from.
        prefix: what the names of the others begin with: PREFIXbest.pt, PREFIXstep_N.pt.
    """

    def __init__(self, folder: Path, last: str = "last.pt", prefix: str = "") -> None:
        self.last, self.folder, self.prefix = folder / last, folder, prefix

    def save(self, trainer: Trainable) -> None:
        """Replace the last checkpoint."""
        trainer.save(self.last)

    def keep(self, trainer: Trainable) -> None:
        """Write one that stays."""
        trainer.save(self.folder / f"{self.prefix}step_{trainer.step}.pt")

    def judge(self, trainer: Trainable, numbers: dict[str, float], score: float) -> None:
        """Remember a measurement; the best so far gets a checkpoint of its own."""
        record = trainer.record
        record.measured = {"step": trainer.step, **numbers}
        if record.best is None or score > record.best:
            record.best = score
            trainer.save(self.folder / f"{self.prefix}best.pt")
            log.info("step %d is the best so far: %s", trainer.step, numbers)


def write_whole(path: Path, state: Any) -> None:
    """Write plain values and tensors; a half-written file never replaces a whole one."""
    torch.save(state, f"{path}.tmp")
    os.replace(f"{path}.tmp", path)


def write(path: Path, parts: Mapping[str, Any], trainer: Trainable, recipe: Recipe) -> None:
    """Write a checkpoint of plain values and tensors; a half-written one never replaces a whole one."""
    state = {**parts, "step": trainer.step, "recipe": asdict(recipe), "record": asdict(trainer.record)}
    write_whole(path, state)


def note_data(record: Record, digest: str) -> None:
    """Have a record name the data that is trained on from here on; told where it is another than before."""
    if record.data not in ("", digest):
        log.warning(
            "the data is not what the run was begun with (SHA-256 %.12s, now %.12s); what it learnt stays. Give "
            "another --output to begin anew",
            record.data,
            digest,
        )
    record.data = digest


def read_record(state: Mapping[str, Any]) -> Record:
    """The record in a checkpoint; an empty one in checkpoints from before there were records."""
    return Record(**state.get("record", {}))


def data_digest(data: ClipSet, folder: Path) -> str:
    """SHA-256 that tells data sets apart: of manifest.json, or of the clips' names, people, splits and lengths."""
    manifest = folder / "manifest.json"
    if manifest.is_file():
        return sha256_file(manifest)
    return hashlib.sha256(json.dumps([vars(clip) for clip in data.clips]).encode()).hexdigest()
