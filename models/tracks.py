"""One face followed through a clip: detections of every frame -> choice of the face -> smoothed crop transforms."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from .examined import Detect, Examined, examine
from .face_track import FaceTrack
from .faces import Detection, Detector
from .geometry import crop_matrices, smooth_matrices
from .parallel import abreast, threads
from .selection import MATCH, Selection, sightings_of
from .shots import ShotFinder
from .stages import Stopwatch
from .tracklets import PATIENCE, Sighting, Tracklet, join, link, without_false_alarms

Embed = Callable[[NDArray[np.uint8], NDArray[np.floating]], NDArray[np.floating]]

BRIDGE = 3  # frames missed by the detector that are filled in
EMBED_EVERY = 5  # frames; each face is embedded that often


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

    def add_all(
        self, chunks: Iterator[NDArray[np.uint8]], progress: Callable[[int], None] = lambda count: None
    ) -> None:
        """`add` of many chunks, several examined at a time where the detector allows.

        Args:
            chunks: as `add` takes them; `threads` + 1 of them are in use at a time.
            progress: called with the frames taken so far, after every chunk and while waiting; may raise.

        Raises:
            ValueError: see `add`.
        """
        alive = lambda: progress(len(self))  # noqa: E731  # as it is then
        with abreast(lambda chunk, _: self._examined(chunk), chunks, self.threads, alive) as all_seen:
            for seen in all_seen:
                self._take(seen)
                alive()

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
        selection.check(len(self))
        if not any(self._frames):
            raise ValueError(self._nothing_found())
        return self._track(sightings_of(selection, self.tracks(), self.detector.threshold, self.match), smoothing)

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
    tracker.add_all(iter(chunks), lambda count: step(count, count))
    return tracker.select(selection or Selection(), smoothing)


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
