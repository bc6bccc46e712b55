"""Talking clips as arrays: aligned crops, mel, mouth targets, cached on disk as one memory-mapped file a kind.

Reads the layout of the data guide: a folder with `manifest.csv` (columns file, wav, identity, split, and av_lag_left
where it is known) beside a `landmarks.npz` with the mesh points and blendshapes of every frame.
"""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import av
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.io import wavfile
from scipy.ndimage import gaussian_filter1d

from models import audio, geometry

log = logging.getLogger(__name__)

MARGIN = 0.125  # unit-crop widths kept on every side, so that training can shift, turn and scale
FPS = Fraction(25)
# Mouth blendshapes and mesh points of the data guide's sync judge: 12 + opening + width = 14 numbers a frame.
BLENDSHAPES = (
    "jawOpen mouthClose mouthFunnel mouthPucker mouthLowerDownLeft mouthUpperUpLeft mouthRollLower mouthRollUpper "
    "mouthStretchLeft mouthShrugLower mouthPressLeft mouthSmileLeft"
).split()
OPENING = len(BLENDSHAPES)  # place of the lip opening among the numbers
LEFT_EYE, RIGHT_EYE = (33, 133, 159, 145), (263, 362, 386, 374)  # image left, image right
NOSE_TIP, MOUTH_LEFT, MOUTH_RIGHT = 1, 61, 291


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


def five_points(points: NDArray[np.float64], index: list[int]) -> NDArray[np.float64]:
    """Mesh points [N, P, 2] -> eye centres, nose tip, mouth corners [N, 5, 2] in ArcFace's order."""
    where = {mesh: i for i, mesh in enumerate(index)}

    def pick(*mesh: int) -> NDArray[np.float64]:
        return points[:, [where[m] for m in mesh]].mean(1)

    return np.stack([pick(*LEFT_EYE), pick(*RIGHT_EYE), pick(NOSE_TIP), pick(MOUTH_LEFT), pick(MOUTH_RIGHT)], 1)


def mouth_numbers(points: NDArray, index: list[int], shapes: NDArray, names: list[str]) -> NDArray[np.float32]:
    """The 14 mouth numbers of every frame, float32 [N, 14]: 12 blendshapes, lip opening and width over face height."""
    where = {mesh: i for i, mesh in enumerate(index)}

    def distance(a: int, b: int) -> NDArray:
        return np.linalg.norm(points[:, where[a]] - points[:, where[b]], axis=1)

    height = distance(10, 152)
    lips = np.stack([distance(13, 14) / height, distance(61, 291) / height], 1)
    return np.concatenate([shapes[:, [names.index(n) for n in BLENDSHAPES]], lips], 1).astype(np.float32)


def speech_part(lips: NDArray[np.float32], width: float = 30) -> NDArray[np.float32]:
    """Mouth numbers [N, 14] of one clip less their Gaussian of `width` frames, scaled to unit variance."""
    values = lips.astype(np.float64)
    values -= gaussian_filter1d(values, width, axis=0)
    return (values / (values.std(0) + 1e-6)).astype(np.float32)


def _decode(path: Path) -> NDArray[np.uint8]:
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def _prepare(
    folder: Path, row: dict[str, str], landmarks: dict, lag: int, side: int
) -> tuple[NDArray, NDArray, NDArray]:
    frames = _decode(folder / row["file"])
    key, index = Path(row["file"]).stem, landmarks["index"].tolist()
    points = landmarks[f"{key}/points"].astype(np.float64) / 64
    shapes = landmarks[f"{key}/blendshapes"]
    count = min(len(frames), len(points))
    frames, points, shapes = frames[:count], points[:count], shapes[:count]
    present = (points[:, 0, 0] > -400) & np.isfinite(shapes[:, 0])
    if not present.all():
        raise ValueError(f"{row['file']}: no landmarks in frames {np.flatnonzero(~present).tolist()}")
    matrices = geometry.smooth_matrices(geometry.crop_matrices(five_points(points, index) + 0.5), present)
    crops = geometry.warp_crops(frames, with_margin(matrices), side)
    rate, samples = wavfile.read(folder / row["wav"])
    mel = audio.mel_spectrogram(torch.from_numpy(samples.astype(np.float32) / 32768), rate)
    # A frame or two of lag is what a tower that has minutes to learn from notices first.
    late = int(row.get("av_lag_left") or 0)  # frames by which the sound comes late
    windows = audio.mel_windows(mel, count, FPS, lag + late)[:, 0].numpy()
    return crops, windows, mouth_numbers(points, index, shapes, landmarks["blendshape_names"].tolist())


def load_clips(data: Path, cache: Path, px: int = 96, lag: int = -1) -> ClipSet:
    """Open a data folder: shards as `python -m training prepare` writes them, or `talking` and `talking_generated`.

    Args:
        data: folder with index.json, or folder of the data guide.
        cache: folder for arrays that are made once; reused when it is complete.
        px: side of the crops to be trained.
        lag: frames by which mel windows are moved (spec A13).

    Raises:
        FileNotFoundError: `data` is neither.
        ValueError: the data, or the cache, was prepared for another `px`.
    """
    if (data / "index.json").is_file():
        from .data.reader import open_shards

        return open_shards(data, cache, px, lag)
    index = cache / "clips.json"
    if not index.exists():
        if not (data / "talking" / "manifest.csv").is_file():
            raise FileNotFoundError(
                f"{data} holds neither index.json nor talking/manifest.csv. Make training data of any folder of videos "
                "with: python -m training prepare --input VIDEOS --output DATA"
            )
        _build_cache(data, cache, lag, stored_side(px))
    clips = [Clip(**entry) for entry in json.loads(index.read_text())]
    crops = np.load(cache / "crops.npy", mmap_mode="r")
    check_side(cache, crops.shape[1], px)
    return ClipSet(clips, crops, np.load(cache / "windows.npy"), np.load(cache / "lips.npy"))


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


def _build_cache(data: Path, cache: Path, lag: int, side: int) -> None:
    landmarks = dict(np.load(data / "landmarks.npz", allow_pickle=False))
    clips: list[Clip] = []
    parts: list[tuple[NDArray, NDArray, NDArray]] = []
    for folder in ("talking", "talking_generated"):
        for row in csv.DictReader((data / folder / "manifest.csv").open(newline="")):
            parts.append(_prepare(data / folder, row, landmarks, lag, side))
            start = clips[-1].start + clips[-1].frames if clips else 0
            generated = folder == "talking_generated"
            name = Path(row["file"]).stem
            clips.append(Clip(name, row["identity"], row["split"], start, len(parts[-1][0]), generated))
            log.info("prepared %s: %d frames", row["file"], clips[-1].frames)
    cache.mkdir(parents=True, exist_ok=True)
    for name, arrays in zip(("crops", "windows", "lips"), zip(*parts, strict=True), strict=True):
        np.save(cache / f"{name}.npy", np.concatenate(arrays))
    (cache / "clips.json").write_text(json.dumps([vars(clip) for clip in clips]))
