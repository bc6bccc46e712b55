"""What a command is about to write: never over a file that it reads, and told before any work if it cannot be."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

Named = tuple[str, "Path | str | None"]  # what a file is for, such as "--out", and its path; None = there is none


def check_outputs(outputs: Iterable[Named], inputs: Iterable[Named]) -> None:
    """Refuse files to be written that are read, that are written twice, or that cannot be written.

    Raises:
        ValueError: as `check_apart` and `check_file`.
    """
    written = [(what, Path(path)) for what, path in outputs if path is not None]
    check_apart(written, inputs)
    for what, path in written:
        check_file(what, path)


def check_apart(outputs: Iterable[Named], inputs: Iterable[Named]) -> None:
    """Refuse files to be written that are read, or that are written twice.

    Names of bundled things, such as "builtin", may be among the inputs: they stand for no file here.

    Raises:
        ValueError: names the file, what it is for and what else it is.
    """
    taken: dict[object, str] = {}
    for what, path in inputs:
        if path is not None:
            taken |= {mark: f"is read ({what}), and would be overwritten" for mark in _marks(Path(path))}
    for what, path in outputs:
        if path is None:
            continue
        marks = _marks(Path(path))
        if found := next((taken[mark] for mark in marks if mark in taken), None):
            raise ValueError(f"{what}: {path} {found}. Write to another file.")
        taken[spelling(Path(path))] = f"is written by {what} too"  # links between results do no harm: each is replaced


def check_file(what: str, path: Path) -> None:
    """Refuse a path under which no file can be written.

    Raises:
        ValueError: it is a folder, write-protected, or in no folder that could be written to.
    """
    if path.is_dir():
        raise ValueError(f"{what}: {path} is a folder. Name a file in it.")
    if path.exists() and not os.access(path, os.W_OK):
        raise ValueError(f"{what}: {path} is write-protected. Write to another file.")
    check_folder(what, path.parent)


def check_folder(what: str, folder: Path) -> None:
    """Refuse a folder that is none, or that can neither be made nor written to; nothing is made.

    Raises:
        ValueError: says what is in the way.
    """
    there = next(one for one in (folder.absolute(), *folder.absolute().parents) if one.exists() or one.is_symlink())
    if not there.is_dir():
        raise ValueError(f"{what}: {there} is in the way: a folder is needed there. Choose another place.")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ValueError(f"{what}: nothing can be written to {there}. Choose another place, or change its permissions.")


def spelling(path: Path) -> str:
    """A path's one spelling: two that are equal here are one file, whether it is there or not."""
    return os.path.normcase(os.path.realpath(path))


def _marks(path: Path) -> set[object]:
    """What paths to one file have in common: the resolved path, and the file's own number where there is a file."""
    marks: set[object] = {spelling(path)}
    if path.exists() and (stat := path.stat()).st_ino:
        marks.add((stat.st_dev, stat.st_ino))
    return marks
