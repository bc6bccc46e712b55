"""Talking clips as arrays: aligned crops, mel, mouth targets, whatever layout they come from."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d

from models import geometry

MARGIN = 0.125  # unit-crop widths kept on every side, so that training can shift, turn and scale
FPS = Fraction(25)
SPLITS = ("train", "val", "val_seen")
SHARDS_INDEX, RESEARCH_INDEX = "shards.json", "clips.json"  # what a cache of either layout is of
# Mouth blendshapes and mesh points of the data guide's sync judge: 12 + opening + width = 14 numbers a frame.
BLENDSHAPES = (
    "jawOpen mouthClose mouthFunnel mouthPucker mouthLowerDownLeft mouthUpperUpLeft mouthRollLower mouthRollUpper "
    "mouthStretchLeft mouthShrugLower mouthPressLeft mouthSmileLeft"
).split()
OPENING = len(BLENDSHAPES)  # place of the lip opening among the numbers


class Pictures(Protocol):
    """Stored crops, to be indexed like an array uint8 [F, S, S, 3]; rows may be decoded only when asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(F, S, S, 3)."""
        ...

    def __len__(self) -> int: ...

    def __getitem__(self, key: Any, /) -> Any: ...

    def __iter__(self) -> Iterator[Any]: ...


@dataclass(frozen=True)
class Clip:
    """One clip's place in the stacked arrays."""

    name: str
    identity: str
    split: str
    start: int  # first row in crops and mouth
    frames: int
    generated: bool


@dataclass(frozen=True)
class ClipSet:
    """All clips, row by row.

    Attributes:
        clips: where each clip's rows are.
        crops: uint8 [F, S, S, 3] RGB, S = `stored_side(px)`.
        windows: float32 [F, 80, 16] mel windows.
        measured: float32 [F, 14] mouth numbers, see `lips`; None = nobody measured them.
        poses: float32 [F, 72] pose thumbnails of the crops; None = to be computed where needed.
        vectors: identity vectors [12, D] of clips, where they are known already, by recogniser id and clip name.
    """

    clips: list[Clip]
    crops: Pictures
    windows: NDArray[np.float32]
    measured: NDArray[np.float32] | None
    poses: NDArray[np.float32] | None = None
    vectors: Mapping[tuple[str, str], NDArray[np.float32]] = field(default_factory=dict)

    @property
    def lips(self) -> NDArray[np.float32]:
        """Mouth numbers as measured, what a picture shows: float32 [F, 14].

        Raises:
            ValueError: the data has none.
        """
        if self.measured is None:
            raise ValueError(
                "This data has no mouth numbers, which the audio tower, the lip reader and the sync expert learn from. "
                "Prepare it again, into another folder, without --reader none."
            )
        return self.measured

    @cached_property
    def mouth(self) -> NDArray[np.float32]:
        """Mouth numbers without slow changes and scaled clip by clip: what speech can tell, float32 [F, 14]."""
        return np.concatenate([speech_part(self.lips[c.start : c.start + c.frames]) for c in self.clips])

    def training(self) -> list[Clip]:
        """Clips to train on, generated ones too.

        Raises:
            ValueError: there is none.
        """
        if not (clips := self.of("train", generated=True)):
            raise ValueError(
                f"None of {len(self.clips)} clips is to be trained on: every one has another split than train. Change "
                "the column split of the manifest.csv, or add videos."
            )
        return clips

    def of(self, split: str, generated: bool = False) -> list[Clip]:
        """Clips of one split, recorded ones only unless `generated`."""
        return [clip for clip in self.clips if clip.split == split and (generated or not clip.generated)]


def stored_side(px: int) -> int:
    """Side in pixels of stored crops that training cuts crops of `px` from."""
    return round(px * (1 + 2 * MARGIN))


def with_margin(matrices: geometry.Matrices) -> geometry.Matrices:
    """Frame-to-crop matrices [N, 2, 3] -> those of the stored crop, which keeps `MARGIN` on every side."""
    shift = np.zeros((2, 3))
    shift[:, 2] = MARGIN
    return (matrices + shift) / (1 + 2 * MARGIN)


def speech_part(lips: NDArray[np.float32], width: float = 30) -> NDArray[np.float32]:
    """Mouth numbers [N, 14] of one clip less their Gaussian of `width` frames, scaled to unit variance."""
    values = lips.astype(np.float64)
    values -= gaussian_filter1d(values, width, axis=0)
    return (values / (values.std(0) + 1e-6)).astype(np.float32)


def load_clips(data: Path, cache: Path, px: int = 96, lag: int = -1) -> ClipSet:
    """Open a data folder: shards as `python -m training prepare` writes them, or `talking` and `talking_generated`.

    Args:
        data: folder with index.json, or folder of the data guide.
        cache: folder for arrays that are made once; reused when it is complete and of this data. It lies in the folder
            of the run.
        px: side of the crops to be trained.
        lag: frames by which mel windows are moved (spec A13).

    Raises:
        FileNotFoundError: `data` is neither.
        ValueError: the data was prepared for another `px`, or the run that the cache belongs to was begun with other.
    """
    from .data.reader import open_shards
    from .research_layout import TALKING, open_research

    packed = (data / "index.json").is_file()
    other = cache / (RESEARCH_INDEX if packed else SHARDS_INDEX)
    if other.is_file() and not is_of(cache, {}, {"its layout": ""}):
        other.unlink()  # the arrays of both layouts have the same names
    if packed:
        return open_shards(data, cache, px, lag)
    if not (data / TALKING / "manifest.csv").is_file():
        raise FileNotFoundError(
            f"{data} holds neither index.json nor talking/manifest.csv. Make training data of any folder of videos "
            "with: python -m training prepare --input VIDEOS --output DATA"
        )
    return open_research(data, cache, px, lag)


def is_of(cache: Path, made_of: Mapping[str, str], found: Mapping[str, str]) -> bool:
    """Whether a cache is of this data; where it is not, it may be made anew.

    Args:
        cache: its folder.
        made_of: digests of the files that it was made of, by name.
        found: the same files' digests now.

    Raises:
        ValueError: it is of other data, and what a run learnt from that lies beside it; names the files that differ.
    """
    other = [name for name in {**found, **made_of} if made_of.get(name) != found.get(name)]
    if other and any(cache.parent.glob("*.pt")):
        raise ValueError(
            f"{cache.parent} was begun with other data (differing: {', '.join(other)}). Give another --output; or "
            f"delete {cache}, and what was learnt so far goes on with this data."
        )
    return not other


def check_side(folder: Path, side: int, px: int) -> None:
    """Refuse stored crops of another size than training at `px` needs.

    Raises:
        ValueError: names both.
    """
    if side != stored_side(px):
        raise ValueError(
            f"{folder} holds crops of {side} px; training at {px} px needs {stored_side(px)}. "
            "Give another folder, or prepare this one anew."
        )
