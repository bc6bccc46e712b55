"""The rows of a step of adaptation: which frames, with which reference, sound and identity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .audio import MEL_SILENCE
from .footage import MARGIN, Footage
from .networks.syncnet import FRAMES
from .networks.wavsyncswap import mask_lower_half
from .references import DISTANCE, pose_thumbnail

CANDIDATES = (4, 16, 64)  # frames of which the quarter nearest in pose makes a reference, as in training
FAR = 10  # frames (0.4 s) from which a sound is another one


@dataclass(frozen=True, eq=False)
class Rows:
    """One step's rows: first those with a true picture, then swapped ones, then those with another sound.

    Attributes:
        crops: float32 [B, 6, px, px], see `WavSyncSwap.forward`.
        mel: float32 [B, 1, 80, 16].
        identity: float32 [B, D], zeros = the face is kept.
        truth: float32 [B, 3, px, px]; means nothing for swapped rows' identity and other rows' lips.
        shown, swapped, other: where each kind is.
        window: the shown rows that are five frames in a row, for the sync expert; none where it cannot judge.
    """

    crops: Tensor
    mel: Tensor
    identity: Tensor
    truth: Tensor
    shown: slice
    swapped: slice
    other: slice
    window: slice


def judged_in_sync(footage: Footage) -> bool:
    """Whether the sync expert can judge a clip: it knows speech, and five frames as 200 ms."""
    return footage.speaks and abs(float(footage.fps) - 25) < 1.5


class RowSource:
    """Draws the rows of any step; a pure function of seed and step.

    Args:
        footage: the frames to learn from.
        keeps: whether the network can keep a face.
        dim: length of identity vectors.
        seed: of everything random.
        counts: rows of each kind, by name: kept, own, swapped, other.
    """

    def __init__(self, footage: Footage, keeps: bool, dim: int, seed: int, counts: dict[str, int]) -> None:
        self.footage, self.dim, self.seed, self.counts = footage, dim, seed, dict(counts)
        if footage.person is None:
            self.counts |= {"kept": counts["kept"] + counts["own"], "own": 0}
            self.own = torch.zeros(dim)
        else:
            self.own = torch.from_numpy(footage.person.vector)
            if not keeps:
                self.counts |= {"own": counts["kept"] + counts["own"], "kept": 0}
        judged = judged_in_sync(footage) and self.counts["kept"] >= FRAMES
        self._starts = footage.windows_of(FRAMES) if judged else np.arange(0)
        self._poses = np.stack([pose_thumbnail(crop) for crop in np.ascontiguousarray(footage.crops)])

    def __call__(self, step: int) -> Rows:
        """The rows of a step, on the CPU."""
        random = np.random.default_rng([self.seed, step])
        kept, own, swapped, other = (self.counts[kind] for kind in ("kept", "own", "swapped", "other"))
        frames = random.integers(len(self.footage), size=kept + own + swapped + other)
        shifts = random.integers(2 * MARGIN + 1, size=(len(frames), 2))
        if windowed := len(self._starts) > 0:
            frames[:FRAMES] = random.choice(self._starts) + np.arange(FRAMES)
            shifts[:FRAMES] = shifts[0]
        truth = torch.stack([self._cut(self.footage.stored[f], s) for f, s in zip(frames, shifts, strict=True)])
        shown = torch.stack([self._reference(f, s, random) for f, s in zip(frames, shifts, strict=True)])
        mel = self.footage.windows[torch.from_numpy(frames)].clone()
        mel[kept + own + swapped :] = self._other_sounds(frames[kept + own + swapped :], random)
        return Rows(
            torch.cat([mask_lower_half(truth), shown], 1),
            mel,
            torch.cat([self._kept_or_own(kept, 0), self._kept_or_own(own, own), self._strangers(swapped, random),
                       self._kept_or_own(other, other // 2 if self.counts["kept"] and self.counts["own"] else other)]),
            truth,
            slice(0, kept + own),
            slice(kept + own, kept + own + swapped),
            slice(kept + own + swapped, None),
            slice(0, FRAMES * windowed),
        )  # fmt: skip

    def _kept_or_own(self, count: int, own: int) -> Tensor:
        """Identities of `count` rows, the first `own` of them the person's own, the others zeros."""
        rows = torch.zeros(count, self.dim)
        rows[:own] = self.own
        return rows

    def _strangers(self, count: int, random: np.random.Generator) -> Tensor:
        """Unit vectors of nobody: what the network does with them must not change, whoever they are."""
        return nn.functional.normalize(torch.from_numpy(random.normal(size=(count, self.dim))).float(), dim=1)

    def _cut(self, stored: NDArray[np.uint8], shift: NDArray[np.integer]) -> Tensor:
        """A crop shifted by whole pixels, float32 [3, px, px]."""
        px, (y, x) = len(stored) - 2 * MARGIN, shift.tolist()
        return torch.from_numpy(stored[y : y + px, x : x + px]).permute(2, 0, 1).float() / 255

    def _reference(self, frame: int, shift: NDArray[np.integer], random: np.random.Generator) -> Tensor:
        """Mean of other frames in nearly the same pose, shifted like the frame itself."""
        clip = self.footage
        apart = np.abs(clip.frames - clip.frames[frame]) >= DISTANCE
        far = np.flatnonzero(apart & (clip.shots == clip.shots[frame]))
        far = far if len(far) else np.flatnonzero(apart)
        candidates = random.choice(far, random.choice(CANDIDATES))
        distance = np.abs(self._poses[candidates] - self._poses[frame]).mean(1)
        nearest = candidates[distance.argsort()[: max(1, len(candidates) // 4)]]
        return torch.stack([self._cut(clip.stored[row], shift) for row in nearest]).mean(0)

    def _other_sounds(self, frames: NDArray[np.integer], random: np.random.Generator) -> Tensor:
        """Sounds that do not go with the frames: from elsewhere in the clip, or made up where nobody speaks."""
        if not self.footage.speaks:
            return babble(len(frames), random)
        places = self.footage.frames
        far = [np.flatnonzero(np.abs(places - places[frame]) >= FAR) for frame in frames]
        return self.footage.windows[[int(random.choice(rows)) for rows in far]]


def babble(count: int, random: np.random.Generator) -> Tensor:
    """Mel windows float32 [count, 1, 80, 16] of no language: loud and quiet bands, changing as fast as in speech."""
    coarse = torch.from_numpy(random.normal(0, 1.5, (count, 1, 12, 4))).float()
    bands = nn.functional.interpolate(coarse, (80, 16), mode="bilinear", align_corners=True)
    level = torch.from_numpy(random.uniform(-2.5, 1.0, (count, 1, 1, 1))).float()
    return (bands + level - torch.linspace(0, 1.5, 80)[:, None]).clamp(MEL_SILENCE, -MEL_SILENCE)
