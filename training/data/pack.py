"""All finished items -> identities, split, shards, index, manifest, list of failures, report."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..clips import FPS, SPLITS
from .items import LAYOUT, Item, Settings
from .listening import Spoken, least_correlation, offsets
from .people import name_people, split_people
from .pictures import Strip
from .quality import SAME_FRAME, mean_vector
from .report import write_report
from .shards import Packed, write_shards
from .sound import samples_in_sync, sound_from, wav
from .stages import DROPPING, STILL
from .sync import FARTHEST, too_far
from .tracking import strip_of
from .work import FAILED, Work, discard_partial, sha256_of, write_json, write_lines


@dataclass(frozen=True)
class Found:
    """One track of one item that nothing speaks against."""

    item: Item
    work: Work
    track: dict[str, Any]
    sync: dict[str, Any]

    def failure(self, stage: str, reason: str) -> dict[str, Any]:
        """An entry of the list of failures."""
        return {"item": self.item.name, "track": self.track["name"], "stage": stage, "reason": reason}


def survey(items: list[Item], folder: Path) -> tuple[list[Found], list[dict[str, Any]]]:
    """Tracks that are to be packed, in order of item and time, and every failure with stage and reason."""
    found: list[Found] = []
    failures: list[dict[str, Any]] = []
    for item in items:
        work = Work(folder / item.key)
        if work.is_done(FAILED):
            failures.append({"item": item.name, **work.result(FAILED)})
            continue
        drops: dict[str, tuple[str, str]] = {}
        for stage in DROPPING:
            for name, reason in work.result(stage)["drops"].items():
                drops.setdefault(name, (stage, reason))
        synced = work.result("sync")["tracks"]
        for track in work.result("track")["tracks"]:
            one = Found(item, work, track, synced[track["name"]])
            if track["name"] in drops:
                failures.append(one.failure(*drops[track["name"]]))
            else:
                found.append(one)
    return found, failures


def picture_of(failure: dict[str, Any], works: dict[str, Work]) -> bytes | None:
    """A JPEG of what was left out: the track's face, or the video's picture; None where there is none."""
    work, track = works[failure["item"]], failure.get("track")
    if track is not None:
        return strip_of(work, track).middle()
    path = work.path(STILL)
    return path.read_bytes() if path.is_file() else None


def listen(found: list[Found]) -> tuple[list[Found], list[dict[str, Any]]]:
    """Find sync by what the reader saw; tracks that are out of it become failures."""
    measured = offsets([Spoken(one.item.video, partial(_heard_and_seen, one)) for one in found])
    kept: list[Found] = []
    failures: list[dict[str, Any]] = []
    for one, sync in zip(found, measured, strict=True):
        if sync is None:
            kept.append(one)
            continue
        (offset, correlation), least = sync, least_correlation(one.track["frames"])
        if correlation < least:
            reason = f"no sync: lips and sound correlate by {correlation:.2f}, {least:.2f} are needed at this length"
            failures.append(one.failure("sync", reason))
        elif abs(offset) > FARTHEST:
            failures.append(one.failure("sync", too_far(offset)))
        else:
            known = {"offset": offset, "confidence": round(correlation, 3), "by": "reader"}
            kept.append(replace(one, sync=known))
    return kept, failures


def _heard_and_seen(one: Found) -> tuple[NDArray[np.floating], NDArray[np.float32]]:
    name = one.track["name"]
    return one.work.arrays(f"{name}.heard.npz")["heard"], one.work.arrays(f"{name}.npz")["lips"]


def pack(items: list[Item], folder: Path, output: Path, settings: Settings) -> dict[str, Any]:
    """Write everything that training reads, or nothing new when the same was written before.

    Args:
        items: all items, prepared.
        folder: of their working folders.
        output: where shards, index.json, manifest.json, failures.jsonl and report.html go.
        settings: what they were prepared with.

    Returns:
        The manifest.

    Raises:
        ValueError: no track is left.
    """
    found, failures = survey(items, folder)
    works = {item.name: Work(folder / item.key) for item in items}
    if settings.listens:
        found, unheard = listen(found)
        failures = sorted(failures + unheard, key=lambda entry: (entry["item"], entry.get("track", "")))
    discard_partial(output)
    write_lines(output / "failures.jsonl", failures)
    if not found:
        raise ValueError(
            f"None of {len(items)} videos gave a track to train on; {output / 'failures.jsonl'} says why for each."
        )
    vectors = np.stack([mean_vector(_vectors(one)) for one in found])
    people = name_people(vectors, _labels(found, vectors))
    splits = split_people([one.item.video for one in found], people, [one.item.split for one in found], settings.seed)
    (output / "index.json").unlink(missing_ok=True)  # until the new one is complete there is nothing to train on
    entries: list[dict[str, Any]] = []
    for split in SPLITS:
        rows = (row for row in range(len(found)) if splits[row] == split)
        entries += write_shards(
            output, split, ((f"t{row:05d}", _packed(found[row], people[row], split)) for row in rows)
        )
    entries.sort(key=lambda entry: entry["name"])
    manifest = _manifest(items, entries, failures, output, settings)
    for stale in {path.name for path in output.glob("*-??????.tar")} - set(manifest["shards"]):
        (output / stale).unlink()
    write_json(output / "manifest.json", manifest)
    left_out = [(entry, picture_of(entry, works)) for entry in failures]
    write_report(output / "report.html", manifest, entries, [_strip(one) for one in found], left_out)
    index = {"version": LAYOUT, "px": settings.px, "side": settings.side, "lips": settings.reader is not None}
    write_json(output / "index.json", {**index, "tracks": entries}, indent=None)
    return manifest


def _labels(found: list[Found], vectors: NDArray[np.float32]) -> list[str | None]:
    """The label of a video belongs to the face seen longest in it, and to its other tracks that look like that one."""
    longest: dict[str, int] = {}
    for row, one in enumerate(found):
        best = longest.setdefault(one.item.name, row)
        if one.track["frames"] > found[best].track["frames"]:
            longest[one.item.name] = row
    like = [float(vectors[row] @ vectors[longest[one.item.name]]) >= SAME_FRAME for row, one in enumerate(found)]
    return [one.item.identity if same else None for one, same in zip(found, like, strict=True)]


def _vectors(one: Found) -> NDArray[np.float32]:
    return one.work.arrays("identity.npz")[one.track["name"]]


def _strip(one: Found) -> Strip:
    return strip_of(one.work, one.track["name"])


def _packed(one: Found, person: str, split: str) -> Packed:
    """A track with everything its stages found out."""
    name, work, probed = one.track["name"], one.work, one.work.result("probe")
    facts = {
        "item": one.item.name,
        "sha256": probed["sha256"],
        "source": {key: probed[key] for key in ("width", "height", "fps")},
        "first": one.track["first"],
        "frames": one.track["frames"],
        "shot": one.track["shot"],
        "identity": person,
        "split": split,
        "recogniser": work.result("identity")["recogniser"],
        "sync": one.sync,
        "quality": work.result("quality")["tracks"][name],
    }
    stored, offset = work.arrays(f"{name}.npz"), one.sync["offset"] or 0
    mel = sound_from(stored, one.track["first"], one.track["frames"]).in_sync(offset)
    seen = {key: values for key, values in stored.items() if key in ("poses", "lips")}
    sound = wav(samples_in_sync(stored["samples"], offset))
    return Packed(facts, {**mel.arrays(), **seen, "vectors": _vectors(one)}, sound, _strip(one))


def _manifest(
    items: list[Item], entries: list[dict[str, Any]], failures: list[dict[str, Any]], output: Path, settings: Settings
) -> dict[str, Any]:
    frames = sum(entry["frames"] for entry in entries)
    shards = sorted({entry["shard"] for entry in entries})
    return {
        "version": LAYOUT,
        "settings": settings.described(),
        "shards": {
            name: {"sha256": sha256_of(output / name), "bytes": (output / name).stat().st_size} for name in shards
        },
        "videos": len(items),
        "tracks": len(entries),
        "people": len({entry["identity"] for entry in entries}),
        "frames": frames,
        "hours": round(frames / float(FPS) / 3600, 4),
        "failures": len(failures),
    }
