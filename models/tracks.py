"""One face followed through a clip: detections of every frame -> choice of the face -> smoothed crop transforms."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from .examined import Detect, Examined, examine
from .face_track import FaceTrack
from .faces import Detection, Detector
from .geometry import crop_matrices, smooth_matrices
from .parallel import abreast, threads
from .shots import ShotFinder
from .stages import Stopwatch
from .tracklets import PATIENCE, Sighting, Tracklet, join, link, without_false_alarms

Embed = Callable[[NDArray[np.uint8], NDArray[np.floating]], NDArray[np.floating]]

ORDERS = ("largest", "smallest", "left-right", "right-left")
BRIDGE = 3  # frames missed by the detector that are filled in
MATCH = 0.3  # least cosine of the reference and a face of the clip
EMBED_EVERY = 5  # frames; each face is embedded that often
SURE = 0.4  # of the way from the threshold to 1: what a face's best score must reach to count in an order
NEAR = 1.5  # face sizes around a face within which a point means it


@dataclass(frozen=True, eq=False)
class Selection:
    """Which face to follow. A reference wins over a point, a point over the order.

    An order counts only faces that are detected with some certainty at least once, if there are any: lamps and hands
    that look a little like faces do not shift it. A point or a reference may mean any face.

    Attributes:
        order: "largest", "smallest", "left-right" or "right-left".
        index: place in that order, from 0.
        reference: embedding [D] of the wanted person; needs a tracker that embeds with the same recogniser.
        point: (x, y) in pixels, in or near the wanted face in frame `frame`.
        frame: where order and point are looked at; without a face there, the nearest frame that has one.
    """

    order: str = "largest"
    index: int = 0
    reference: NDArray[np.floating] | None = None
    point: tuple[float, float] | None = None
    frame: int = 0


class FaceTracker:
    """Collects the faces of a clip chunk by chunk, keeping numbers only, and then gives out single tracks.

    Args:
        detector: finds the faces.
        fps: frames per second.
        embed: `Recogniser.embed_frames`; needed to select by reference, and keeps a person through cuts.
        bridge: gaps of up to so many frames within a shot are filled by interpolation; 0 = never.
        match: least cosine between the reference and a face that is taken for the same person.
        watch: is told how long finding, embedding and following took.

    Attributes:
        threads: chunks that `add_all` examines at a time.
    """

    def __init__(
        self,
        detector: Detector,
        fps: Fraction,
        embed: Embed | None = None,
        bridge: int = BRIDGE,
        match: float = MATCH,
        watch: Stopwatch | None = None,
    ) -> None:
        self.detector, self.fps, self.bridge, self.match = detector, Fraction(fps), bridge, match
        self._watch = watch or Stopwatch()
        # Cheaper where a detector knows it.
        detect = getattr(detector, "detect_video", lambda frames, small: detector.detect(frames))
        self._detect: Detect = self._watch.timed("detect", detect)
        self._embed = None if embed is None else self._watch.timed("embed", embed)
        self.threads = threads() if getattr(detector, "shared", False) else 1
        self._frames: list[list[Sighting]] = []
        self._shots = ShotFinder()
        self._size: tuple[int, int] | None = None

    def __len__(self) -> int:
        return len(self._frames)

    def add(self, frames: NDArray[np.uint8]) -> None:
        """Take the next frames.

        Args:
            frames: uint8 [n, H, W, 3] RGB, the same size every time.

        Raises:
            ValueError: another type or size.
        """
        self._take(self._examined(frames))

    def add_all(self, chunks: Iterator[NDArray[np.uint8]], alive: Callable[[], None] = lambda: None) -> Iterator[int]:
        """`add` of many chunks, several of them examined at a time where the detector allows.

        Args:
            chunks: as `add` takes them; `threads` + 1 of them are in use at a time.
            alive: called while waiting; may raise.

        Yields:
            The number of frames taken so far, after each chunk.

        Raises:
            ValueError: see `add`.
        """
        with abreast(lambda chunk, _: self._examined(chunk), chunks, self.threads, alive) as all_seen:
            for seen in all_seen:
                self._take(seen)
                yield len(self)

    def _examined(self, frames: NDArray[np.uint8]) -> Examined:
        with self._watch("track"):
            return examine(frames, self._detect)

    def _take(self, seen: Examined) -> None:
        frames, first = seen.frames, len(self)
        if not len(frames):
            return
        size = (frames.shape[2], frames.shape[1])
        if self._size not in (None, size):
            raise ValueError(f"The clip changes from {self._size} to {size} px at frame {first}; scale it to one size.")
        self._size = size
        with self._watch("track"):
            self._shots.add(seen.small)
            vectors = self._embedded(frames, seen.found, first)
        for i, (faces, looks) in enumerate(zip(seen.found, seen.looks, strict=True)):
            self._frames.append(
                [
                    Sighting(first + i, np.float64(face.box), face.score, face.landmarks, look, vectors.get((i, j)))
                    for j, (face, look) in enumerate(zip(faces, looks, strict=True))
                ]
            )

    def tracks(self) -> list[list[Tracklet]]:
        """All faces, shot by shot."""
        patience = max(1, round(PATIENCE * self.fps))
        shots = [self._frames[start:stop] for start, stop in self._shot_ranges()]
        return [join(without_false_alarms(link(shot, patience)), float(self.fps)) for shot in shots]

    def follow(self, tracklet: Tracklet, smoothing: float = 0.5) -> FaceTrack:
        """The track of one of the faces that `tracks` lists; absent in all other frames."""
        return self._track(tracklet.sightings, smoothing)

    def select(self, selection: Selection, smoothing: float = 0.5) -> FaceTrack:
        """The track of one face.

        Within a shot a face is followed by place, movement and looks. From shot to shot it is followed by identity
        when the tracker embeds, else the order is applied to each shot anew, at its frame of most faces.

        Args:
            selection: which face.
            smoothing: of the crop transforms, 0 = off .. 1.

        Raises:
            ValueError: no face in any frame, or none that fits the selection.
        """
        if selection.order not in ORDERS:
            raise ValueError(f"The face order {selection.order!r} is unknown; choose one of {', '.join(ORDERS)}.")
        if not any(self._frames):
            raise ValueError(self._nothing_found())
        shots = self.tracks()
        if selection.reference is not None:
            return self._track(self._by_identity(shots, selection.reference), smoothing)
        sure = self._sure(shots)
        chosen = self._chosen(shots if selection.point is not None else sure, selection)
        if chosen.identity is not None:
            return self._track(self._by_identity(shots, chosen.identity, chosen), smoothing)
        parts = [
            chosen if chosen in shot else _in_order(likely, selection) for shot, likely in zip(shots, sure, strict=True)
        ]
        return self._track({f: s for part in parts if part for f, s in part.sightings.items()}, smoothing)

    def _sure(self, shots: list[list[Tracklet]]) -> list[list[Tracklet]]:
        """The faces that count in an order."""
        least = self.detector.threshold + SURE * (1 - self.detector.threshold)
        sure = [[tracklet for tracklet in shot if tracklet.peak >= least] for shot in shots]
        return sure if any(sure) else shots

    def _embedded(
        self, frames: NDArray[np.uint8], found: Sequence[Sequence[Detection]], first: int
    ) -> dict[tuple[int, int], NDArray[np.float32]]:
        """Embeddings by (frame, face): regularly, and whenever the number of faces changes."""
        if self._embed is None:
            return {}
        before = len(self._frames[-1]) if self._frames else 0
        counts = [before, *map(len, found)]
        rows = [i for i in range(len(found)) if (first + i) % EMBED_EVERY == 0 or counts[i] != counts[i + 1]]
        keys = [(i, j) for i in rows for j in range(len(found[i]))]
        if not keys:
            return {}
        landmarks = np.stack([found[i][j].landmarks for i, j in keys])
        vectors = np.asarray(self._embed(frames[[i for i, _ in keys]], landmarks), np.float32)
        return dict(zip(keys, vectors, strict=True))

    def _shot_ranges(self) -> Iterator[tuple[int, int]]:
        edges = [0, *self._shots.cuts(), len(self)]
        return zip(edges[:-1], edges[1:], strict=True)

    def _chosen(self, shots: list[list[Tracklet]], selection: Selection) -> Tracklet:
        """The face meant by point or order in the selection's frame."""
        if not 0 <= selection.frame < len(self):
            raise ValueError(
                f"The selection frame {selection.frame} is outside the clip's frames 0 to {len(self) - 1}."
            )
        everyone = [tracklet for shot in shots for tracklet in shot]
        frame = min((f for t in everyone for f in t.sightings), key=lambda f: abs(f - selection.frame))
        there = [t for t in everyone if frame in t.sightings]
        if selection.point is not None:
            point = np.array(selection.point)
            best = min(there, key=lambda t: _distance(t.sightings[frame], point))
            if _distance(best.sightings[frame], point) > NEAR:
                places = ", ".join("({:.0f}, {:.0f})".format(*t.sightings[frame].centre) for t in there)
                raise ValueError(f"No face near {selection.point} in frame {frame}; its faces are at {places}.")
            return best
        if not 0 <= selection.index < len(there):
            raise ValueError(
                f"Frame {frame} shows {len(there)} face{'s' * (len(there) != 1)}; face {selection.index}, counted from "
                "0, was asked for. Choose a smaller number or another selection frame."
            )
        return _ordered(there, frame, selection.order)[selection.index]

    def _by_identity(
        self, shots: list[list[Tracklet]], reference: NDArray[np.floating], fixed: Tracklet | None = None
    ) -> dict[int, Sighting]:
        """Sightings of the person; `fixed` is taken in any case."""
        wanted = np.asarray(reference, np.float64).ravel()
        scored = []
        for tracklet in (t for shot in shots for t in shot):
            if (vector := tracklet.identity) is not None:
                if len(vector) != len(wanted):
                    raise ValueError(
                        f"The reference has {len(wanted)} numbers, the clip's embeddings {len(vector)}: they come from "
                        "different recognisers. Embed the reference with the one that tracks."
                    )
                scored.append((float(vector @ wanted / np.linalg.norm(wanted)), tracklet))
        scored.sort(key=lambda pair: -pair[0])
        if not scored:
            raise ValueError("Selecting by a reference needs a recogniser: give the tracker an `embed` function.")
        if fixed is None and scored[0][0] < self.match:
            raise ValueError(
                f"The reference person is not in the clip: the most similar face, first seen in frame "
                f"{scored[0][1].first.frame}, reaches {scored[0][0]:.2f} and {self.match:.2f} is needed. Use another "
                "reference picture, or choose the face by order or point."
            )
        result = {} if fixed is None else dict(fixed.sightings)
        for score, tracklet in scored:
            if score >= self.match and not result.keys() & tracklet.sightings.keys():
                result.update(tracklet.sightings)
        return result

    def _track(self, sightings: dict[int, Sighting], smoothing: float) -> FaceTrack:
        count, cuts = len(self), self._shots.cuts()
        present, confidence = np.zeros(count, bool), np.zeros(count, np.float32)
        landmarks = np.zeros((count, 5, 2), np.float32)
        for frame, sighting in sightings.items():
            present[frame], confidence[frame], landmarks[frame] = True, sighting.score, sighting.landmarks
        for start, stop in self._shot_ranges():
            part = slice(start, stop)
            _bridge(present[part], confidence[part], landmarks[part], self.bridge)
        matrices = np.zeros((count, 2, 3))
        # Landmarks are pixel positions (the middle of pixel j is j), matrices take continuous coordinates.
        matrices[present] = crop_matrices(landmarks[present] + 0.5)
        matrices = smooth_matrices(matrices, present, cuts, smoothing)
        source = _nearest(present, self._shot_ranges())
        assert self._size is not None
        return FaceTrack(present, matrices[source], landmarks[source], confidence, self._size, self.fps, cuts)

    def _nothing_found(self) -> str:
        if self._size is None:
            return "The clip has no frames. Check the file or the node that made it."
        sizes = getattr(self.detector, "sizes", ())
        tried = f" (looked at {' and '.join(map(str, sizes))} px)" if sizes else ""
        return (
            f"No face in any of {len(self)} frames of {self._size[0]}x{self._size[1]} px by the detector "
            f"{self.detector.name} at threshold {self.detector.threshold:g}{tried}. Lower the threshold, choose "
            "another detector, or use a clip whose faces are larger and turned towards the camera."
        )


def track_faces(
    chunks: Iterable[NDArray[np.uint8]],
    detector: Detector,
    fps: Fraction,
    selection: Selection | None = None,
    smoothing: float = 0.5,
    embed: Embed | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> FaceTrack:
    """Follow one face through a stream of frames; memory does not grow with the pictures.

    Args:
        chunks: uint8 [n, H, W, 3] RGB each.
        detector: finds the faces.
        fps: frames per second, exact.
        selection: which face; the largest by default.
        smoothing: of the crop transforms, 0 = off .. 1.
        embed: `Recogniser.embed_frames`, see `FaceTracker`.
        progress: called with the frames done, twice (a stream has no known total), after every chunk; may raise.

    Raises:
        ValueError: see `FaceTracker.select`.
    """
    tracker, step = FaceTracker(detector, fps, embed), progress or (lambda done, total: None)
    for done in tracker.add_all(iter(chunks), lambda: step(len(tracker), len(tracker))):
        step(done, done)
    return tracker.select(selection or Selection(), smoothing)


def _distance(sighting: Sighting, point: NDArray[np.floating]) -> float:
    """From a face's centre to a point, in face sizes."""
    return float(np.hypot(*(sighting.centre - point))) / sighting.size


def _ordered(tracklets: Iterable[Tracklet], frame: int, order: str) -> list[Tracklet]:
    by_size = order in ("largest", "smallest")
    return sorted(
        tracklets,
        key=lambda t: t.sightings[frame].size if by_size else t.sightings[frame].centre[0],
        reverse=order in ("largest", "right-left"),
    )


def _in_order(shot: Sequence[Tracklet], selection: Selection) -> Tracklet | None:
    """The face of that order in the shot's (first) frame of most faces, if there are so many."""
    counts: dict[int, int] = {}
    for frame in sorted(f for tracklet in shot for f in tracklet.sightings):
        counts[frame] = counts.get(frame, 0) + 1
    if not counts or max(counts.values()) <= selection.index:
        return None
    frame = max(counts, key=lambda f: counts[f])
    return _ordered((t for t in shot if frame in t.sightings), frame, selection.order)[selection.index]


def _bridge(present: NDArray, confidence: NDArray, landmarks: NDArray, longest: int) -> None:
    """Fill short gaps of one shot in place, where the face hardly moved meanwhile."""
    seen = np.flatnonzero(present)
    for a, b in zip(seen[:-1], seen[1:], strict=True):
        size = np.linalg.norm(np.ptp(landmarks[a], axis=0))
        if 1 < b - a <= longest + 1 and np.linalg.norm((landmarks[b] - landmarks[a]).mean(0)) < size:
            weight = (np.arange(a + 1, b) - a) / (b - a)
            landmarks[a + 1 : b] = landmarks[a] + weight[:, None, None] * (landmarks[b] - landmarks[a])
            confidence[a + 1 : b] = min(confidence[a], confidence[b])
            present[a + 1 : b] = True


def _nearest(present: NDArray[np.bool_], shots: Iterable[tuple[int, int]]) -> NDArray[np.int64]:
    """For each frame the nearest present one, of its shot where that has any."""
    result = np.zeros(len(present), np.int64)
    everywhere = np.flatnonzero(present)
    for start, stop in shots:
        seen = everywhere[(everywhere >= start) & (everywhere < stop)]
        seen = seen if len(seen) else everywhere
        frames = np.arange(start, stop)
        right = np.searchsorted(seen, frames).clip(0, len(seen) - 1)
        left = np.maximum(right - 1, 0)
        result[start:stop] = np.where(abs(seen[left] - frames) <= abs(seen[right] - frames), seen[left], seen[right])
    return result
