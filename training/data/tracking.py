"""Faces of a video, shot by shot, and their crops: the same tracker and geometry that the nodes use."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from models import geometry
from models.face_track import FaceTrack
from models.faces import load_detector
from models.tracks import FaceTracker

from ..clips import FPS, with_margin
from .footage import LEAST_FRAMES, footage_of
from .items import Item, Settings
from .pictures import Strip, encode
from .work import Work, replacing

CHUNK = 16  # frames decoded at a time
SURE = 0.75  # a face that is never detected with this score is taken for a lamp or a hand


def runs(present: NDArray[np.bool_]) -> list[tuple[int, int]]:
    """Unbroken stretches of presence as (first, stop)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], present.astype(np.int8), [0]])))
    return [(int(first), int(stop)) for first, stop in edges.reshape(-1, 2)]


def track(item: Item, work: Work, settings: Settings) -> dict:
    """Follow every face of every shot; each unbroken stretch of a second or more is a track.

    Raises:
        ValueError: no face that is seen for a second.
    """
    detector = load_detector()
    tracker = FaceTracker(detector, FPS)
    for frames in footage_of(item, work).chunks(CHUNK):
        tracker.add(frames)
    shots = tracker.tracks()
    arrays: dict[str, np.ndarray] = {}
    tracks: list[dict] = []
    longest, faces = 0, 0
    for shot, tracklet in ((number, tracklet) for number, found in enumerate(shots) for tracklet in found):
        faces += 1
        if tracklet.peak < SURE:
            continue
        whole = tracker.follow(tracklet)
        for first, stop in runs(whole.present):
            longest = max(longest, stop - first)
            if stop - first >= LEAST_FRAMES:
                name = f"{len(tracks):03d}"
                part = whole.slice(first, stop)
                arrays |= {f"{name}_matrices": part.matrices, f"{name}_landmarks": part.landmarks}
                tracks.append({"name": name, "shot": shot, "first": first, **_numbers(part)})
    if not tracks:
        found = f"the longest of {faces} is seen for {longest} frames in a row" if faces else "none was found"
        raise ValueError(f"no face for {LEAST_FRAMES} frames: {found}")
    work.save_arrays("tracks.npz", **arrays)
    return {"shots": len(shots), "tracks": tracks}


def _numbers(track: FaceTrack) -> dict:
    return {"frames": len(track), "side": round(float(np.median(track.crop_sides)), 2)}


def crop(item: Item, work: Work, settings: Settings) -> dict:
    """Cut all tracks out of the video, decoded once more, with the margin that training wants round them."""
    tracks, arrays = work.result("track")["tracks"], work.arrays("tracks.npz")
    places: dict[str, list[tuple[int, int]]] = {track["name"]: [] for track in tracks}
    start = 0
    with replacing(work.path("crops.jpegs")) as file:
        for frames in footage_of(item, work).chunks(CHUNK):
            for part in tracks:
                first = part["first"]
                here = slice(max(first, start), min(first + part["frames"], start + len(frames)))
                if here.start >= here.stop:
                    continue
                matrices = with_margin(arrays[f"{part['name']}_matrices"][here.start - first : here.stop - first])
                for picture in geometry.warp_crops(
                    frames[here.start - start : here.stop - start], matrices, settings.side
                ):
                    data = encode(picture)
                    places[part["name"]].append((file.tell(), len(data)))
                    file.write(data)
            start += len(frames)
    return {"places": places}


def strip_of(work: Work, name: str) -> Strip:
    """The crops of a track as `crop` wrote them."""
    return Strip(work.path("crops.jpegs"), work.result("crop")["places"][name])
