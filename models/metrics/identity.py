"""Whose face is it? Cosines to source and target, and retrieval among all sources (specification section 6.5).

The recogniser that judges should not be the one that the generator was trained with.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ..faces import Detector, largest_face
from ..frames import FrameSource
from ..identity import FaceEmbedding, Recogniser, check_embedding
from .results import Collected, Result, arrays_of
from .subject import Subject

QUERIES = 10  # frames of a video, evenly spaced


def measure(subject: Subject, target: FaceEmbedding | None = None) -> Result:
    """Cosines of every frame with a face to the source, and to the target.

    Args:
        subject: its reference, where there is one, shows the target at the same moment.
        target: the target as an embedding; wins over the reference.
    """
    recogniser, source = subject.tools.recogniser, subject.source
    assert recogniser is not None and source is not None
    for embedding in (source, target):
        if embedding is not None:
            check_embedding(embedding, recogniser.id)
    curves = {"to_source": np.full(subject.frames, np.nan), "to_target": np.full(subject.frames, np.nan)}
    for chunk in subject.chunks():
        rows = chunk.start + np.flatnonzero(subject.seen[chunk.start : chunk.start + len(chunk.made)])
        if not len(rows):
            continue
        made = recogniser.embed_frames(chunk.made[rows - chunk.start], subject.track.landmarks[rows])
        curves["to_source"][rows] = made @ source.vector
        if target is not None:
            curves["to_target"][rows] = made @ target.vector
        elif chunk.given is not None:
            given = recogniser.embed_frames(chunk.given[rows - chunk.start], subject.place.landmarks[rows])
            curves["to_target"][rows] = (made * given).sum(1)
    seen = int(np.isfinite(curves["to_source"]).sum())
    scores = {name: _mean(curve) for name, curve in curves.items()}
    return Result(scores, f"recogniser {recogniser.id}", (f"face in {seen} of {subject.frames} frames",), curves)


def _mean(curve: NDArray[np.float64]) -> float:
    valid = curve[np.isfinite(curve)]
    return float(valid.mean()) if len(valid) else float("nan")


def describe(result: Result) -> str:
    """A result of `measure` in lines for people."""
    lines = []
    for key, name in (("to_source", "source"), ("to_target", "target")):
        valid = result.curves[key][np.isfinite(result.curves[key])]
        if len(valid):
            lines.append(f"cosine to the {name}: mean {valid.mean():.3f}, {valid.min():.3f} to {valid.max():.3f}")
    return "\n".join([*lines, *result.notes, result.method])


def spaced(present: NDArray[np.bool_], count: int = QUERIES) -> NDArray[np.int64]:
    """Up to `count` of the frames with a face, evenly spaced, the first and the last among them."""
    rows = np.flatnonzero(present)
    return rows[np.unique(np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(int))]


def source_embedding(video: FrameSource, detector: Detector, recogniser: Recogniser) -> FaceEmbedding:
    """What a source video has in the gallery: the mean of its first frame and of ten evenly spaced ones.

    Frames without a face are left out.

    Raises:
        ValueError: none of them shows a face.
    """
    frames = np.linspace(0, video.info.frames - 1, QUERIES).round().astype(int)
    vectors, missed = [], None
    for frame in [0, *frames.tolist()]:
        picture = video.read(frame, frame + 1)
        try:
            face = largest_face(picture[0], detector)
        except ValueError as error:
            missed = error
        else:
            vectors.append(recogniser.embed_frames(picture, face.landmarks[None])[0])
    if not vectors:
        assert missed is not None
        raise missed
    mean = np.mean(vectors, 0)
    return FaceEmbedding(mean / np.linalg.norm(mean), recogniser.id, count=len(vectors))


def collect(subject: Subject) -> Collected:
    """Embeddings of ten frames of the result, and of the source it should show; none where no face is found."""
    recogniser, source = subject.tools.recogniser, subject.source
    assert recogniser is not None and source is not None
    check_embedding(source, recogniser.id)
    vectors = [np.empty((0, recogniser.dim), np.float32)]
    for row in spaced(_present(subject)):
        frame = subject.made(int(row), int(row) + 1)
        vectors.append(recogniser.embed_frames(frame, subject.track.landmarks[row][None]))
    arrays = {"vectors": np.concatenate(vectors), "source": source.vector[None]}
    return Collected(arrays, f"recogniser {recogniser.id}")


def _present(subject: Subject) -> NDArray[np.bool_]:
    """Frames of the result with a face, bool [N]. A result that shows none is a result, a missed one."""
    if subject.reference is not None:
        assert subject.place  # a target without a face is an error
    try:
        return subject.track.present
    except ValueError:
        return np.zeros(subject.frames, np.bool_)


def combine(collected: Sequence[Collected], others: NDArray[np.floating] | None = None) -> Result:
    """ID-Retrieve: in how many frames, and videos, the nearest of all sources is the right one, in %.

    A video is asked with the mean of its frames; one without a face counts as missed.

    Args:
        collected: of all videos.
        others: further people in the gallery, [M, D].
    """
    sources = arrays_of(collected, "source")
    gallery = np.unique(sources, axis=0) if others is None else np.unique(np.concatenate([sources, others]), axis=0)
    frames: list[bool] = []
    videos: list[bool] = []
    for part in collected:
        right = int(np.flatnonzero((gallery == part.arrays["source"]).all(1))[0])
        queries = part.arrays["vectors"]
        frames += (np.argmax(queries @ gallery.T, 1) == right).tolist()
        videos.append(len(queries) > 0 and int(np.argmax(gallery @ queries.mean(0))) == right)
    scores = {"id_frames": _percent(frames), "id_videos": _percent(videos)}
    notes = (f"{len(videos)} videos, {len(frames)} frames, gallery of {len(gallery)} people",)
    return Result(scores, collected[0].method, notes)


def _percent(hits: Sequence[bool]) -> float:
    return 100 * float(np.mean(hits)) if len(hits) else float("nan")
