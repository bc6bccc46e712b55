"""Pictures to look at: a strip for every pair, source | target | each system, at a few moments one below the other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageOps

from models.faces import Detector, largest_face
from models.geometry import crop_matrices, warp_crops
from models.metrics.subject import widened
from models.video import VideoFile

from ..data.work import replacing
from ..infer import first_frame
from .judging import Item
from .pairs import Pair

TILE = 208  # px
CAPTION = 34  # px above a column: two lines
MOMENTS = (0.15, 0.4, 0.65, 0.9)  # shares of the clip
MARGIN = 1.5  # side of the picture in sides of the face's crop
QUALITY = 90


def strip(pair: Pair, items: Sequence[Item], detector: Detector) -> Image.Image:
    """One pair; systems without a video have an empty column."""
    with VideoFile(pair.target) as target:
        frames = [int(share * (target.info.frames - 1)) for share in MOMENTS]
        given = [target.read(frame, frame + 1)[0] for frame in frames]
    places = [_place(picture, detector) for picture in given]
    columns = [("source", [_cut(*_with_place(first_frame(pair.source), detector))])]
    columns.append(("target", [_cut(picture, place) for picture, place in zip(given, places, strict=True)]))
    for item in items:
        if item.entry.contender.is_truth:
            continue
        shown = [] if not item.video.is_file() else _moments(item.video, frames, places)
        columns.append((item.entry.name + (" (random weights)" if item.entry.stand_in else ""), shown))
    sheet = Image.new("RGB", (TILE * len(columns), CAPTION + TILE * len(frames)), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (title, pictures) in enumerate(columns):
        pen.multiline_text((TILE * number + 4, 2), title.replace(" (", "\n("), fill="black", font_size=12)
        for row, picture in enumerate(pictures):
            sheet.paste(Image.fromarray(picture), (TILE * number, CAPTION + TILE * row))
    return sheet


def write_strips(folder: Path, pairs: Sequence[Pair], items: Sequence[Sequence[Item]], detector: Detector) -> None:
    """A JPEG a pair, under its name."""
    for pair, of_pair in zip(pairs, items, strict=True):
        with replacing(folder / f"{pair.name}.jpg") as file:
            strip(pair, of_pair, detector).save(file, "JPEG", quality=QUALITY)


def _moments(video: Path, frames: Sequence[int], places: Sequence[NDArray | None]) -> list[NDArray[np.uint8]]:
    with VideoFile(video) as made:
        last = made.info.frames - 1
        return [
            _cut(made.read(min(f, last), min(f, last) + 1)[0], place) for f, place in zip(frames, places, strict=True)
        ]


def _place(picture: NDArray[np.uint8], detector: Detector) -> NDArray[np.float64] | None:
    """The face's upright crop; None where there is no face."""
    try:
        return crop_matrices(largest_face(picture, detector).landmarks[None] + 0.5)
    except ValueError:
        return None


def _with_place(picture: NDArray[np.uint8], detector: Detector) -> tuple[NDArray[np.uint8], NDArray[np.float64] | None]:
    return picture, _place(picture, detector)


def _cut(picture: NDArray[np.uint8], place: NDArray[np.float64] | None) -> NDArray[np.uint8]:
    """Face and surroundings, uint8 [TILE, TILE, 3]; the whole picture where there is no face."""
    if place is None:
        return np.asarray(ImageOps.pad(Image.fromarray(picture), (TILE, TILE), color="white"))
    return warp_crops(picture[None], widened(place, MARGIN), TILE)[0]
