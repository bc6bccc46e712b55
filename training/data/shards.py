"""Tracks -> tar shards that the `webdataset` package reads, and an index that finds every picture in them.

A track is the sample `t00012` (json, npz, wav) followed by one sample `t00012_000000` (jpg) a frame. Equal tracks give
equal bytes: nothing in a shard tells when, where or by how many processes it was made.

The sound of a track stands in sync: its measured offset, told in the facts, is taken out already.
"""

from __future__ import annotations

import io
import json
import tarfile
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .pictures import Strip
from .work import npz_bytes, replacing

SHARD_BYTES = 256_000_000  # a shard is closed when it has grown to this


@dataclass(frozen=True)
class Packed:
    """One track, ready to be written.

    Attributes:
        facts: what is known of it, as JSON; has identity and split.
        arrays: mel, column, columns, first (see `sound.TrackSound`), poses, vectors and perhaps lips.
        sound: WAV of 16 kHz mono, exactly 640 samples a picture.
        strip: its pictures.
    """

    facts: dict[str, Any]
    arrays: dict[str, np.ndarray]
    sound: bytes
    strip: Strip


class _Shard:
    """One tar file being written; knows where its members lie."""

    def __init__(self, file: BinaryIO) -> None:
        self._tar = tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT)  # noqa: SIM115

    @property
    def size(self) -> int:
        return self._tar.offset

    def add(self, name: str, data: bytes) -> list[int]:
        """Append a member; offset and size of its data, and their CRC-32."""
        member = tarfile.TarInfo(name)  # no time, no owner
        member.size = len(data)
        offset = self._tar.offset + tarfile.BLOCKSIZE
        self._tar.addfile(member, io.BytesIO(data))
        return [offset, len(data), zlib.crc32(data)]

    def add_track(self, name: str, track: Packed) -> dict[str, Any]:
        facts = json.dumps(track.facts, sort_keys=True).encode()
        self.add(f"{name}.json", facts)
        entry = {"name": name, "npz": self.add(f"{name}.npz", npz_bytes(**track.arrays)), **track.facts}
        entry["wav"] = self.add(f"{name}.wav", track.sound)
        places = [self.add(f"{name}_{i:06d}.jpg", data) for i, data in enumerate(track.strip.data())]
        return entry | {"pictures": places}

    def close(self) -> None:
        self._tar.close()


def write_shards(folder: Path, split: str, tracks: Iterable[tuple[str, Packed]]) -> list[dict[str, Any]]:
    """Write the tracks of one split.

    Args:
        folder: where; shards are called SPLIT-000000.tar and so on.
        split: begins the shards' names.
        tracks: name and content of each, in the order in which they are to stand.

    Returns:
        Index entries: the track's facts, shard, and [offset, size, crc32] of `npz`, `wav` and of all `pictures`.
    """
    entries: list[dict[str, Any]] = []
    waiting, number = iter(tracks), 0
    track = next(waiting, None)
    while track is not None:
        shard_name = f"{split}-{number:06d}.tar"
        with replacing(folder / shard_name) as file:
            shard = _Shard(file)
            while track is not None and shard.size < SHARD_BYTES:
                entries.append({"shard": shard_name, **shard.add_track(*track)})
                track = next(waiting, None)
            shard.close()
        number += 1
    return entries
