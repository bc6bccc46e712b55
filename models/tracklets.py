"""Which detections of different frames are the same face: association within a shot, then joining across gaps.

All of it works on the numbers that tracking kept; no picture is needed any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

LEAST_OVERLAP = 0.15  # intersection over union with the predicted box
LOOK_WEIGHT = 1.0  # of likeness in looks against overlap; decides where boxes overlap, as in a crossing
LOOK_UPDATE = 0.1  # how fast a face's remembered looks follow
SPEED_UPDATE = 0.3  # how fast its remembered speed follows
PATIENCE = 1.0  # seconds that a lost face is waited for at the place where it should be
LEAST_FRAMES = 3  # shorter ones are false alarms, unless there is nothing else
JOIN_REACH = 1.5  # face sizes, and as much again per second of gap, within which a lost face may come back
JOIN_SIZE = 1.8  # ratio of sizes up to which it may be the same face
JOIN_LOOKS = 0.35  # difference of looks up to which it may be the same face
DIFFERENT_PERSON = 0.2  # cosine of identity embeddings below which nothing is joined


@dataclass(frozen=True, eq=False, slots=True)
class Sighting:
    """One detection, as numbers.

    Attributes:
        frame: its frame.
        box: float64 [4] x1 y1 x2 y2 in pixels.
        score: 0..1.
        landmarks: float32 [5, 2] pixels.
        look: small normalised colour picture of the face, flat float16; tells two people in one shot apart.
        identity: unit embedding, or None where it was not computed.
    """

    frame: int
    box: NDArray[np.float64]
    score: float
    landmarks: NDArray[np.float32]
    look: NDArray[np.floating]
    identity: NDArray[np.float32] | None = None

    @property
    def centre(self) -> NDArray[np.float64]:
        """Middle of the box."""
        return (self.box[:2] + self.box[2:]) / 2

    @property
    def size(self) -> float:
        """Side of a square of the box's area, in pixels."""
        return max(1.0, float(np.prod(self.box[2:] - self.box[:2]))) ** 0.5


@dataclass(eq=False)
class Tracklet:
    """Sightings of one face in one shot, by frame and in order of frames."""

    sightings: dict[int, Sighting] = field(default_factory=dict)
    speed: NDArray[np.float64] = field(default_factory=lambda: np.zeros(4))
    look: NDArray[np.floating] | None = None
    embeddings: NDArray[np.float64] | None = None
    peak: float = 0.0  # best detection score

    @property
    def first(self) -> Sighting:
        """Earliest sighting."""
        return next(iter(self.sightings.values()))

    @property
    def last(self) -> Sighting:
        """Latest sighting."""
        return next(reversed(self.sightings.values()))

    @property
    def identity(self) -> NDArray[np.float64] | None:
        """Mean of the embeddings, unit norm; None when there is none."""
        norm = 0.0 if self.embeddings is None else float(np.linalg.norm(self.embeddings))
        return self.embeddings / norm if self.embeddings is not None and norm > 0 else None

    def predicted(self, frame: int) -> NDArray[np.float64]:
        """Where its box should be in a later frame, if it moves on as it did; after some frames it is taken to rest."""
        return self.last.box + self.speed * min(frame - self.last.frame, 10)

    def add(self, sighting: Sighting) -> None:
        """Append a later sighting."""
        if self.sightings:
            last = self.last
            speed = (sighting.box - last.box) / (sighting.frame - last.frame)
            rate = 1.0 if len(self.sightings) == 1 else SPEED_UPDATE
            self.speed = self.speed + rate * (speed - self.speed)
        look = sighting.look.astype(np.float32)
        self.look = look if self.look is None else self.look + LOOK_UPDATE * (look - self.look)
        if sighting.identity is not None:
            known = np.zeros(len(sighting.identity)) if self.embeddings is None else self.embeddings
            self.embeddings = known + sighting.identity
        self.peak = max(self.peak, sighting.score)
        self.sightings[sighting.frame] = sighting


def overlap(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Intersection over union of two boxes."""
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    both = float(np.prod(np.maximum(sides, 0)))
    area = float(np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2])) - both
    return both / area if area > 0 else 0.0


def difference(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Mean distance of two looks; about 0.1 for the same face, 0.4 and more for another one."""
    return float(np.abs(a - b).mean())


def link(frames: Sequence[Sequence[Sighting]], patience: int) -> list[Tracklet]:
    """Tracklets of one shot.

    Frame by frame, pairs of tracklet and sighting are taken in order of overlap with the predicted box plus likeness in
    looks; who finds no partner waits up to `patience` frames, so faces keep their identity through a crossing.

    Args:
        frames: the sightings of each frame of the shot.
        patience: frames.

    Returns:
        Tracklets in order of appearance.
    """
    tracklets: list[Tracklet] = []
    waiting: list[Tracklet] = []
    for sightings in frames:
        if not sightings:
            continue
        waiting = [t for t in waiting if sightings[0].frame - t.last.frame <= patience]
        pairs = [(_likeness(t, s), i, j) for i, t in enumerate(waiting) for j, s in enumerate(sightings)]
        partners = _best_pairs([(-score, i, j) for score, i, j in pairs if score > 0])
        for i, j in partners:
            waiting[i].add(sightings[j])
        taken = {j for _, j in partners}
        for j, sighting in enumerate(sightings):
            if j not in taken:
                waiting.append(Tracklet())
                tracklets.append(waiting[-1])
                waiting[-1].add(sighting)
    return tracklets


def _best_pairs(pairs: list[tuple[float, int, int]]) -> list[tuple[int, int]]:
    """Pairs (i, j) in order of cost, every i and every j at most once."""
    chosen: list[tuple[int, int]] = []
    left, right = set(), set()
    for _, i, j in sorted(pairs):
        if i not in left and j not in right:
            chosen.append((i, j))
            left.add(i)
            right.add(j)
    return chosen


def _likeness(tracklet: Tracklet, sighting: Sighting) -> float:
    boxes = overlap(tracklet.predicted(sighting.frame), sighting.box)
    boxes = max(boxes, overlap(tracklet.last.box, sighting.box))
    if boxes < LEAST_OVERLAP or tracklet.look is None:
        return 0.0
    return boxes + LOOK_WEIGHT * max(0.0, 1 - difference(tracklet.look, sighting.look))


def without_false_alarms(tracklets: list[Tracklet]) -> list[Tracklet]:
    """The tracklets of some length; all of them when none has it."""
    return [t for t in tracklets if len(t.sightings) >= LEAST_FRAMES] or tracklets


def join(tracklets: list[Tracklet], fps: float) -> list[Tracklet]:
    """Tracklets of one shot, those of a face that was lost and came back made one.

    Nearest pairs first; a pair fits when the second begins after the first ended, near enough for the time between, in
    a similar size and looks, and, where both have embeddings, as a similar identity.

    Args:
        tracklets: of one shot.
        fps: frames per second.
    """
    gaps = [(_gap(a, b, fps), i, j) for i, a in enumerate(tracklets) for j, b in enumerate(tracklets)]
    following = dict(_best_pairs([(gap, i, j) for gap, i, j in gaps if gap is not None]))
    joined = []
    for start in sorted(set(range(len(tracklets))) - set(following.values())):
        whole, part = Tracklet(), start
        while True:
            for sighting in tracklets[part].sightings.values():
                whole.add(sighting)
            if part not in following:
                break
            part = following[part]
        joined.append(whole)
    return joined


def _gap(before: Tracklet, after: Tracklet, fps: float) -> float | None:
    """Distance in face sizes and seconds between the end of one and the start of another; None if they do not fit."""
    if before is after or before.look is None or after.look is None or before.last.frame >= after.first.frame:
        return None
    end, start = before.last, after.first
    seconds = (start.frame - end.frame) / fps
    size = max(end.size, start.size)
    distance = float(np.hypot(*(start.centre - end.centre))) / size
    if distance > JOIN_REACH * (1 + seconds) or size > JOIN_SIZE * min(end.size, start.size):
        return None
    one, two = before.identity, after.identity
    if one is not None and two is not None:
        return distance + seconds if float(one @ two) >= DIFFERENT_PERSON else None
    return distance + seconds if difference(before.look, after.look) <= JOIN_LOOKS else None
