"""A clip as material to adapt to: the face's crops, the sound that goes with each, whose face it is."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import geometry
from .audio import driving_mel, load_mel, open_ended_windows, silent_mel
from .frames import FrameSource
from .identity import FaceEmbedding, average_embeddings
from .references import references_within, shot_numbers
from .selection import Selection
from .tracks import track_faces
from .video import VideoFile

if TYPE_CHECKING:
    from .face_track import FaceTrack
    from .faces import Detector
    from .generator import FaceGenerator
    from .identity import Recogniser
    from .pipeline import Sound

MARGIN = 4  # px kept around the crop, so that training can shift it by whole pixels, which blurs nothing
LEAST_FRAMES = 50  # with the face; 15 % of fewer say nothing about frames that were not trained on
MOST_FRAMES = 3000  # two minutes at 25 fps: more of the same face teaches little
MOST_BYTES = 1 << 29  # of crops
PORTRAITS = 12  # frames of which the clip's person is embedded
SPOKEN = 0.1  # share of the frames that must hear speech; below it the clip counts as silent
HELD_OUT = 0.15  # share of the frames, the last ones, that nothing is trained on
CHUNK = 16  # frames decoded at a time


@dataclass(frozen=True, eq=False)
class Footage:
    """One face of a clip, frame by frame; only frames that show it.

    Attributes:
        stored: uint8 [N, S, S, 3] RGB, S = px + 2 * `MARGIN`.
        windows: float32 [N, 1, 80, 16] mel windows of the clip's own sound.
        frames: int64 [N], their numbers in the clip.
        shots: int64 [N], numbers of their shots.
        fps: frames per second of the clip.
        speaks: whether there is speech enough to learn from.
        person: whose face it is; None = no fitting recogniser was given.
        digest: SHA-256 of all of the above.
    """

    stored: NDArray[np.uint8]
    windows: Tensor
    frames: NDArray[np.int64]
    shots: NDArray[np.int64]
    fps: Fraction
    speaks: bool
    person: FaceEmbedding | None

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def crops(self) -> NDArray[np.uint8]:
        """Without the margin, uint8 [N, px, px, 3]."""
        return self.stored[:, MARGIN:-MARGIN, MARGIN:-MARGIN]

    @property
    def learnt(self) -> int:
        """How many frames, the first ones, are for training."""
        return round(len(self) * (1 - HELD_OUT))

    @property
    def digest(self) -> str:
        """SHA-256 of pictures, sound and identity."""
        result = hashlib.sha256(np.ascontiguousarray(self.stored).data)
        result.update(self.windows.numpy().tobytes() + self.frames.tobytes() + self.shots.tobytes())
        result.update(b"" if self.person is None else self.person.vector.tobytes())
        return result.hexdigest()

    def windows_of(self, count: int, start: int = 0) -> NDArray[np.int64]:
        """First rows, from `start` on, of `count` rows that are frames in a row of one shot, [m]."""
        first = np.arange(start, max(start, len(self) - count + 1))
        last = first + count - 1
        whole = (self.frames[last] - self.frames[first] == count - 1) & (self.shots[last] == self.shots[first])
        return first[whole]

    def references(self) -> NDArray[np.uint8]:
        """What shows each frame's lower face at inference, uint8 [N, px, px, 3]."""
        return references_within(np.ascontiguousarray(self.crops), np.ones(len(self), bool), self.shots)

    def part(self, start: int, stop: int) -> Footage:
        """Some of the frames; the person stays that of all."""
        rows = slice(start, stop)
        return replace(
            self,
            stored=self.stored[rows],
            windows=self.windows[rows],
            frames=self.frames[rows],
            shots=self.shots[rows],
        )


def gather(
    source: FrameSource,
    sound: Sound | None,
    generator: FaceGenerator,
    detector: Detector,
    recogniser: Recogniser | None = None,
    selection: Selection | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Footage:
    """Find the face in a clip, cut it out and listen to its sound.

    Args:
        source: the clip.
        sound: what is said in it, float32 [C, T] and rate; None = nothing.
        generator: what is to be adapted.
        detector: finds the face.
        recogniser: embeds the face; one that the generator does not understand only tells faces apart.
        selection: which face; the largest by default.
        progress: called with (done, total) after every chunk; may raise to interrupt.

    Raises:
        ValueError: no face, or fewer than `LEAST_FRAMES` frames with it.
    """
    info, step = source.info, progress or (lambda done, total: None)
    side = generator.px + 2 * MARGIN
    count = min(info.frames, MOST_FRAMES, MOST_BYTES // (side * side * 3))
    track = track_faces(
        _first(source, count),
        detector,
        info.fps,
        selection,
        embed=None if recogniser is None else recogniser.embed_frames,
        progress=lambda done, _: step(done, 2 * count),
    )
    rows = np.flatnonzero(track.present)
    if len(rows) < LEAST_FRAMES:
        raise ValueError(
            f"The clip shows the face in {len(rows)} frames; at least {LEAST_FRAMES} are needed, 250 or more are "
            "better. Use a longer clip, or choose another face."
        )
    fitting = recogniser if recogniser is not None and recogniser.id == generator.recogniser else None
    stored, person = _cut(source, track, rows, side, fitting, lambda done: step(count + done, 2 * count))
    mel = load_mel(*sound) if sound is not None and sound[0].shape[-1] else silent_mel(info.duration)
    windows = open_ended_windows(driving_mel(mel, speech_gate=1.0), count, info.fps, generator.mel_lag)
    columns = (rows * 80 / float(info.fps)).astype(int).clip(0, len(mel.activity) - 1)
    spoken = float((mel.activity[torch.from_numpy(columns)] > 0.5).float().mean())
    return Footage(
        stored,
        windows[torch.from_numpy(rows)],
        rows.astype(np.int64),
        shot_numbers(track.cuts, rows),
        info.fps,
        generator.hears and spoken >= SPOKEN,
        person,
    )


def content_digest(source: FrameSource, sound: Sound | None) -> str:
    """SHA-256 of what a clip shows and says, quick for a file: that is hashed as it is."""
    result = hashlib.sha256(f"{source.info.fps} {source.info.frames} ".encode())
    if isinstance(source, VideoFile):
        result.update(source.digest().encode())
    else:
        for frames in source.chunks(CHUNK):
            result.update(np.ascontiguousarray(frames).data)
    if sound is not None:
        result.update(f" {sound[1]} {sound[0].shape} ".encode() + np.ascontiguousarray(sound[0]).tobytes())
    return result.hexdigest()


def _first(source: FrameSource, count: int) -> Iterator[NDArray[np.uint8]]:
    """The first `count` frames, chunk by chunk."""
    reader = source.twin()
    for start in range(0, count, CHUNK):
        yield reader.read(start, min(start + CHUNK, count))


def _cut(
    source: FrameSource,
    track: FaceTrack,
    rows: NDArray[np.integer],
    side: int,
    recogniser: Recogniser | None,
    step: Callable[[int], None],
) -> tuple[NDArray[np.uint8], FaceEmbedding | None]:
    """Stored crops of the frames `rows`, and the person's mean embedding."""
    px = side - 2 * MARGIN
    matrices = track.matrices * (px / side)
    matrices[:, :, 2] += MARGIN / side
    portraits = set(rows[np.linspace(0, len(rows) - 1, PORTRAITS).round().astype(int)].tolist())
    stored, found, begun = np.empty((len(rows), side, side, 3), np.uint8), [], 0
    for part in _first(source, int(rows[-1]) + 1):
        numbers = np.arange(begun, begun + len(part))
        there = np.flatnonzero(track.present[numbers])
        first = int(np.searchsorted(rows, begun))
        for i, row in enumerate(there.tolist()):
            number = begun + row
            stored[first + i] = geometry.warp_crops(part[row : row + 1], matrices[[number]], side)[0]
            if recogniser is not None and number in portraits:
                vector = recogniser.embed_frames(part[row : row + 1], track.landmarks[[number]])[0]
                found.append(FaceEmbedding(vector, recogniser.id))
        begun += len(part)
        step(begun)
    return stored, average_embeddings(found) if found else None
