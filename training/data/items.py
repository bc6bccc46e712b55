"""What there is to prepare: the videos of a folder, what is known about them, and the settings they share."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

from ..clips import SPLITS, stored_side
from ..user_tables import read_table
from .work import sha256_of

SUFFIXES = {".mp4", ".mov", ".mkv", ".webm", ".avi", ".m4v", ".mpg", ".mpeg", ".mts", ".ts", ".flv", ".wmv", ".ogv"}
LAYOUT = 2  # of shards and working folders; 1 left it to the reader to move the sound


@dataclass(frozen=True)
class Item:
    """A video, or a stretch of one.

    Attributes:
        name: path below the input folder with forward slashes, and for a stretch its number after a `#`; unique.
        path: the file.
        video: name of the whole video, the same for all stretches of it.
        start: seconds at which the stretch begins.
        stop: seconds at which it ends; None = with the video.
        box: (x, y, width, height) in pixels that the face is looked for in; None = the whole picture.
        box_height: height of the picture that the pixels of `box` mean; None = the video's own.
        identity: who the speaker is, where that is known.
        split: one of `SPLITS`, where that is laid down.
    """

    name: str
    path: Path
    video: str
    start: Fraction = Fraction(0)
    stop: Fraction | None = None
    box: tuple[int, int, int, int] | None = None
    box_height: int | None = None
    identity: str | None = None
    split: str | None = None

    @property
    def key(self) -> str:
        """Name of the working folder; another file under the same name gets another one."""
        stat = self.path.stat() if self.path.is_file() else None
        file = stat and (stat.st_size, stat.st_mtime_ns)
        what = (self.name, file, self.start, self.stop, self.box, self.box_height)
        return (
            f"{re.sub(r'[^A-Za-z0-9]+', '_', self.name)[-60:]}-{hashlib.sha256(repr(what).encode()).hexdigest()[:12]}"
        )


@dataclass(frozen=True)
class Settings:
    """What all items are prepared with.

    Attributes:
        px: side of the crops to be trained; a margin is stored around them.
        seed: of the split.
        reader: lip_reader.pt of a training run; None = no mouth numbers.
        sync: exported sync expert; None = offsets come from `listening` where lips are read, else stay unknown.
    """

    px: int = 96
    seed: int = 0
    reader: Path | None = None
    sync: Path | None = None

    @property
    def side(self) -> int:
        """Side of the stored crops in pixels."""
        return stored_side(self.px)

    @property
    def listens(self) -> bool:
        """Whether sync is found by what the reader sees instead of an expert."""
        return self.reader is not None and self.sync is None

    def described(self) -> dict[str, Any]:
        """As JSON, files by their content, so that two runs can be compared.

        Raises:
            FileNotFoundError: a file that is named is not there.
        """
        values = {name: sha256_of(value) if isinstance(value, Path) else value for name, value in asdict(self).items()}
        return values | {"layout": LAYOUT}


def find_items(folder: Path) -> list[Item]:
    """All videos below a folder, in order of name.

    A `manifest.csv` beside or above videos is honoured: column `file`, and `identity` and `split` where it has them.
    The name of a folder says nothing about who is seen.

    Raises:
        FileNotFoundError: no such folder.
        ValueError: no video in it, or a manifest that cannot be read, has an unknown split, or names what is not there.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"There is no folder {folder}.")
    files = list(files_below(folder))
    videos = [path for path in files if path.suffix.lower() in SUFFIXES]
    if not videos:
        raise ValueError(f"There is no video in {folder}; looked for {', '.join(sorted(SUFFIXES))}, also below it.")
    known: dict[str, dict[str, str]] = {}
    for manifest in (path for path in files if path.name == "manifest.csv"):
        if any(manifest.parent in video.parents for video in videos):
            known |= _told(manifest, files)
    items = []
    for path in videos:
        name, row = path.relative_to(folder).as_posix(), known.get(_place(path), {})
        items.append(Item(name, path, name, identity=row.get("identity") or None, split=row.get("split") or None))
    return sorted(items, key=lambda item: item.name)


def files_below(folder: Path) -> Iterator[Path]:
    """Files below a folder in order; links to folders are followed, which `rglob` does not do on every Python."""
    for path in sorted(folder.iterdir()):
        if path.is_dir():
            yield from files_below(path)
        else:
            yield path


def _told(manifest: Path, files: Iterable[Path]) -> dict[str, dict[str, str]]:
    """Rows of a manifest by the place of the file that each names; some may be no videos."""
    there, told = {_place(path) for path in files}, dict[str, dict[str, str]]()
    for row in read_table(manifest, ("file",)):
        if row.get("split") and row["split"] not in SPLITS:
            raise ValueError(
                f"{manifest} puts {row['file']} into the split {row['split']!r}; choose one of {', '.join(SPLITS)}, or "
                "leave the column empty."
            )
        told[_place(manifest.parent / row["file"])] = row
    lost = [row["file"] for place, row in told.items() if place not in there and not Path(place).is_file()]
    if lost:
        raise ValueError(
            f"{manifest} names {len(lost)} files that are not there: {', '.join(map(repr, lost[:3]))}"
            f"{' and so on' if len(lost) > 3 else ''}. Paths count from its folder; correct them, or take the rows out."
        )
    return told


def _place(path: Path) -> str:
    """A path as it can be compared: without `..`, accented letters in one form whatever program wrote them."""
    return unicodedata.normalize("NFC", os.path.normpath(path))
