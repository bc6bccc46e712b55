"""A video to be judged, what it is judged against, and the tools for it; frames come chunk by chunk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from ..geometry import Matrices, warp_crops
from ..mouth import mouth_box
from ..selection import Selection
from ..tracks import track_faces

if TYPE_CHECKING:
    from ..face_track import FaceTrack
    from ..faces import Detector
    from ..frames import FrameSource
    from ..identity import FaceEmbedding, Recogniser
    from .features import PictureFeatures
    from .landmarks import Landmarks
    from .sync_model import SyncModel

CHUNK = 16
CROP = 256  # px: lengths are measured in a unit crop of this side, so that they do not depend on the video's size
MOUTH = mouth_box(CROP)  # rows, columns of it


@dataclass(frozen=True)
class Tools:
    """What measures. Only the detector is needed by all; a metric whose tool is absent says which.

    Attributes:
        detector: finds the faces.
        recogniser: embeds them; better not the one that the generator was trained with.
        sync: see `load_sync_model`.
        landmarks: see `landmarks.load_landmarks`.
        inception: see `fid.load_inception`.
        min_track: detections that a face must exceed to be scored for sync, see `sync.score_video`.
        sides: px to which the face square is brought for CPBD and FID: 96 as in the paper, and 256.
    """

    detector: Detector
    recogniser: Recogniser | None = None
    sync: SyncModel | None = None
    landmarks: Landmarks | None = None
    inception: PictureFeatures | None = None
    min_track: int = 100
    sides: tuple[int, ...] = (96, 256)


@dataclass(frozen=True, eq=False)
class Chunk:
    """Frames `start` and following: uint8 [n, H, W, 3] RGB of the result, and of the reference or None."""

    start: int
    made: NDArray[np.uint8]
    given: NDArray[np.uint8] | None


@dataclass(eq=False)
class Subject:
    """One result.

    Attributes:
        video: the result.
        tools: what measures it.
        audio: the sound it is to go with, float [C, T] and rate.
        reference: the target video it was made from, frame by frame; the ground truth where there is one. Odd sides of
            it may be one pixel longer in the result, as this pack's own are: that row or column is left out.
        source: who it is to show, by the tools' recogniser.
        selection: which face, looked for in the reference (else in the result); a recogniser keeps it through cuts.
        border: mask [H, W] in 0..1 of a frame of the reference that was drawn over; None = this pack's own paste.
        progress: called with (done, total) after every chunk of every pass over the videos; may raise to interrupt.
        passes: how many the caller expects, for `progress`: one each to find the face in the reference and in the
            result, and one a metric.
    """

    video: FrameSource
    tools: Tools
    audio: tuple[NDArray[np.float32], int] | None = None
    reference: FrameSource | None = None
    source: FaceEmbedding | None = None
    selection: Selection = field(default_factory=Selection)
    border: Callable[[int], NDArray[np.floating]] | None = None
    progress: Callable[[int, int], None] | None = None
    passes: int = 3
    _passed: int = field(default=0, init=False)

    @property
    def frames(self) -> int:
        """Frames that are judged: those that both videos have."""
        count = self.video.info.frames
        return count if self.reference is None else min(count, self.reference.info.frames)

    @cached_property
    def place(self) -> FaceTrack:
        """Where the face is: in the reference, else in the result."""
        return self.track if self.reference is None else self._tracked(self.reference.read, self.selection)

    @cached_property
    def track(self) -> FaceTrack:
        """Where a detector finds the face in the result."""
        # The same place, whoever the result shows there.
        selection = self.selection if self.reference is None else Selection(place=self.place)
        return self._tracked(self.made, selection)

    @cached_property
    def seen(self) -> NDArray[np.bool_]:
        """Frames in which the face was found in every video there is, bool [N]."""
        return self.place.present & self.track.present

    def chunks(self, size: int = CHUNK) -> Iterator[Chunk]:
        """All frames in order.

        Raises:
            ValueError: result and reference differ in size or rate.
        """
        self._check()
        for start in range(0, self.frames, size):
            stop = min(start + size, self.frames)
            given = None if self.reference is None else self.reference.read(start, stop)
            yield Chunk(start, self.made(start, stop), given)
            self._step(stop)

    def made(self, start: int, stop: int) -> NDArray[np.uint8]:
        """Frames of the result, uint8 [n, H, W, 3] RGB, of the reference's size where they are one pixel larger."""
        frames = self.video.read(start, stop)
        if self.reference is None or not self._same_size:
            return frames
        return np.ascontiguousarray(frames[:, : self.reference.info.height, : self.reference.info.width])

    def crops(
        self, frames: NDArray[np.uint8], chunk: Chunk, margin: float = 1.0, side: int = CROP
    ) -> NDArray[np.uint8]:
        """Upright crops of a chunk's frames (of either video) at the reference's place, uint8 [n, side, side, 3].

        Args:
            frames: `chunk.made` or `chunk.given`.
            chunk: which frames.
            margin: side of what is cut out, in sides of the unit crop.
            side: px.
        """
        return warp_crops(frames, widened(self.place.matrices[chunk.start : chunk.start + len(frames)], margin), side)

    def squares(self, frames: NDArray[np.uint8], chunk: Chunk) -> Iterator[NDArray[np.uint8]]:
        """The face square of each frame with a face, uint8 [h, w, 3]: whole pixels of the frame, nothing resampled.

        It is the upright square round the reference's steadied crop, the same in both videos.
        """
        place = self.place.pick(np.arange(chunk.start, chunk.start + len(frames)))
        limits = np.array(frames.shape[2:0:-1])
        for frame, present, centre, side in zip(frames, place.present, place.centres, place.crop_sides, strict=True):
            if present:
                x0, y0 = np.clip(np.rint(centre - side / 2).astype(int), 0, limits - 1)
                x1, y1 = np.clip(np.rint(centre + side / 2).astype(int), (x0 + 1, y0 + 1), limits)
                yield frame[y0:y1, x0:x1]

    @staticmethod
    def fitted(picture: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
        """A picture brought to side x side px: averaged where it shrinks, bilinear where it grows."""
        import cv2

        smaller = min(picture.shape[:2]) > side
        size = (side, side)
        return np.asarray(
            cv2.resize(picture, size, interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR), np.uint8
        )

    @property
    def _fps(self) -> Fraction:
        return self.video.info.fps

    def _tracked(self, read: Callable[[int, int], NDArray[np.uint8]], selection: Selection) -> FaceTrack:
        recogniser = self.tools.recogniser
        embed = None if recogniser is None else recogniser.embed_frames
        return track_faces(self._read(read), self.tools.detector, self._fps, selection, embed=embed)

    def _read(self, read: Callable[[int, int], NDArray[np.uint8]]) -> Iterator[NDArray[np.uint8]]:
        for start in range(0, self.frames, CHUNK):
            stop = min(start + CHUNK, self.frames)
            yield read(start, stop)
            self._step(stop)

    def _step(self, done: int) -> None:
        if self.progress is not None:
            self.progress(self._passed * self.frames + done, max(self.passes, self._passed + 1) * self.frames)
        self._passed += done == self.frames

    @property
    def _same_size(self) -> bool:
        """Whether result and reference have one size; a coder makes odd sides one pixel longer."""
        assert self.reference is not None
        made, given = self.video.info, self.reference.info
        sides = ((made.width, given.width), (made.height, given.height))
        return all(side in (own, own + own % 2) for side, own in sides)

    def _check(self) -> None:
        if self.reference is None:
            return
        made, given = self.video.info, self.reference.info
        if not self._same_size:
            raise ValueError(
                f"The result has {made.width}x{made.height} px, its reference {given.width}x{given.height}; they are "
                "compared pixel by pixel. Bring them to one size (an odd side may be one pixel longer in the result)."
            )
        if abs(made.fps - given.fps) > made.fps / 1000:
            raise ValueError(
                f"The result has {float(made.fps):.6g} frames a second, its reference {float(given.fps):.6g}; they are "
                "compared frame by frame. Bring them to one rate."
            )


def widened(matrices: Matrices, margin: float) -> Matrices:
    """Frame-to-unit matrices [N, 2, 3] of crops `margin` times as wide around the same centre."""
    result = matrices / margin
    result[:, :, 2] += 0.5 * (1 - 1 / margin)
    return result
