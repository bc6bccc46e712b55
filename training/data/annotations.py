"""HDTF's lists: which stretches of which videos show a talking face, and where in the picture.

A line of `*_annotion_time.txt` (spelled so by its authors) is a file name and stretches, `Radio11.mp4 00:30-01:00
01:30-02:30`; of `*_crop_wh.txt` a file name with the stretch's number and left edge, width, top edge and height in
pixels, `Radio11_1.mp4 557 478 0 478`; of `*_resolution.txt` a file name and the height of the picture that these pixels
mean. Stretches without a box are taken whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

from ..user_tables import read_text
from .items import SUFFIXES, Item, files_below


def find_annotated(folder: Path, annotations: Path) -> list[Item]:
    """Every annotated stretch, in order of name; those whose video is missing too, so that they are listed.

    Args:
        folder: of the downloaded videos, looked through with all below it; they are called as in the lists, whatever
            their suffix.
        annotations: folder of the lists.

    Raises:
        FileNotFoundError: no such folder, or no list in it.
        ValueError: a line that is none of the above, the message names file and line; or a list that is not UTF-8.
    """
    lists = sorted(annotations.glob("*_annotion_time.txt"))
    if not folder.is_dir() or not lists:
        raise FileNotFoundError(
            f"There is no folder {folder}, or no *_annotion_time.txt in {annotations}: expected a folder of downloaded "
            "videos and the folder HDTF_dataset of the dataset's repository."
        )
    videos = {path.stem: path for path in files_below(folder) if path.suffix.lower() in SUFFIXES}
    boxes = {stem: _box(*row) for stem, row in _numbers(annotations, "*_crop_wh.txt", 4)}
    heights = {stem: row[0] for stem, row in _numbers(annotations, "*_resolution.txt", 1)}
    items = []
    for path in lists:
        for where, name, *stretches in _lines(path):
            stem = Path(name).stem
            video = videos.get(stem, folder / name)
            for number, stretch in enumerate(stretches):
                start, stop = _times(where, stretch)
                box = boxes.get(f"{stem}_{number}")
                items.append(Item(f"{name}#{number}", video, name, start, stop, box, heights.get(stem)))
    return sorted(items, key=lambda item: item.name)


def _lines(path: Path) -> Iterator[list[str]]:
    """Place and words of every line that is not empty."""
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if words := line.split():
            yield [f"{path.name}, line {number}", *words]


def _numbers(folder: Path, pattern: str, count: int) -> Iterator[tuple[str, list[int]]]:
    for path in sorted(folder.glob(pattern)):
        for where, name, *words in _lines(path):
            if len(words) != count or not all(word.isdecimal() for word in words):
                raise ValueError(
                    f"{where}: expected a name and {count} whole numbers, found {' '.join([name, *words])!r}."
                )
            yield Path(name).stem, [int(word) for word in words]


def _box(left: int, width: int, top: int, height: int) -> tuple[int, int, int, int]:
    return left, top, width, height


def _times(where: str, stretch: str) -> tuple[Fraction, Fraction]:
    """`01:30-02:30` or with hours -> seconds."""
    try:
        start, stop = (_seconds(time) for time in stretch.split("-"))
    except ValueError as error:
        raise ValueError(f"{where}: expected a stretch such as 00:30-01:00, found {stretch!r}.") from error
    return start, stop


def _seconds(time: str) -> Fraction:
    total = Fraction(0)
    for part in time.split(":"):
        total = 60 * total + int(part)
    return total
