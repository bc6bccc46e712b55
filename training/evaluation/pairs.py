"""The test set: pairs of a target video and a source face, from a manifest or shuffled out of a folder of videos."""

from __future__ import annotations

import csv
import hashlib
import io
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from ..data.items import Item, find_items
from ..data.work import replacing, sha256_of
from ..user_tables import read_table

COLUMNS = ("name", "target", "source", "audio", "person")
LONGEST = 100  # characters of a name: file names end at 255 bytes


@dataclass(frozen=True)
class Pair:
    """One item of the test set.

    Attributes:
        name: unique, fit for a file name.
        target: video whose face is replaced.
        source: picture, or video whose first frame shows the source face.
        audio: sound that the lips are to follow; None = the target's own.
        person: who the source shows. Sources of one person are one entry of the gallery of ID-Retrieve.
    """

    name: str
    target: Path
    source: Path
    audio: Path | None
    person: str

    def digest(self) -> dict[str, str]:
        """SHA-256 of its files, by column."""
        files = {"target": self.target, "source": self.source, "audio": self.audio}
        return {column: sha256_of(path) for column, path in files.items() if path is not None}


def read_pairs(manifest: Path) -> list[Pair]:
    """Pairs of a CSV file.

    Columns `target` and `source` are needed, `audio`, `name` and `person` are not; paths count from the file's folder.

    Raises:
        ValueError: a column or a file is missing, a name comes twice, or there is no pair.
    """
    rows = read_table(manifest)
    if not rows or not {"target", "source"} <= set(rows[0]):
        found = ", ".join(rows[0]) if rows else "no rows"
        raise ValueError(
            f"{manifest} is no test set: expected a row a pair and the columns target, source (and audio, name, person "
            f"where known), found {found}."
        )
    named, files = [], []
    for line, row in enumerate(rows, 2):
        paths = {column: manifest.parent / row[column] for column in COLUMNS[1:4] if row.get(column)}
        if missing := [column for column in COLUMNS[1:3] if column not in paths]:
            raise ValueError(f"{manifest}, line {line}: no {' and no '.join(missing)}. Every pair needs both.")
        for column, path in paths.items():
            if not path.is_file():
                raise ValueError(f"{manifest}, line {line}: the {column} {path} does not exist. Correct the path.")
        files.append(paths)
        named.append(row.get("name") or "")
    twice = [name for name, count in Counter(filter(None, named)).items() if count > 1]
    if twice:
        raise ValueError(f"{manifest} has the name {twice[0]!r} more than once. Names keep results apart: change one.")
    wanted = [
        ((name,), name) if name else _wanted(row["target"], row["source"])
        for name, row in zip(named, rows, strict=True)
    ]
    people = [row.get("person") or name for row, name in zip(rows, _apart([r["source"] for r in rows]), strict=True)]
    return [
        Pair(name, paths["target"], paths["source"], paths.get("audio"), person)
        for name, paths, person in zip(_names(wanted), files, people, strict=True)
    ]


def shuffled_pairs(folder: Path, split: str = "val", seed: int = 0) -> list[Pair]:
    """The paper's test set: every video of a folder is a target, and the first frame of another is its source.

    Videos are found as `prepare` finds them; where a manifest.csv tells splits, those of one split are taken, and where
    it tells people, nobody gets their own face. A .wav beside a video is its sound, to the sample.

    Args:
        folder: looked through with all folders below it.
        split: see above.
        seed: of the shuffle.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: too few videos or people.
    """
    items = find_items(folder)
    if any(item.split for item in items):
        items = [item for item in items if item.split == split]
    people = [item.identity or item.name for item in items]
    order = _exchange(people, seed)
    if order is None:
        raise ValueError(
            f"{folder} has {len(items)} videos of {len(set(people))} people to pair (split {split!r}); nobody may get "
            "their own face, so no person may have more than half of the videos. Add videos, or give a --manifest."
        )
    sources = [items[other] for other in order]
    names = _names([_wanted(item.name, source.name) for item, source in zip(items, sources, strict=True)])
    return [
        _pair(name, item, items[other], people[other]) for name, item, other in zip(names, items, order, strict=True)
    ]


def write_pairs(path: Path, pairs: list[Pair]) -> None:
    """Write a manifest that `read_pairs` reads."""
    text = io.StringIO(newline="")
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(COLUMNS)
    for pair in pairs:
        files = (pair.target.resolve(), pair.source.resolve(), pair.audio.resolve() if pair.audio else "")
        rows.writerow((pair.name, *files, pair.person))
    with replacing(path) as file:
        file.write(text.getvalue().encode())


def _exchange(people: list[str], seed: int) -> list[int] | None:
    """For each row another's, in which nobody meets themselves; None = there is no such exchange.

    Rows are put in order by person, the people and each one's rows shuffled, and everybody takes what lies as many
    places on as the person with the most rows has: that is past their own.
    """
    random, most = np.random.default_rng(seed), max(Counter(people).values(), default=0)
    if not people or most > len(people) / 2:
        return None
    rank = {person: place for place, person in enumerate(random.permutation(sorted(set(people))).tolist())}
    rows = sorted(random.permutation(len(people)).tolist(), key=lambda row: rank[people[row]])
    order = [0] * len(rows)
    for row, other in zip(rows, np.roll(rows, -most).tolist(), strict=True):
        order[row] = other
    return order


def _pair(name: str, target: Item, source: Item, person: str) -> Pair:
    sound = target.path.with_suffix(".wav")
    return Pair(name, target.path, source.path, sound if sound.is_file() else None, person)


def _wanted(target: str, source: str) -> tuple[tuple[str, ...], str]:
    """What tells a pair from others, and what it is called for people."""
    return (target, source), "__".join(str(PurePosixPath(name).with_suffix("")) for name in (target, source))


def _names(wanted: Sequence[tuple[tuple[str, ...], str]]) -> list[str]:
    """A name for each, fit for a file, with a digest where letters alone would not tell it from another.

    Args:
        wanted: what tells it from others, and what it is to be called.
    """
    safe = [re.sub(r"[^A-Za-z0-9._-]+", "_", name).strip(".")[:LONGEST] for _, name in wanted]
    times = Counter(name.lower() for name in safe)  # there are disks that know no capitals
    return [
        name if name == asked and times[name.lower()] == 1 else f"{name}-{_digest(what)}"
        for name, (what, asked) in zip(safe, wanted, strict=True)
    ]


def _apart(paths: list[str]) -> list[str]:
    """Paths without folders and suffix where that still tells them apart."""
    stems = {path: PurePosixPath(path).stem for path in paths}
    times = Counter(stems.values())
    return [stems[path] if times[stems[path]] == 1 else path for path in paths]


def _digest(what: tuple[str, ...]) -> str:
    return hashlib.sha256(repr(what).encode()).hexdigest()[:8]
