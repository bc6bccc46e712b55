"""Windows for the sync expert: five consecutive frames and the 200 ms of sound that belong to them.

A batch holds several windows of each of several clips. Windows of one clip at another time are the hard negatives
(same face, same voice), those of other clips the easy ones; windows nearer than five frames share frames and are no
negatives. Windows without sound are neither positives nor negatives: closed lips go with any of them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.networks.syncnet import FRAMES

from .batches import colour_change, jitter_matrix, recolour, sample
from .clips import Clip, ClipSet
from .shelf import Shelf

PX = 96
SOUND = -3.5  # mean of a mel window, of -4 to 4, from which on there is something to hear (spec 5.3)


@dataclass(frozen=True)
class SyncBatch:
    """Matching windows.

    Attributes:
        faces: [B, 5, 3, 96, 96] RGB in [0, 1].
        mel: [B, 1, 80, 16].
        lips: [B, 14] mouth numbers of the middle frame as speech moves them.
        negative: bool [B, B]; sound of row i is a negative for the faces of row j.
    """

    faces: Tensor
    mel: Tensor
    lips: Tensor
    negative: Tensor

    def part(self, index: int, count: int) -> SyncBatch:
        """Every `count`-th window from window `index` on; `negative` stays that of the whole batch."""
        rows = slice(index, None, count)
        return SyncBatch(self.faces[rows], self.mel[rows], self.lips[rows], self.negative)


def mel_row(data: ClipSet, clip: Clip, frame: int | np.ndarray) -> np.ndarray:
    """Mel windows of the frames `frame` .. `frame` + 4, [..., 80, 16].

    Stored windows are cut one frame early for the generator (spec A13); the expert's begin with its first frame.
    """
    return data.windows[clip.start + np.asarray(frame) + 1]


def starts(clip: Clip) -> int:
    """How many windows a clip has."""
    return max(0, clip.frames - FRAMES + 1)


def sounding(data: ClipSet, clip: Clip) -> np.ndarray:
    """First frames of a clip's windows in which there is something to hear, int64 [W]."""
    levels = data.windows[clip.start + 1 : clip.start + 1 + starts(clip)].mean((1, 2))
    return np.flatnonzero(levels >= SOUND)


def faces_of(data: ClipSet, clip: Clip, first: np.ndarray) -> Tensor:
    """Whole-crop windows [N, 5, 3, 96, 96] at the given first frames, neither moved nor recoloured."""
    rows = clip.start + first[:, None] + np.arange(FRAMES)
    matrices = np.tile(np.eye(3), (rows.size, 1, 1))
    return sample(data.crops[rows.ravel()], matrices, PX).view(len(first), FRAMES, 3, PX, PX)


class SyncBatches:
    """Batches as a pure function of (seed, step), their pictures cut on a device and left there.

    Args:
        data: prepared clips.
        clips: those of them to draw from; one without two windows of sound that are five frames apart is left out.
        seed: of everything that is random.
        device: where pictures are cut and batches are.

    Raises:
        ValueError: no clip is left.
    """

    def __init__(self, data: ClipSet, clips: list[Clip], seed: int, device: torch.device | str = "cpu") -> None:
        self.data, self.seed = data, seed
        self.shelf = Shelf(data.crops, torch.device(device))
        heard = [(clip, sounding(data, clip)) for clip in clips if starts(clip) > 2 * FRAMES]  # room for a negative
        self.clips = [(clip, first) for clip, first in heard if len(first) and np.ptp(first) >= FRAMES]
        if not self.clips:
            raise ValueError(
                f"None of {len(clips)} clips is longer than {3 * FRAMES} frames and has sound; give longer clips, or "
                "look whether their sound is silence."
            )

    def __call__(self, step: int, clips: int, windows: int) -> SyncBatch:
        """`windows` windows of each of `clips` clips; one shift, turn and colour a window."""
        random = np.random.default_rng([self.seed, step])
        faces, mels, lips, owner, frames = [], [], [], [], []
        for pick in random.choice(len(self.clips), clips, replace=len(self.clips) < clips):
            clip, heard = self.clips[pick]
            first = random.choice(heard, windows, replace=len(heard) < windows)
            rows = clip.start + first[:, None] + np.arange(FRAMES)
            jitter = np.stack([jitter_matrix(random) for _ in range(windows)]).repeat(FRAMES, 0)
            colours = (part.repeat_interleave(FRAMES, 0) for part in colour_change(random, windows))
            pictures = recolour(sample(self.shelf.rows(rows.ravel()), jitter, PX), *colours)
            faces.append(pictures.view(windows, FRAMES, 3, PX, PX))
            mels.append(mel_row(self.data, clip, first))
            lips.append(self.data.mouth[clip.start + first + FRAMES // 2])
            owner += [pick] * windows
            frames += first.tolist()
        same = np.array(owner)[:, None] == np.array(owner)
        near = np.abs(np.array(frames)[:, None] - np.array(frames)) < FRAMES
        mel, numbers = (torch.from_numpy(np.concatenate(parts)) for parts in (mels, lips))
        return SyncBatch(torch.cat(faces), mel[:, None], numbers, torch.from_numpy(~(same & near)))
