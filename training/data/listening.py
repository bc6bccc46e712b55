"""Sync without an expert: what the sound makes one expect of the lips, against what a reader sees them do.

The bundled generator's audio tower hears the sound; one linear map from what it hears to mouth numbers is fitted to all
other videos of the folder, and the lag at which its prediction goes best with the lips is the offset. Measured on 45
recorded clips that are in sync within two frames: found within one frame in 44, within two in all; 7 of 7 within one
for people whom neither tower nor reader was trained on. With another person's sound the correlation stays below
`least_correlation` in 95 of 100 cases.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from models.generator import Generator, load_generator

from ..clips import speech_part
from .sound import TrackSound
from .sync import LAGS

PENALTY = 3000.0  # frames; how strongly the fit is held back
LEAST_OTHERS = 1000  # frames of other videos; from 1300 on offsets were found within a frame in 93 %
FLOOR, NOISE = 0.2, 3.0


def load_tower() -> nn.Module:
    """The audio tower of the bundled generator: mel windows [B, 1, 80, 16] -> [B, 512, 1, 1]."""
    generator = load_generator("builtin", precision="fp32")
    assert isinstance(generator, Generator)
    return generator.network.audio_encoder.eval()


@torch.inference_mode()
def hear(tower: nn.Module, sound: TrackSound) -> NDArray[np.float16]:
    """What the tower makes of a track's sound and of 15 frames before and after it, [frames + 30, 512]."""
    windows = torch.from_numpy(sound.windows_around(LAGS))
    parts = [tower(part[:, None]).flatten(1) for part in windows.split(256)]
    return torch.cat(parts).numpy().astype(np.float16)


def least_correlation(frames: int) -> float:
    """What a track must reach to pass for in sync; the best of 31 lags of a short one is high by chance alone."""
    return max(FLOOR, NOISE / frames**0.5)


@dataclass(frozen=True)
class Spoken:
    """One track as this module needs it.

    Attributes:
        video: whose tracks are left out of the fit.
        load: reads what was heard, [frames + 30, 512], and the mouth numbers, [frames, 14].
    """

    video: str
    load: Callable[[], tuple[NDArray[np.floating], NDArray[np.float32]]]


@dataclass
class _Sums:
    """Normal equations of some tracks."""

    inner: torch.Tensor
    cross: torch.Tensor
    frames: int = 0

    @classmethod
    def none(cls) -> _Sums:
        return cls(torch.zeros(512, 512, dtype=torch.float64), torch.zeros(512, 14, dtype=torch.float64))

    def add(self, heard: torch.Tensor, lips: torch.Tensor) -> None:
        self.inner += heard.T @ heard
        self.cross += heard.T @ lips
        self.frames += len(lips)

    def without(self, other: _Sums) -> _Sums:
        return _Sums(self.inner - other.inner, self.cross - other.cross, self.frames - other.frames)

    def solved(self) -> torch.Tensor:
        spread = self.inner.diagonal() / self.frames + 1e-6  # the penalty is the same for loud and faint features
        return torch.linalg.solve(self.inner + PENALTY * torch.diag(spread), self.cross)


def offsets(tracks: Sequence[Spoken]) -> list[tuple[int, float] | None]:
    """Offset in frames (positive = the sound comes late) and correlation of every track.

    Args:
        tracks: all of them; what each holds is read twice, one at a time.

    Returns:
        None for tracks beside which there are fewer than 1000 frames of other videos to learn from.
    """
    whole, members = _Sums.none(), defaultdict(list)
    for row, track in enumerate(tracks):
        whole.add(*_centred(track)[1:])
        members[track.video].append(row)
    result: list[tuple[int, float] | None] = [None] * len(tracks)
    for rows in members.values():
        own = _Sums.none()
        loaded = [_centred(tracks[row]) for row in rows]
        for _, inside, lips in loaded:
            own.add(inside, lips)
        others = whole.without(own)
        if others.frames >= LEAST_OTHERS:
            weights = others.solved()
            for row, (heard, _, lips) in zip(rows, loaded, strict=True):
                result[row] = _best(heard @ weights, lips)
    return result


def _centred(track: Spoken) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What was heard with the frames round it, within the track, and what the lips do as speech moves them."""
    heard, lips = track.load()
    numbers = torch.from_numpy(heard.astype(np.float64))
    inside = slice(LAGS, len(numbers) - LAGS)
    numbers -= numbers[inside].mean(0)
    return numbers, numbers[inside], torch.from_numpy(speech_part(lips).astype(np.float64))


def _best(predicted: torch.Tensor, lips: torch.Tensor) -> tuple[int, float]:
    """The lag of the highest mean correlation over the 14 numbers, and that correlation."""
    curve = []
    for lag in range(2 * LAGS + 1):
        there = predicted[lag : lag + len(lips)]
        there = there - there.mean(0)
        spread = there.std(0, correction=0) * lips.std(0, correction=0) + 1e-9
        curve.append(((there * lips).mean(0) / spread).mean().item())
    best = int(np.argmax(curve))
    return best - LAGS, curve[best]
