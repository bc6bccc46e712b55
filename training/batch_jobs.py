"""The jobs of `infer --batch`: a JSON object a line, checked like the command line's options, before any work."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
from collections.abc import Iterator
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from models.checkpoints import sha256_file

from .infer import add_arguments, files_read, options_of
from .outputs import Named, check_apart, spelling

FILES = ("video", "face", "audio", "out")
ALLOWED = (
    *FILES, "select", "index", "length", "smoothing", "feather", "colour_match", "speech_gate", "audio_offset",
)  # fmt: skip
ENGINES = ("weights", "adapter", "recogniser", "detector", "threshold", "precision")  # the command line's alone
EXPECTED = {Path: "a file's name", int: "a whole number", float: "a number"}


@dataclass(frozen=True)
class Job:
    """One line of JOBS.

    Attributes:
        line: its number, from 1.
        args: its options over the command line's.
        name: of its files in the state folder; goes with the file that it writes, so that one file is one job's alone.
        key: SHA-256 of all that the result depends on; the place in JOBS is no part of it.
    """

    line: int
    args: argparse.Namespace
    name: str
    key: str


def read_jobs(path: Path, defaults: argparse.Namespace) -> list[Job]:
    """Jobs of a file, with what the command line says as the default of each; paths are taken from JOBS' folder.

    Raises:
        ValueError: a line is no job, an option has another type or range, or a file to be written is written by another
            line too, or read by one; the message names the line.
    """
    jobs, outputs = [], dict[str, int]()
    actions, engines, base = _actions(), _engines(defaults), os.path.realpath(path.parent)
    for number, text in _lines(path):
        where = f"{path.name}, line {number}"
        try:
            args = _arguments(_parsed(text), defaults, path.parent, actions)
            options_of(args)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        out = spelling(args.out)
        if out in outputs:
            raise ValueError(f"{where} writes {args.out.name}, and so does line {outputs[out]}. Give it another name.")
        outputs[out] = number
        jobs.append(_job(number, args, base, engines))
    if not jobs:
        raise ValueError(f"{path} holds no job. Write one JSON object a line.")
    _check_files(path, jobs)
    return jobs


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines that are not empty, with their numbers; a byte order mark is no part of the first."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text ({error.reason}). Save it as UTF-8.") from error
    # `splitlines` would also part lines at characters that a JSON string may hold
    return ((number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip())


def _parsed(text: str) -> dict[str, Any]:
    """Options of a line.

    Raises:
        ValueError: it is no job.
    """
    try:
        options = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"this is not JSON ({error}). Write one object a line.") from error
    if not isinstance(options, dict) or not {"video", "out"} <= options.keys():
        raise ValueError(f'expected {{"video": ..., "out": ...}}, got {text.strip()[:80]}.')
    if unknown := sorted(options.keys() - set(ALLOWED)):
        raise ValueError(f"unknown {', '.join(unknown)}; a job may say {', '.join(ALLOWED)}.")
    return options


def _actions() -> dict[str, argparse.Action]:
    parser = argparse.ArgumentParser(add_help=False)
    add_arguments(parser)
    return {action.dest: action for action in parser._actions}


def _arguments(
    options: dict[str, Any], defaults: argparse.Namespace, folder: Path, actions: dict[str, argparse.Action]
) -> argparse.Namespace:
    """A line's options over the command line's.

    Raises:
        ValueError: one has another type than it has there.
    """
    args = copy(defaults)
    for name, value in options.items():
        if value is None and name in ("face", "audio"):  # none, whatever the command line says
            setattr(args, name, None)
        elif name == "face":
            several = value if isinstance(value, list) else [value]
            setattr(args, name, [folder / _converted(name, one, actions[name]) for one in several])
        else:
            value = _converted(name, value, actions[name])
            setattr(args, name, folder / value if name in FILES else value)
    return args


def _converted(name: str, value: Any, action: argparse.Action) -> Any:
    """What the command line would have made of a value."""
    if action.choices is not None:
        fits, expected = isinstance(value, str) and value in action.choices, f"one of {', '.join(action.choices)}"
    else:
        kind: Any = action.type
        held = {Path: str, int: int, float: int | float}[kind]
        fits, expected = isinstance(value, held) and not isinstance(value, bool) and value != "", EXPECTED[kind]
    if not fits:
        raise ValueError(f"{name} is {json.dumps(value)[:80]}; give {expected}, or leave it out for the default.")
    try:
        return action.type(value) if callable(action.type) else value
    except OverflowError:
        raise ValueError(f"{name} is a number of {len(str(value))} digits; give a smaller one.") from None


def _job(line: int, args: argparse.Namespace, base: str, engines: dict[str, Any]) -> Job:
    said = {name: getattr(args, name) for name in ALLOWED}
    for name in FILES:
        path = said[name]
        said[name] = [_from(base, one) for one in path] if name == "face" and path else path and _from(base, path)
    exact = json.dumps(said | engines, sort_keys=True)
    readable = re.sub(r"[^A-Za-z0-9._-]+", "_", args.out.stem)[:40]
    name = f"{readable}-{hashlib.sha256(said['out'].encode()).hexdigest()[:12]}"
    return Job(line, args, name, hashlib.sha256(exact.encode()).hexdigest())


def _engines(defaults: argparse.Namespace) -> dict[str, Any]:
    """What the command line says of networks; files by their content, which may change under one name."""

    def told(value: Any) -> Any:
        if isinstance(value, list):
            return [told(one) for one in value]
        if isinstance(value, str | Path):
            return sha256_file(value) if Path(value).is_file() else str(value)
        return value

    return {name: told(getattr(defaults, name)) for name in ENGINES}


def _from(base: str, path: Path) -> str:
    """A file as seen from JOBS' folder, `base`: the same on all machines that share it."""
    try:
        return os.path.relpath(os.path.realpath(path), base)
    except ValueError:  # another drive
        return os.path.realpath(path)


def _check_files(path: Path, jobs: list[Job]) -> None:
    read: dict[str, Named] = {str(path): ("--batch", path)}
    for job in jobs:
        for what, file in files_read(job.args):
            read.setdefault(str(file), (f"line {job.line}, {what}", file))
    check_apart([(f"{path.name}, line {job.line}, out", job.args.out) for job in jobs], read.values())
