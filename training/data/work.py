"""The working folder of one item: files that appear only when whole, stages that know whether they are done.

A stage is done when its JSON file is there; it is written last, so whatever a killed process left behind is made anew.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

FAILED = "failed"


class Work:
    """One item's folder, made when something is first written.

    Args:
        folder: where.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, name: str) -> Path:
        """Where a file of that name is or would be."""
        return self.folder / name

    def is_done(self, stage: str) -> bool:
        """Whether the stage has left its result."""
        return self.path(f"{stage}.json").is_file()

    def result(self, stage: str) -> dict[str, Any]:
        """What a stage that is done left."""
        return json.loads(self.path(f"{stage}.json").read_text(encoding="utf-8"))

    def finish(self, stage: str, result: dict[str, Any]) -> None:
        """Leave a stage's result: from here on it is done."""
        write_json(self.path(f"{stage}.json"), result)

    def arrays(self, name: str) -> dict[str, np.ndarray]:
        """Read what `save_arrays` wrote."""
        with np.load(self.path(name), allow_pickle=False) as file:
            return dict(file)

    def save_arrays(self, name: str, **arrays: np.ndarray) -> None:
        """Write arrays under their names into one .npz."""
        with replacing(self.path(name)) as file:
            file.write(npz_bytes(**arrays))


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes its name, and the place of an older one, when it is complete and on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with partial.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def discard_partial(folder: Path) -> None:
    """Remove what killed processes left half written."""
    for path in folder.glob("*.part"):
        path.unlink(missing_ok=True)


def write_json(path: Path, value: Any, indent: int | None = 1) -> None:
    """Write JSON with sorted keys, so that equal values give equal bytes; without an indent it is one line."""
    with replacing(path) as file:
        file.write((json.dumps(value, indent=indent, sort_keys=True) + "\n").encode())


def write_lines(path: Path, entries: list[dict[str, Any]]) -> None:
    """Write JSON lines."""
    with replacing(path) as file:
        file.writelines((json.dumps(entry, sort_keys=True) + "\n").encode() for entry in entries)


def npz_bytes(**arrays: np.ndarray) -> bytes:
    """Arrays as the bytes of an .npz; equal arrays give equal bytes, as numpy stamps its members with no time."""
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, read in blocks."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
