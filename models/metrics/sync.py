"""From a video and its sound to LSE-D, LSE-C and the offset, in two modes that do not compare (spec section 6.1).

"video" is SyncNet's pipeline for real footage on this pack's own detector and tracks: 25 fps, faces followed, long and
large ones kept, steadied, cut out and each scored on its own. Nothing is compressed on the way, where the original
writes JPEG and XVID in between. "crops" takes whole frames as the face, as scripts for LRS clips do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..faces import Detector
from ..frames import FrameSource
from ..resample import to_mono_16k
from ..timing import frame_numbers, read_numbered
from ..tracks import FaceTracker
from .lse import SHIFTS, WINDOW, SyncScore, score, window_count
from .results import Result
from .sync_faces import Cutter, cutter, unbroken
from .sync_model import FPS, SAMPLES, SyncModel

if TYPE_CHECKING:
    from ..tracklets import Tracklet
    from .subject import Subject

Progress = Callable[[int, int], None]
Sound = tuple[NDArray[np.float32], int]

CHUNK = 16
MIN_TRACK = 100  # detections that a face must exceed
MAX_GAP = 25  # frames from one detection to the next up to which a face stays one track
SILENCE = 1e-4  # of full scale, -80 dB: a sound that never exceeds it has the same distance to all lips
MIN_FACE = 100.0  # px that the mean of its boxes' longer sides must exceed


@dataclass(frozen=True, eq=False)
class ScoredFace:
    """A face of the clip: its first frame and number of frames at 25 fps, and its score."""

    first: int
    frames: int
    score: SyncScore


@dataclass(frozen=True, eq=False)
class SyncReport:
    """What was measured, by which model and in which mode.

    Attributes:
        model: name of the sync model.
        mode: "video" or "crops".
        valid_only: see `lse.score`.
        faces: in order of appearance; at least one.
        notes: what was left out and why, remarks on the file.
    """

    model: str
    mode: str
    valid_only: bool
    faces: tuple[ScoredFace, ...]
    notes: tuple[str, ...] = ()

    @property
    def distance(self) -> float:
        """LSE-D, mean over the faces."""
        return float(np.mean([face.score.distance for face in self.faces]))

    @property
    def confidence(self) -> float:
        """LSE-C, mean over the faces."""
        return float(np.mean([face.score.confidence for face in self.faces]))

    @property
    def offset(self) -> int:
        """Frames at 25 fps of the most confident face; positive = the sound is early."""
        return max(self.faces, key=lambda face: face.score.confidence).score.offset

    @property
    def offset_ms(self) -> float:
        """The same in milliseconds."""
        return float(1000 * self.offset / FPS)

    @property
    def method(self) -> str:
        """Model, mode and edges in a line: only numbers with the same line compare."""
        edges = "only windows with a partner" if self.valid_only else "zero padding"
        return f"{self.model}, {self.mode} mode, {edges}"

    def __str__(self) -> str:
        lines = [f"LSE-D {self.distance:.3f}, LSE-C {self.confidence:.3f}, {said_offset(self.offset)}", self.method]
        for face in self.faces:
            begin, end = (float(frame / FPS) for frame in (face.first, face.first + face.frames))
            lines.append(
                f"{begin:.2f} to {end:.2f} s: LSE-D {face.score.distance:.3f}, LSE-C {face.score.confidence:.3f}, "
                f"offset {face.score.offset:+d}, {len(face.score.distances)} windows"
            )
        return "\n".join([*lines, *self.notes])


def said_offset(offset: int) -> str:
    """An offset in words: frames, milliseconds and what to do."""
    if offset == 0:
        return "offset 0 frames"
    side = "early: delay" if offset > 0 else "late: advance"
    milliseconds = float(1000 * abs(offset) / FPS)
    return f"offset {offset:+d} frames (the sound is {milliseconds:.0f} ms {side} it by as much)"


def score_video(
    source: FrameSource,
    audio: Sound | None,
    model: SyncModel,
    detector: Detector,
    *,
    min_track: int = MIN_TRACK,
    min_face: float = MIN_FACE,
    valid_only: bool = False,
    progress: Progress | None = None,
) -> SyncReport:
    """Score every face of a clip whose track is long and large enough; memory does not grow with the pictures.

    Args:
        source: the video.
        audio: its sound from the first frame on, float [C, T] and rate.
        model: a sync model.
        detector: finds the faces.
        min_track: a track must hold more than so many detections at 25 fps; the original's 100 are 4 s.
        min_face: px that the mean longer side of a track's boxes must exceed.
        valid_only: see `lse.score`.
        progress: called with (done, total) after every chunk; may raise.

    Raises:
        ValueError: no sound or a silent one, or no track that is long and large enough; says what was found.
    """
    samples, numbers = _mono(audio), _numbers(source)
    step, total = progress or (lambda done, total: None), 2 * len(numbers)
    tracker = FaceTracker(detector, FPS)
    for frames in read_numbered(source, numbers, CHUNK):
        tracker.add(frames)
        step(len(tracker), total)
    everyone = [part for shot in tracker.tracks() for face in shot for part in unbroken(face, MAX_GAP)]
    kept = [face for face in everyone if len(face.sightings) > min_track and _size(face) > min_face]
    kept = [face for face in kept if _windows(face.first.frame, face.last.frame + 1, samples) > SHIFTS]
    if not kept:
        raise ValueError(_no_track(everyone, len(numbers), samples, min_track, min_face))
    streams = [_Lips(model, cutter(model, tracker, face), face.first.frame, face.last.frame + 1) for face in kept]
    done = 0
    for frames in read_numbered(source, numbers, CHUNK):
        for stream in streams:
            stream.add(done, frames)
        done += len(frames)
        step(len(numbers) + done, total)
    faces = tuple(_scored(stream, model, samples, valid_only) for stream in streams)
    notes = [f"{len(everyone) - len(kept)} shorter or smaller faces left out"] if len(kept) < len(everyone) else []
    if len(kept) > 1:
        notes.append(f"mean over {len(kept)} faces; the offset is the most confident one's")
    return SyncReport(model.name, "video", valid_only, faces, (*notes, *source.info.notes))


def score_crops(
    source: FrameSource,
    audio: Sound | None,
    model: SyncModel,
    *,
    valid_only: bool = False,
    progress: Progress | None = None,
) -> SyncReport:
    """Score a video whose every frame is one face already, such as the crops of the Generate node.

    Args and errors as `score_video`.
    """
    samples, numbers = _mono(audio), _numbers(source)
    stream = _Lips(model, lambda frame, picture: _resized(picture, model.side), 0, len(numbers))
    done = 0
    for frames in read_numbered(source, numbers, CHUNK):
        stream.add(done, frames)
        done += len(frames)
        if progress is not None:
            progress(done, len(numbers))
    face = _scored(stream, model, samples, valid_only)
    return SyncReport(model.name, "crops", valid_only, (face,), source.info.notes)


class _Lips:
    """The lip vectors of one face from its frames, `first` to `stop` - 1 of the clip, chunk by chunk."""

    def __init__(self, model: SyncModel, cut: Cutter, first: int, stop: int) -> None:
        self.first, self.stop, self._model, self._cut = first, stop, model, cut
        self._faces: list[NDArray[np.uint8]] = []  # the last four, which the next windows begin with
        self._vectors: list[NDArray[np.float32]] = []

    def add(self, start: int, frames: NDArray[np.uint8]) -> None:
        low, high = max(self.first, start), min(self.stop, start + len(frames))
        self._faces += [self._cut(frame, frames[frame - start]) for frame in range(low, high)]
        if len(self._faces) >= WINDOW and low < high:
            self._vectors.append(self._model.lips(np.stack(self._faces)))
            self._faces = self._faces[-(WINDOW - 1) :]

    def vectors(self, count: int) -> NDArray[np.float32]:
        """The first `count`."""
        return np.concatenate(self._vectors)[:count]


def _scored(stream: _Lips, model: SyncModel, samples: Tensor, valid_only: bool) -> ScoredFace:
    frames, part = stream.stop - stream.first, samples[SAMPLES * stream.first : SAMPLES * stream.stop]
    count = window_count(frames, len(part))
    if count <= SHIFTS:
        raise ValueError(
            f"The clip has {frames} frames at 25 fps and {len(part) / 16000:.2f} s of sound beside them; a second of "
            "both is needed, and 4 s for a number that means something. Connect the sound that belongs to the video."
        )
    return ScoredFace(stream.first, frames, score(stream.vectors(count), model.sound(part, count), valid_only))


def _mono(audio: Sound | None) -> Tensor:
    """float32 [T] at 16 kHz."""
    if audio is None or not audio[0].shape[-1]:
        raise ValueError("There is no sound to compare the lips with. Connect the speech, or use a video with sound.")
    samples = to_mono_16k(torch.as_tensor(audio[0]), audio[1])
    if not samples.abs().max() > SILENCE:
        raise ValueError("The sound is silent, so there is nothing to compare the lips with. Connect the speech.")
    return samples


def _numbers(source: FrameSource) -> NDArray[np.int64]:
    """The source's frames at 25 fps; frame i of a source stands at i / fps."""
    info = source.info
    count = max(1, int(info.frames / info.fps * FPS + Fraction(1, 2)))
    return frame_numbers(np.arange(info.frames, dtype=np.int64), 1 / info.fps, Fraction(0), count, FPS)


def _resized(picture: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    import cv2

    return np.asarray(cv2.resize(picture, (side, side)), np.uint8)


def _size(face: Tracklet) -> float:
    """Mean of the longer sides of a face's boxes, px."""
    return float(np.mean([(sighting.box[2:] - sighting.box[:2]).max() for sighting in face.sightings.values()]))


def _windows(first: int, stop: int, samples: Tensor) -> int:
    return window_count(stop - first, len(samples) - SAMPLES * first)


def _no_track(everyone: Sequence[Tracklet], frames: int, samples: Tensor, min_track: int, min_face: float) -> str:
    found = "no face was found"
    if everyone:
        longest = max(everyone, key=lambda face: len(face.sightings))
        found = f"the longest track has {len(longest.sightings)} detections, its face {_size(longest):.0f} px"
    return (
        f"No face to score: more than {min_track} detections at 25 fps of a face larger than {min_face:g} px are "
        f"needed, with sound beside them; {found}, in {frames / 25:.2f} s of picture and "
        f"{len(samples) / 16000:.2f} s of sound. Use a longer clip or a larger face, "
        "lower the two limits, or give crops of the face in crops mode."
    )


def measure(subject: Subject) -> Result:
    """LSE-D, LSE-C and offset of a result with the tools' sync model, in video mode."""
    model = subject.tools.sync
    assert model is not None
    report = score_video(subject.video, subject.audio, model, subject.tools.detector, min_track=subject.tools.min_track)
    scores = {"lse_d": report.distance, "lse_c": report.confidence, "offset": float(report.offset)}
    return Result(scores, report.method, report.notes)
