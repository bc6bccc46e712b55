"""Talking clips as arrays: aligned crops, mel, mouth targets, cached on disk as one memory-mapped file a kind.

Reads the layout of the data guide: a folder with `manifest.csv` (columns file, wav, identity, split) beside a
`landmarks.npz` with the mesh points and blendshapes of every frame.
"""

from __future__ import annotations

import csv
import json
import logging
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from pathlib import Path

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
        lips: float32 [F, 14] mouth numbers as measured: what a picture shows.
    """

    clips: list[Clip]
    crops: NDArray[np.uint8]
    windows: NDArray[np.float32]
    lips: NDArray[np.float32]

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
    matrices[:, :, 2] += MARGIN
    crops = geometry.warp_crops(frames, matrices / (1 + 2 * MARGIN), side)
    rate, samples = wavfile.read(folder / row["wav"])
    mel = audio.mel_spectrogram(torch.from_numpy(samples.astype(np.float32) / 32768), rate)
    windows = audio.mel_windows(mel, count, FPS, lag)[:, 0].numpy()
    return crops, windows, mouth_numbers(points, index, shapes, landmarks["blendshape_names"].tolist())


def load_clips(data: Path, cache: Path, px: int = 96, lag: int = -1) -> ClipSet:
    """Read `data/talking` and `data/talking_generated`, preparing them once into `cache`.

    Args:
        data: folder of the data guide.
        cache: folder for the prepared arrays; reused when it is complete.
        px: side of the crops to be trained.
        lag: frames by which mel windows are moved (spec A13).

    Raises:
        FileNotFoundError: `data` holds no manifest.
        ValueError: the cache was prepared for another `px`.
    """
    index = cache / "clips.json"
    if not index.exists():
        _build_cache(data, cache, lag, stored_side(px))
    clips = [Clip(**entry) for entry in json.loads(index.read_text())]
    crops = np.load(cache / "crops.npy", mmap_mode="r")
    if crops.shape[1] != stored_side(px):
        raise ValueError(
            f"{cache} holds crops of {crops.shape[1]} px; training at {px} px needs {stored_side(px)}. "
            "Give another folder, or delete this one to prepare it anew."
        )
    return ClipSet(clips, crops, np.load(cache / "windows.npy"), np.load(cache / "lips.npy"))


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
