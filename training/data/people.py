"""Who is who among all tracks, and which videos are kept for measuring."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from itertools import count

import numpy as np
from numpy.typing import NDArray

SAME = 0.6  # cosine of two tracks' mean vectors: of other people the nearest of 60 reached 0.58
TEST_SHARE = 0.1  # of the videos
UNSEEN_SHARE = 0.5  # of the test videos show people who are not trained on


def name_people(vectors: NDArray[np.float32], labels: Sequence[str | None]) -> list[str]:
    """An identity for every track.

    Tracks are grouped by average linkage of their cosines. A labelled track keeps its label; an unlabelled one takes
    that of the most similar labelled track of its group, else all of the group are one new person.

    Args:
        vectors: [N, D] unit norm.
        labels: [N] identities where they are known.

    Returns:
        [N] identities; new people are called person_0000 and so on, without those that are labels, in order of their
        first track.
    """
    groups = _groups(vectors)
    members: dict[int, list[int]] = defaultdict(list)
    for row, group in enumerate(groups):
        members[group].append(row)
    names: list[str] = []
    new: dict[int, str] = {}
    taken = set(labels)
    fresh = (name for number in count() if (name := f"person_{number:04d}") not in taken)
    for row, group in enumerate(groups):
        label = labels[row]
        if label is None:
            known = [other for other in members[group] if labels[other] is not None]
            nearest = max(known, key=lambda other: float(vectors[other] @ vectors[row]), default=None)
            if nearest is None and group not in new:
                new[group] = next(fresh)
            label = new[group] if nearest is None else labels[nearest]
        names.append(str(label))
    return names


def _groups(vectors: NDArray[np.float32]) -> list[int]:
    if len(vectors) < 2:
        return [0] * len(vectors)
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    # Rounded, because the last bits of a product depend on how many rows are multiplied at once.
    distance = np.round(1 - vectors.astype(np.float64) @ vectors.T.astype(np.float64), 9).clip(0)
    distance = np.maximum(distance, distance.T)
    np.fill_diagonal(distance, 0)
    tree = linkage(squareform(distance, checks=False), "average")
    return fcluster(tree, 1 - SAME, "distance").tolist()


def split_people(videos: Sequence[str], people: Sequence[str], given: Sequence[str | None], seed: int) -> list[str]:
    """A split for every track: nine tenths of the videos for training, half of the rest of people never trained on.

    Args:
        videos: [N] the video of each track.
        people: [N] the identity of each track.
        given: [N] split where it is laid down. Somebody who is in "val" with one video is there with all; other videos
            of people with a given split are trained on.
        seed: of the choice among all other people.

    Returns:
        [N] "train", "val" (unseen people) or "val_seen" (other videos of people who are trained on).
    """
    named = {person for person, split in zip(people, given, strict=True) if split}
    kept = {person for person, split in zip(people, given, strict=True) if split == "val"}
    pairs = sorted({pair for pair in zip(videos, people, strict=True) if pair[1] not in named})
    unseen, held = _test_set(pairs, seed)

    def of(video: str, person: str, split: str | None) -> str:
        if person in kept or person in unseen:
            return "val"
        return split or ("val_seen" if (video, person) in held else "train")

    return [of(*row) for row in zip(videos, people, given, strict=True)]


def _test_set(pairs: list[tuple[str, str]], seed: int) -> tuple[set[str], set[tuple[str, str]]]:
    """People, and single (video, person) pairs of other people, that are kept from training."""
    owned: dict[str, list[str]] = defaultdict(list)
    for video, person in pairs:
        owned[person].append(video)
    order = sorted(owned, key=lambda person: _shuffled(seed, person))
    wanted = max(1, round(TEST_SHARE * len(pairs)))
    unseen: set[str] = set()
    taken = 0
    for person in order[:-1]:  # somebody must be left to train on
        if not unseen or (taken < UNSEEN_SHARE * wanted and taken + len(owned[person]) <= wanted):
            unseen.add(person)
            taken += len(owned[person])
    several = [person for person in order if person not in unseen and len(owned[person]) > 1]
    chosen = several[: max(0, wanted - taken)]
    return unseen, {(min(owned[person], key=lambda video: _shuffled(seed, video)), person) for person in chosen}


def _shuffled(seed: int, name: str) -> str:
    """A key that sorts names in an order of the seed's own."""
    return hashlib.sha256(f"{seed}/{name}".encode()).hexdigest()
