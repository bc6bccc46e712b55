"""One face through a clip: present or absent, and where, frame by frame."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from .geometry import Matrices, invert

FACE_HEIGHT = 0.95  # forehead to chin as a share of the crop's side: median over 146 photos


@dataclass(frozen=True, eq=False)
class FaceTrack:
    """One face through time.

    Attributes:
        present: bool [N], frames that show the face.
        matrices: float64 [N, 2, 3], frame pixels (continuous, see `geometry`) -> unit crop; absent frames hold those of
            the nearest present frame of the shot, or of the clip where the shot has none.
        landmarks: float32 [N, 5, 2] pixels, not smoothed; absent frames hold the nearest like `matrices`.
        confidence: float32 [N], detection score in 0..1, 0 where absent.
        frame_size: (width, height) in pixels.
        fps: frames per second, exact.
        cuts: first frames of all shots but the first, ascending.
    """

    present: NDArray[np.bool_]
    matrices: Matrices
    landmarks: NDArray[np.float32]
    confidence: NDArray[np.float32]
    frame_size: tuple[int, int]
    fps: Fraction
    cuts: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.present)

    @property
    def crop_sides(self) -> NDArray[np.float64]:
        """Side of the crop in frame pixels, float64 [N]."""
        return 1 / np.hypot(self.matrices[:, 0, 0], self.matrices[:, 1, 0])

    @property
    def centres(self) -> NDArray[np.float64]:
        """Middle of the crop in its frame, x and y in continuous pixels, float64 [N, 2]."""
        back = invert(self.matrices)
        return np.asarray(back[:, :, :2] @ (0.5, 0.5) + back[:, :, 2])

    def absent_ranges(self) -> list[tuple[int, int]]:
        """Runs of frames without the face as (first, last), both included."""
        edges = np.flatnonzero(np.diff(np.concatenate([[False], ~self.present, [False]]).astype(np.int8)))
        return [(int(first), int(stop) - 1) for first, stop in edges.reshape(-1, 2)]

    def slice(self, start: int, stop: int) -> FaceTrack:
        """Frames start .. stop - 1 as a track of their own; cuts count from its first frame."""
        start, stop, _ = slice(start, stop).indices(len(self))
        cuts = tuple(cut - start for cut in self.cuts if start < cut < stop)
        return replace(self.pick(np.arange(start, stop)), cuts=cuts)

    def pick(self, rows: NDArray[np.integer]) -> FaceTrack:
        """Frames in another order or number; shot starts are left out, the smoothing that they guard is done."""
        return replace(
            self,
            present=self.present[rows],
            matrices=self.matrices[rows],
            landmarks=self.landmarks[rows],
            confidence=self.confidence[rows],
            cuts=(),
        )

    def within(self, left: int, top: int, width: int, height: int) -> FaceTrack:
        """The same track in a rectangle of its frames, pixels."""
        origin = np.array([left, top])
        matrices = self.matrices.copy()
        matrices[:, :, 2] += matrices[:, :, :2] @ origin
        landmarks = self.landmarks - np.float32(origin)
        return replace(self, matrices=matrices, landmarks=landmarks, frame_size=(width, height))

    def report(self, model_px: int | None = None) -> str:
        """What a person wants to know before a long run, one line per fact.

        Args:
            model_px: side of the generator's picture; a warning is added when crops are larger.
        """
        seen = int(self.present.sum())
        lines = [f"{len(self)} frames of {self.frame_size[0]}x{self.frame_size[1]} at {float(self.fps):.6g} fps"]
        absent = f", absent {_ranges(self.absent_ranges())}" if seen < len(self) else ""
        lines.append(f"face present in {seen}{absent}")
        if seen:
            sides = self.crop_sides[self.present]
            side = float(np.median(sides))
            low, middle, high = FACE_HEIGHT * np.array([sides.min(), side, sides.max()])
            lines.append(f"face height {low:.0f} to {high:.0f} px, median {middle:.0f}; crop side {side:.0f} px")
            if model_px is not None and side > model_px:
                lines.append(
                    f"warning: the crop covers {side:.0f} px of the frame and the generator makes {model_px} px, so "
                    "the face will be softer than the rest. Restore or upscale the crops before pasting."
                )
        starts = ", ".join(map(str, [0, *self.cuts]))
        lines.append(f"{1 + len(self.cuts)} shots, starting at {starts}" if self.cuts else "one shot")
        return "\n".join(lines)


def concatenate(tracks: Sequence[FaceTrack], new_shots: bool = False) -> FaceTrack:
    """Tracks of consecutive stretches as one.

    Args:
        tracks: at least one, of one frame size and rate.
        new_shots: every track starts a shot; False when they are slices of one clip.

    Raises:
        ValueError: nothing given, or sizes or rates differ.
    """
    if not tracks or len({(track.frame_size, track.fps) for track in tracks}) != 1:
        raise ValueError("Give at least one track, all of the same frame size and frame rate.")
    starts = np.cumsum([0, *map(len, tracks)])
    cuts = {int(start) + cut for start, track in zip(starts, tracks, strict=False) for cut in track.cuts}
    cuts |= {int(start) for start in starts[1:-1] if new_shots}
    return replace(
        tracks[0],
        present=np.concatenate([track.present for track in tracks]),
        matrices=np.concatenate([track.matrices for track in tracks]),
        landmarks=np.concatenate([track.landmarks for track in tracks]),
        confidence=np.concatenate([track.confidence for track in tracks]),
        cuts=tuple(sorted(cuts)),
    )


def _ranges(ranges: Iterable[tuple[int, int]]) -> str:
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in ranges)
