"""How a network draws the held-out end of a clip: pixels, and whether lips still listen."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .adaptation_rows import babble, judged_in_sync
from .footage import Footage
from .mouth import mouth, mouth_psnr
from .networks.syncnet import FRAMES, SyncNetExpert, frames_to_expert, sync_probability
from .networks.wavsyncswap import mask_lower_half

EXAMINED = 50  # held-out frames that are drawn for every look at them
BATCH = 16
SHOWN = 3  # of them in the picture
LEAST_RESPONSE = 0.75  # of the lips' answer to another sound that must be left
LIPS_WORSE = 1.03  # times the unadapted error of the lips that is still allowed
SYNC_WORSE = 0.005  # by which the expert's agreement may be lower


@dataclass(frozen=True)
class Look:
    """What the held-out frames show.

    Attributes:
        kept: PSNR (dB) with the face kept; NaN where the network cannot.
        own: PSNR (dB) with the person's own identity; NaN without one.
        other: PSNR (dB) with another sound.
        response: how far the lips' numbers move with another sound.
        lips: mean error of the lips' numbers.
        sync: mean agreement of lips and own sound, 0 .. 1, by the sync expert; NaN where it cannot judge.
    """

    kept: float
    own: float
    other: float
    response: float
    lips: float
    sync: float

    @property
    def psnr(self) -> float:
        """Mean over the ways the face may be drawn."""
        return float(np.nanmean([self.kept, self.own]))

    def better(self, best: Look, before: Look) -> bool:
        """Whether pixels are better than in the best look so far, worse in no way than before, and lips obey."""
        gains = np.array([self.kept - before.kept, self.own - before.own])
        return bool(self.psnr > best.psnr and np.nanmin(gains) >= 0 and self.obeys(before))

    def obeys(self, before: Look) -> bool:
        """Whether lips follow the sound as they did before."""
        in_sync = np.isnan(before.sync) or self.sync >= before.sync - SYNC_WORSE
        answers = self.response >= LEAST_RESPONSE * before.response
        return bool(in_sync and answers and self.lips <= LIPS_WORSE * before.lips)

    def __str__(self) -> str:
        ways = ((self.kept, "face kept"), (self.own, "own identity"), (self.other, "another sound"))
        pixels = ", ".join(f"{value:.2f} dB {what}" for value, what in ways if not np.isnan(value))
        sync = "" if np.isnan(self.sync) else f", in sync {self.sync:.3f}"
        return f"{pixels}; lips answer {self.response:.3f}, off by {self.lips:.3f}{sync}"


@dataclass(eq=False)
class Examiner:
    """Looks at a network.

    Attributes:
        footage: the whole clip; its end is looked at.
        keeps: whether the network can keep a face.
        dim: length of identity vectors.
        reader: lip reader.
        expert: sync expert, None = there is none.
        device: where the network is.
        precision: context to draw in.
        picture: of the last look: true, first looked at, and last drawn, side by side, uint8 [H, W, 3].
    """

    footage: Footage
    keeps: bool
    dim: int
    reader: nn.Module
    expert: SyncNetExpert | None
    device: torch.device
    precision: AbstractContextManager
    picture: NDArray[np.uint8] | None = None
    _first: Tensor | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        clip, learnt = self.footage, self.footage.learnt
        starts = clip.windows_of(FRAMES, learnt) if self.expert is not None and judged_in_sync(clip) else np.arange(0)
        self._windowed = len(starts) > 0
        if self._windowed:
            chosen = np.linspace(0, len(starts) - 1, max(1, EXAMINED // FRAMES)).round().astype(int)
            rows = (starts[np.unique(chosen), None] + np.arange(FRAMES)).ravel()
        else:
            rows = np.unique(np.linspace(learnt, len(clip) - 1, EXAMINED).round().astype(int))
        self._truth, shown = (_pictures(crops[rows]) for crops in (clip.crops, clip.references()))
        self._crops = torch.cat([mask_lower_half(self._truth), shown], 1)
        self._mel = clip.windows[torch.from_numpy(rows)]
        far = len(rows) // 2
        self._other = self._mel.roll(far, 0) if clip.speaks else babble(len(rows), np.random.default_rng(0))

    def __call__(self, network: nn.Module) -> Look:
        """Draw and measure; changes nothing in the network."""
        nobody, person = torch.zeros(self.dim), self.footage.person
        own = nobody if person is None else torch.from_numpy(person.vector)
        main = nobody if self.keeps else own
        drawn, other = self._draw(network, self._mel, main), self._draw(network, self._other, main)
        kept = self._psnr(drawn) if self.keeps else float("nan")
        as_person = float("nan") if person is None else self._psnr(self._draw(network, self._mel, own))
        with torch.no_grad():
            numbers = [self.reader(part.to(self.device)).cpu() for part in (drawn, other, self._truth)]
        self._first = drawn if self._first is None else self._first
        self.picture = _sheet(self._truth, self._first, drawn)
        # A silent clip shows no lips to be right about; they are to stay where they were, which `response` tells.
        error = float((numbers[0] - numbers[2]).abs().mean()) if self.footage.speaks else 0.0
        response = float((numbers[0] - numbers[1]).abs().mean())
        with_other = self._psnr(other) if self.footage.speaks else float("nan")
        return Look(kept, as_person, with_other, response, error, self._sync(drawn))

    @torch.no_grad()
    def _sync(self, pictures: Tensor) -> float:
        if self.expert is None or not self._windowed:
            return float("nan")
        windows = pictures.to(self.device).unflatten(0, (-1, FRAMES))
        heard = self._mel.to(self.device).unflatten(0, (-1, FRAMES))[:, 1]  # begins with the first frame (spec A13)
        audio, face = self.expert.embed_audio(heard), self.expert.embed_face(frames_to_expert(windows))
        return float(sync_probability(audio, face).mean())

    @torch.no_grad()
    def _draw(self, network: nn.Module, mel: Tensor, identity: Tensor) -> Tensor:
        pictures = []
        for crops, heard in zip(self._crops.split(BATCH), mel.split(BATCH), strict=True):
            whose = identity.expand(len(crops), -1).to(self.device)
            laid = crops.to(self.device).contiguous(memory_format=torch.channels_last)
            with self.precision:
                pictures.append(network(laid, heard.to(self.device), whose).float().cpu())
        return torch.cat(pictures)

    def _psnr(self, pictures: Tensor) -> float:
        """Of the mouth; of the rest of the lower half where nobody speaks."""
        if self.footage.speaks:
            return float(mouth_psnr(pictures, self._truth).mean())
        half = pictures.shape[-1] // 2
        weight = torch.ones(pictures.shape[-2:])
        mouth(weight)[:] = 0
        weight[:half] = 0
        error = ((pictures - self._truth).double().square() * weight).sum((1, 2, 3)) / (3 * weight.sum())
        return float((-10 * error.clamp_min(1e-8).log10()).mean())


def _pictures(crops: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(crops)).permute(0, 3, 1, 2).float() / 255


def _sheet(*columns: Tensor) -> NDArray[np.uint8]:
    """A few frames of each of these, side by side."""
    rows = np.linspace(0, len(columns[0]) - 1, SHOWN).round().astype(int).tolist()
    lines = [torch.cat([pictures[row] for pictures in columns], 2) for row in rows]
    sheet = (torch.cat(lines, 1).clamp(0, 1) * 255).round().byte().permute(1, 2, 0)
    return np.ascontiguousarray(sheet.numpy())
