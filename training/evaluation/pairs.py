"""The test set: pairs of a target video and a source face, from a manifest or shuffled out of a folder of videos."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..data.items import Item, find_items
from ..data.work import replacing, sha256_of
from ..user_tables import read_table

COLUMNS = ("name", "target", "source", "audio", "person")
TRIES = 10_000  # shuffles before the folder is said to have too few people


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
    pairs = []
    for line, row in enumerate(rows, 2):
        paths = {column: manifest.parent / row[column] for column in COLUMNS[1:4] if row.get(column)}
        if missing := [column for column in COLUMNS[1:3] if column not in paths]:
            raise ValueError(f"{manifest}, line {line}: no {' and no '.join(missing)}. Every pair needs both.")
        for column, path in paths.items():
            if not path.is_file():
                raise ValueError(f"{manifest}, line {line}: the {column} {path} does not exist. Correct the path.")
        name = row.get("name") or f"{paths['target'].stem}__{paths['source'].stem}"
        person = row.get("person") or paths["source"].stem
        pairs.append(Pair(_safe(name), paths["target"], paths["source"], paths.get("audio"), person))
    twice = [name for name, count in Counter(pair.name for pair in pairs).items() if count > 1]
    if twice:
        raise ValueError(f"{manifest} has the name {twice[0]!r} more than once. Names keep results apart: change one.")
    return pairs


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
    return [_pair(item, items[other], people[other]) for item, other in zip(items, order, strict=True)]


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
    """A shuffle of the rows in which nobody meets themselves; None = none was found."""
    random, own = np.random.default_rng(seed), np.array(people)
    if not people or max(Counter(people).values()) > len(people) / 2:
        return None
    shuffles = (random.permutation(len(people)) for _ in range(TRIES))
    return next((order.tolist() for order in shuffles if (own[order] != own).all()), None)


def _pair(target: Item, source: Item, person: str) -> Pair:
    sound = target.path.with_suffix(".wav")
    name = _safe(f"{target.path.stem}__{source.path.stem}")
    return Pair(name, target.path, source.path, sound if sound.is_file() else None, person)


def _safe(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "_", name)
