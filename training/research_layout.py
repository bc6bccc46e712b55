"""The layout of the data guide: clips, their sound and manifests, cached on disk as one memory-mapped file a kind.

`talking` and `talking_generated` hold a `manifest.csv` each (columns file, wav, identity, split, and av_lag_left where
it is known), beside a `landmarks.npz` with the mesh points and blendshapes of every frame.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
from numpy.typing import NDArray
from scipy.io import wavfile

from models import audio, geometry

from .clips import BLENDSHAPES, FPS, RESEARCH_INDEX, SPLITS, Clip, ClipSet, check_side, is_of, stored_side, with_margin
from .data.work import replacing, sha256_of, write_json
from .user_tables import read_table

log = logging.getLogger(__name__)
TALKING, GENERATED = "talking", "talking_generated"
LANDMARKS = "landmarks.npz"
COLUMNS = ("file", "wav", "identity", "split")
SOURCES = (f"{TALKING}/manifest.csv", f"{GENERATED}/manifest.csv", LANDMARKS)  # what a cache is told by
LAG = -1  # of all caches from before they said what they were made of
LEFT_EYE, RIGHT_EYE = (33, 133, 159, 145), (263, 362, 386, 374)  # image left, image right
NOSE_TIP, MOUTH_LEFT, MOUTH_RIGHT = 1, 61, 291


def manifest_rows(data: Path, part: str) -> list[dict[str, str]]:
    """The clips that the manifest of one part lists; none where nothing was generated.

    Raises:
        FileNotFoundError: there is no manifest of recorded clips.
        ValueError: it cannot be read, or has an unknown split.
    """
    path = data / part / "manifest.csv"
    if part == GENERATED and not path.is_file():
        return []
    if not path.is_file():
        raise FileNotFoundError(
            f"{path} is missing, and index.json too. --data is a folder made by: python -m training prepare"
        )
    rows = read_table(path, COLUMNS)
    for row in rows:
        if row["split"] not in SPLITS:
            raise ValueError(
                f"{path} puts {row['file']} into the split {row['split']!r}; choose one of {', '.join(SPLITS)}."
            )
    return rows


def open_research(data: Path, cache: Path, px: int, lag: int) -> ClipSet:
    """Open a folder of this layout.

    Args:
        data: the folder.
        cache: folder for the arrays, made where they are not there yet.
        px: side of the crops to be trained.
        lag: frames by which mel windows are moved.

    Raises:
        ValueError: the cache is of another `px`, or the run that it belongs to of other data; a clip cannot be used.
    """
    index = cache / RESEARCH_INDEX
    found = {name: sha256_of(data / name) for name in SOURCES if (data / name).is_file()}
    made = _index(data, index, found)
    if made:
        check_side(cache, np.load(cache / "crops.npy", mmap_mode="r").shape[1], px)
    if not made or not is_of(cache, made["made_of"], found) or made["lag"] != lag:
        index.unlink(missing_ok=True)
        made = {"made_of": found, "lag": lag, "clips": _build(data, cache, lag, stored_side(px))}
        write_json(index, made)
    clips = [Clip(**entry) for entry in made["clips"]]
    crops = np.load(cache / "crops.npy", mmap_mode="r")
    return ClipSet(clips, crops, np.load(cache / "windows.npy"), np.load(cache / "lips.npy"))


def _index(data: Path, index: Path, found: dict[str, str]) -> dict[str, Any]:
    """What a cache says of itself; nothing where it is to be made.

    One from before caches said what they were made of is taken for the data's if it lists the same clips and no file
    that it was made of is newer; where one is, making it anew does no harm.
    """
    if not index.is_file():
        return {}
    made = json.loads(index.read_text(encoding="utf-8"))
    if isinstance(made, dict):
        return made
    facts = [(clip["name"], clip["identity"], clip["split"], clip["generated"]) for clip in made]
    listed = [
        (Path(row["file"]).stem, row["identity"], row["split"], part == GENERATED) for part, row in _all_rows(data)
    ]
    if facts != listed:
        return {"made_of": {name: digest for name, digest in found.items() if name == LANDMARKS}}
    if any((data / name).stat().st_mtime > index.stat().st_mtime for name in found):
        return {}
    return {"made_of": found, "lag": LAG, "clips": made}


def _all_rows(data: Path) -> Iterator[tuple[str, dict[str, str]]]:
    for part in (TALKING, GENERATED):
        yield from ((part, row) for row in manifest_rows(data, part))


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


def _build(data: Path, cache: Path, lag: int, side: int) -> list[dict[str, Any]]:
    """Write the arrays of all clips; where each clip's rows are."""
    landmarks = dict(np.load(data / LANDMARKS, allow_pickle=False))
    clips: list[Clip] = []
    parts: list[tuple[NDArray, NDArray, NDArray]] = []
    for part, row in _all_rows(data):
        parts.append(_prepare(data / part, row, landmarks, lag, side))
        start = clips[-1].start + clips[-1].frames if clips else 0
        name = Path(row["file"]).stem
        clips.append(Clip(name, row["identity"], row["split"], start, len(parts[-1][0]), part == GENERATED))
        log.info("prepared %s: %d frames", row["file"], clips[-1].frames)
    if not clips:
        raise ValueError(f"The manifests of {data} list no clip. Add clips, or give another --data.")
    for name, arrays in zip(("crops", "windows", "lips"), zip(*parts, strict=True), strict=True):
        with replacing(cache / f"{name}.npy") as file:  # another run may be reading the old one
            np.save(file, np.concatenate(arrays))
    return [vars(clip) for clip in clips]
