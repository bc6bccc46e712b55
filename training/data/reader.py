"""Prepared shards as a `ClipSet`: pictures are decoded when they are asked for, the rest is memory-mapped."""

from __future__ import annotations

import io
import json
import logging
import mmap
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..clips import FPS, SHARDS_INDEX, SPLITS, Clip, ClipSet, check_side, is_of
from .items import LAYOUT
from .pictures import decode
from .sound import packed_sound
from .work import sha256_of, write_json

log = logging.getLogger(__name__)
MOST_BAD = 0.01  # share of the pictures read so far
GRACE = 1000  # pictures: a share of fewer says nothing
BAD = "bad_samples.jsonl"


class Shards:
    """Members of tar files by place.

    Args:
        folder: where the shards are.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: dict[str, mmap.mmap] = {}

    def member(self, shard: str, place: Sequence[int]) -> bytes:
        """The bytes at [offset, size, crc32].

        Raises:
            ValueError: the shard is missing, shorter, or holds something else.
        """
        offset, size, crc = (int(number) for number in place)
        if shard not in self._open:
            path = self.folder / shard
            if not path.is_file() or not path.stat().st_size:
                raise ValueError(f"{path} is missing or empty")
            with path.open("rb") as file:
                self._open[shard] = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        data = self._open[shard][offset : offset + size]
        if zlib.crc32(data) != crc:
            raise ValueError(f"{shard}: {size} bytes from {offset} on are not what was written")
        return data


class ShardPictures:
    """Crops in shards, to be indexed like an array uint8 [F, S, S, 3] RGB.

    A picture that cannot be read is listed, and replaced by the nearest one of its track that can.

    Args:
        shards: where the pictures are.
        tracks: entries of the index.
        side: S in pixels.
        bad: file for the list of bad pictures, begun anew.
    """

    def __init__(self, shards: Shards, tracks: list[dict[str, Any]], side: int, bad: Path) -> None:
        self._shards, self._list = shards, bad
        self._names = [(track["name"], track["shard"]) for track in tracks]
        self._places = np.concatenate([np.array(track["pictures"], np.int64) for track in tracks])
        self._starts = np.cumsum([0, *(len(track["pictures"]) for track in tracks)])
        self.shape = (len(self._places), side, side, 3)
        self._read = 0
        self._bad: set[int] = set()
        bad.unlink(missing_ok=True)

    def __len__(self) -> int:
        return self.shape[0]

    def __iter__(self) -> Iterator[NDArray[np.uint8]]:
        return (self._picture(row) for row in range(len(self)))

    def __getitem__(self, key: Any, /) -> NDArray[np.uint8]:
        """As an array does, for a number, slice, list or array of rows, alone or before indices of the picture.

        Raises:
            IndexError: there are not so many rows.
            ValueError: too many pictures cannot be read.
        """
        if isinstance(key, tuple):
            crops, inside = self[key[0]], tuple(key[1:])
            return crops[inside if crops.ndim == 3 else (slice(None), *inside)]
        rows = np.arange(*key.indices(len(self))) if isinstance(key, slice) else np.asarray(key)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        if rows.size and not -len(self) <= rows.min() <= rows.max() < len(self):
            raise IndexError(f"Rows {rows.min()} to {rows.max()} were asked for; there are {len(self)}.")
        pictures = np.empty(rows.shape + self.shape[1:], np.uint8)
        for place, row in np.ndenumerate(rows):
            pictures[place] = self._picture(int(row) % len(self))
        return pictures

    def _picture(self, row: int) -> NDArray[np.uint8]:
        self._read += 1
        track = int(np.searchsorted(self._starts, row, "right")) - 1
        name, shard = self._names[track]
        for other in _outwards(row, int(self._starts[track]), int(self._starts[track + 1])):
            if other in self._bad:
                continue
            try:
                return self._decoded(shard, other)
            except ValueError as error:
                self._note(other, f"{name}_{other - self._starts[track]:06d}", error)
        raise ValueError(f"No picture of track {name} can be read; {self._list} lists them.")

    def _decoded(self, shard: str, row: int) -> NDArray[np.uint8]:
        picture = decode(self._shards.member(shard, self._places[row]))
        if picture.shape != self.shape[1:]:
            raise ValueError(f"{picture.shape[1]}x{picture.shape[0]} px instead of {self.shape[1]}")
        return picture

    def _note(self, row: int, name: str, error: Exception) -> None:
        """List a bad picture.

        Raises:
            ValueError: there are too many.
        """
        self._bad.add(row)
        self._list.parent.mkdir(parents=True, exist_ok=True)
        with self._list.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"row": row, "picture": name, "reason": str(error)}) + "\n")
        log.warning("picture %s cannot be read, another one takes its place: %s", name, error)
        if len(self._bad) > MOST_BAD * max(self._read, GRACE):
            raise ValueError(
                f"{len(self._bad)} bad pictures among {self._read} read, more than {100 * MOST_BAD:g} %: {self._list} "
                "lists them. Compare the shards with the digests in manifest.json, and copy or prepare them again."
            )


def _outwards(row: int, first: int, stop: int) -> Iterator[int]:
    """`row`, then its neighbours by distance within [first, stop), the earlier one first."""
    yield row
    for distance in range(1, stop - first):
        yield from (other for other in (row - distance, row + distance) if first <= other < stop)


def open_shards(folder: Path, cache: Path, px: int, lag: int) -> ClipSet:
    """Open a folder that `python -m training prepare` made.

    Args:
        folder: with index.json, manifest.json and shards.
        cache: folder for mel windows and other arrays of all frames, made where they are not there yet, or
            are of other shards. It lies in the folder of the run.
        px: side of the crops to be trained.
        lag: frames by which mel windows are moved.

    Raises:
        ValueError: prepared for another `px` or in another layout, the shards are damaged, or the run was begun with
            others.
    """
    index = read_index(folder)
    check_side(folder, index["side"], px)
    tracks, shards = index["tracks"], Shards(folder)
    digest = sha256_of(folder / "manifest.json")
    marker = cache / SHARDS_INDEX
    made = json.loads(marker.read_text(encoding="utf-8")) if marker.is_file() else {}
    if (
        not made
        or not is_of(cache, {"manifest.json": made["manifest"]}, {"manifest.json": digest})
        or made["lag"] != lag
    ):
        marker.unlink(missing_ok=True)
        _build_cache(shards, tracks, cache, lag)
        write_json(marker, {"manifest": digest, "lag": lag})
    starts = np.cumsum([0, *(track["frames"] for track in tracks)]).tolist()
    clips = [
        Clip(track["name"], track["identity"], track["split"], start, track["frames"], False)
        for track, start in zip(tracks, starts, strict=False)
    ]
    arrays = {name: np.load(cache / f"{name}.npy", mmap_mode="c") for name in ("windows", "poses", "vectors")}
    lips = np.load(cache / "lips.npy", mmap_mode="c") if index["lips"] else None
    known = {
        (track["recogniser"], track["name"]): vectors for track, vectors in zip(tracks, arrays["vectors"], strict=True)
    }
    pictures = ShardPictures(shards, tracks, index["side"], cache / BAD)
    return ClipSet(clips, pictures, arrays["windows"], lips, arrays["poses"], known)


def read_index(folder: Path) -> dict[str, Any]:
    """The index of a folder of shards.

    Raises:
        ValueError: it is of another layout.
    """
    index = json.loads((folder / "index.json").read_text(encoding="utf-8"))
    if index["version"] != LAYOUT:
        raise ValueError(
            f"{folder} holds shards of layout {index['version']}, this version reads layout {LAYOUT}. Prepare the "
            "videos again, into another folder: python -m training prepare."
        )
    return index


def read_wav(folder: Path, name: str) -> bytes | None:
    """The sound of a track of a folder of shards, a WAV; None = there is no such track.

    Raises:
        ValueError: the shard is damaged.
    """
    for track in read_index(folder)["tracks"]:
        if track["name"] == name:
            return Shards(folder).member(track["shard"], track["wav"])
    return None


def summary(folder: Path) -> str:
    """One line on a folder of shards, after reading the first picture of every track and the last of every shard.

    Raises:
        ValueError: a shard is missing or damaged, or of another layout.
    """
    tracks, shards = read_index(folder)["tracks"], Shards(folder)
    ends = {track["shard"]: track["pictures"][-1] for track in tracks}
    for track in tracks:
        decode(shards.member(track["shard"], track["pictures"][0]))
    for shard, place in ends.items():
        decode(shards.member(shard, place))
    of_split = {split: [track for track in tracks if track["split"] == split] for split in SPLITS}
    counts = [_counted(f"{split} ", members) for split, members in of_split.items() if members]
    return f"{_counted('', tracks)}: {', '.join(counts)}"


def _counted(split: str, tracks: list[dict[str, Any]]) -> str:
    minutes = sum(track["frames"] for track in tracks) / float(FPS) / 60
    people = len({track["identity"] for track in tracks})
    return f"{len(tracks)} {split}tracks of {people} people ({minutes:.1f} min)"


def _build_cache(shards: Shards, tracks: list[dict[str, Any]], cache: Path, lag: int) -> None:
    """Arrays of all frames, and the vectors of all tracks, out of the tracks' .npz: one file a kind."""
    cache.mkdir(parents=True, exist_ok=True)
    frames = sum(track["frames"] for track in tracks)
    files: dict[str, np.memmap] = {}
    start = 0
    for number, track in enumerate(tracks):
        with np.load(io.BytesIO(shards.member(track["shard"], track["npz"])), allow_pickle=False) as file:
            arrays = dict(file)
        windows = packed_sound(arrays, track["frames"]).windows(lag)
        of_frames = {"windows": windows, "poses": arrays["poses"]}
        of_frames |= {"lips": arrays["lips"]} if "lips" in arrays else {}
        if not files:
            shapes = {name: (frames, *values.shape[1:]) for name, values in of_frames.items()}
            shapes["vectors"] = (len(tracks), *arrays["vectors"].shape)
            files = {name: _array_file(cache, name, shape) for name, shape in shapes.items()}
        for name, values in of_frames.items():
            files[name][start : start + len(values)] = values
        files["vectors"][number] = arrays["vectors"]
        start += track["frames"]
    for name, array in files.items():
        array.flush()
        os.replace(_partial(cache, name), cache / f"{name}.npy")


def _array_file(cache: Path, name: str, shape: tuple[int, ...]) -> np.memmap:
    """A float32 .npy to be filled."""
    return np.lib.format.open_memmap(_partial(cache, name), "w+", np.float32, shape)


def _partial(cache: Path, name: str) -> Path:
    """Where an array is while it is filled: another run may be reading the one it will replace."""
    return cache / f"{name}.npy.{os.getpid()}.part"
