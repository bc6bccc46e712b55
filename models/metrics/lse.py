"""LSE-D, LSE-C and the offset between lips and sound (specification section 6.1).

Lips and sound are cut into windows of five frames at every frame, and embedded. The distance between lips at frame i
and sound at frame i + s, averaged over i, has its least value at the shift s where they belong together. That value
is LSE-D (lower is better); LSE-C is how far it lies below the median over all shifts (higher is better); the offset
is -s.

Sign: an offset of +k means that the sound comes k frames too early, and delaying it by k frames mends it; at -k the
sound comes late. It is SyncNet's own sign.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SHIFTS = 15  # frames to each side
WINDOW = 5  # frames
EPSILON = 1e-6  # torch's pairwise distance adds it to every difference


@dataclass(frozen=True, eq=False)
class SyncScore:
    """One face, scored.

    Attributes:
        distances: float32 [n, 31], of the lips of window i and the sound moved by -15 .. 15 frames; NaN where there is
            no sound and such windows do not count.
    """

    distances: NDArray[np.float32]

    @property
    def curve(self) -> NDArray[np.float64]:
        """Mean distance at each shift of the sound, -15 .. 15, float64 [31]."""
        return np.asarray(np.nanmean(self.distances.astype(np.float64), 0))

    @property
    def distance(self) -> float:
        """LSE-D."""
        return float(self.curve.min())

    @property
    def confidence(self) -> float:
        """LSE-C."""
        return float(np.median(self.curve) - self.curve.min())

    @property
    def offset(self) -> int:
        """In frames at 25 fps; positive = the sound is early."""
        return SHIFTS - int(self.curve.argmin())

    def per_second(self, windows: int = 25) -> NDArray[np.float64]:
        """Distance and confidence of each second at the shift of the whole, float64 [seconds, 2].

        What is left over at the end makes a second of its own when it is at least half as long.
        """
        least = SHIFTS - self.offset
        starts = range(0, max(1, len(self.distances) - (windows + 1) // 2 + 1), windows)
        parts = [np.nanmean(self.distances[i : i + windows].astype(np.float64), 0) for i in starts]
        return np.array([(part[least], np.nanmedian(part) - part[least]) for part in parts])


def window_count(frames: int, samples: int) -> int:
    """Windows that count, of a clip at 25 fps and 16 kHz: one fewer than would fit, as SyncNet's own script has it."""
    return min(frames, samples // 640) - WINDOW


def score(lips: NDArray[np.floating], sound: NDArray[np.floating], valid_only: bool = False) -> SyncScore:
    """Distances of lips and sound at 31 shifts.

    Args:
        lips: float [n, D], one vector a window.
        sound: float [n, D].
        valid_only: windows without a partner at a shift are left out there. False is the published metric: their
            partner is the zero vector, which pulls the ends of the curve to the length of the lips' vectors; use clips
            of 4 s or more. The two settings do not compare.

    Raises:
        ValueError: shapes differ, or fewer windows than leave something at every shift.
    """
    if lips.shape != sound.shape or lips.ndim != 2:
        raise ValueError(f"Lips and sound need one vector a window each; got {lips.shape} and {sound.shape}.")
    if len(lips) <= SHIFTS:
        raise ValueError(
            f"The clip has {len(lips)} windows of lips and sound; more than {SHIFTS} are needed ({SHIFTS + WINDOW + 1} "
            "frames at 25 fps), 100 for a number that means something. Use a longer clip."
        )
    n, shifts = len(lips), 2 * SHIFTS + 1
    padded = np.pad(np.asarray(sound, np.float32), ((SHIFTS, SHIFTS), (0, 0)))
    distances = np.empty((n, shifts), np.float32)
    for shift in range(shifts):
        difference = np.asarray(lips, np.float32) - padded[shift : shift + n] + np.float32(EPSILON)
        distances[:, shift] = np.linalg.norm(difference, axis=1)
    if valid_only:
        partner = np.arange(n)[:, None] + np.arange(shifts) - SHIFTS
        distances[(partner < 0) | (partner >= n)] = np.nan
    return SyncScore(distances)
