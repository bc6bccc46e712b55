"""Batches for the generator: target, reference, mel window and source identity, augmented alike.

A batch is a pure function of (seed, step), so a resumed run sees what an unbroken one would have seen.

Rows are of three kinds, in this order: kept (no identity is given), own (the target's identity) and swapped (somebody
else's). Every kind begins with its windows of five consecutive frames, which the sync expert judges; the rest of its
rows are single frames. Rows of silence are taken from the single frames.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models import geometry
from models.audio import MEL_SILENCE
from models.networks.syncnet import FRAMES
from models.networks.wavsyncswap import mask_lower_half
from models.references import DISTANCE, pose_thumbnail

from .audio_tower import augment_mel
from .clips import MARGIN, Clip, ClipSet
from .config import ScheduleConfig
from .shelf import Shelf
from .silence import resting_frames

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SourceBank:
    """Identity vectors to draw sources from.

    Attributes:
        vectors: float32 [M, D] unit norm, what the generator is given.
        labels: [M] whose they are.
        second: float32 [M, E] of the same pictures by a second recogniser, for the loss; None = there is none.
    """

    vectors: Tensor
    labels: list[str]
    second: Tensor | None = None

    def own(self, identity: str, random: np.random.Generator) -> int:
        """A random row of this identity."""
        return int(random.choice([i for i, label in enumerate(self.labels) if label == identity]))

    def other(self, identity: str, random: np.random.Generator) -> int:
        """A random row of any other identity."""
        while True:
            row = int(random.integers(len(self.labels)))
            if self.labels[row] != identity:
                return row


@dataclass(frozen=True)
class Batch:
    """One training batch.

    Attributes:
        crops: [B, 6, px, px] RGB in [0, 1]: what is seen of the target (its lower half zeroed), then the reference.
        mel: [B, 1, 80, 16].
        truth: [B, 3, px, px] RGB in [0, 1].
        source: [B, D] identity vectors.
        swapped: how many rows, counted from the end, carry another identity than the target's.
        kept: how many rows, counted from the start, are to keep their own face without being told whose it is.
        dealt: (i, n): these are rows i, i + n, i + 2 n ... of the step's whole batch; (0, 1) is all of it.
        to_arcface: [B, 2, 3] sampling maps of the aligned 112-px face out of a generated crop.
        second: [B, E] the sources' vectors by the bank's second recogniser, if it has one.
        windows: how many windows of consecutive frames each kind of rows begins with, see `window_rows`.
    """

    crops: Tensor
    mel: Tensor
    truth: Tensor
    source: Tensor
    swapped: int
    to_arcface: Tensor
    second: Tensor | None = None
    kept: int = 0
    dealt: tuple[int, int] = (0, 1)
    windows: int = 0

    def part(self, index: int, count: int) -> Batch:
        """Every `count`-th row from row `index` on: each kind of rows keeps its place and its share."""
        own: dict[str, Any] = {k: v[index::count] for k, v in vars(self).items() if isinstance(v, Tensor)}
        first, parts = self.dealt
        kept, swapped, windows = len(range(index, self.kept, count)), self.swapped // count, self.windows // count
        dealt = first + parts * index, parts * count
        return replace(self, **own, kept=kept, swapped=swapped, windows=windows, dealt=dealt)

    @property
    def window_rows(self) -> Tensor:
        """Rows of all windows, int64 [W, 5] on the CPU."""
        return torch.from_numpy(window_rows(len(self.crops), self.swapped, self.kept, self.windows))

    @property
    def given(self) -> Tensor:
        """Identity vectors as the generator gets them, [B, D]: zeros where the face is to be kept."""
        return torch.cat([torch.zeros_like(self.source[: self.kept]), self.source[self.kept :]])

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        moved: dict[str, Any] = {k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)}
        return replace(self, **moved)


def window_rows(size: int, swapped: int, kept: int, windows: int) -> np.ndarray:
    """Which rows of a batch are windows of consecutive frames: row numbers int64 [W, 5], frame after frame.

    Each kind that has rows begins with `windows` windows, time-major (spec A9): their first frames, then their second
    ones, and so on. A window never mixes kinds.
    """
    kinds = ((0, kept), (kept, size - swapped), (size - swapped, size))
    inner = np.arange(windows)[:, None] + windows * np.arange(FRAMES)
    return np.concatenate([first + inner for first, end in kinds if end > first])


def arcface_matrix() -> np.ndarray:
    """Normalised ArcFace-crop coordinates [-1, 1] -> normalised unit-crop coordinates, [3, 3].

    Both templates are the same five points, so one constant map does it for every aligned crop.
    """
    eyes = geometry.ARCFACE_TEMPLATE[:2]
    scale = 0.30 / np.linalg.norm(eyes[1] - eyes[0])
    shift = 2 * ((56 - eyes.mean(0)) * scale + geometry.CROP_TEMPLATE[:2].mean(0)) - 1
    return np.array([[112 * scale, 0, shift[0]], [0, 112 * scale, shift[1]], [0, 0, 1]])


def pose_thumbnails(data: ClipSet) -> np.ndarray:
    """Pose of every stored crop as inference compares it, float32 [F, 72]."""
    return np.stack([pose_thumbnail(crop) for crop in data.crops]) if data.poses is None else data.poses


def jitter_matrix(random: np.random.Generator) -> np.ndarray:
    """Small random shift, turn, scale and perhaps a mirroring, normalised coordinates [3, 3]."""
    scale, angle = np.exp(random.normal(0, 0.04)), random.normal(0, 0.05)
    flip = random.choice([-1, 1])
    x, y = random.normal(0, 0.03, 2)
    cos, sin = scale * np.cos(angle), scale * np.sin(angle)
    return np.array([[flip * cos, -sin, x], [flip * sin, cos, y], [0, 0, 1]])


def sample(pictures: np.ndarray | Tensor, matrices: np.ndarray, px: int) -> Tensor:
    """Cut crops out of stored ones.

    Args:
        pictures: uint8 [B, S, S, 3] stored crops with their margin.
        matrices: [B, 3, 3] maps of normalised output coordinates to normalised unit-crop coordinates.
        px: side of the result.

    Returns:
        float32 [B, 3, px, px] in [0, 1], where the pictures are.
    """
    stored = torch.as_tensor(pictures).permute(0, 3, 1, 2).float() / 255
    theta = torch.from_numpy(matrices[:, :2] / (1 + 2 * MARGIN)).float().to(stored.device)
    grid = torch.nn.functional.affine_grid(theta, [len(stored), 3, px, px], align_corners=False)
    return torch.nn.functional.grid_sample(stored, grid, padding_mode="border", align_corners=False)


def colour_change(random: np.random.Generator, batch: int) -> tuple[Tensor, Tensor]:
    """Random brightness, tint, saturation and hue: matrices [B, 3, 3] and shifts [B, 1, 1, 1], see `recolour`.

    Strong, so that lips and skin are learnt to be as the reference shows them and not as most people have them.
    """
    gain = np.exp(random.normal(0, 0.15, (batch, 1)) + random.normal(0, 0.08, (batch, 3)))
    saturation = np.exp(random.normal(0, 0.25, (batch, 1, 1)))
    angle = random.normal(0, 0.1, (batch, 1, 1))
    grey = np.full((3, 3), 1 / 3)
    turn = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)
    hue = grey + np.cos(angle) * (np.eye(3) - grey) + np.sin(angle) * turn  # a rotation about the grey axis
    matrix = gain[:, :, None] * (hue @ (grey + saturation * (np.eye(3) - grey)))
    return torch.from_numpy(matrix).float(), torch.from_numpy(random.normal(0, 0.03, (batch, 1, 1, 1))).float()


def recolour(pictures: Tensor, matrix: Tensor, shift: Tensor) -> Tensor:
    """[B, 3, S, S] with its colours changed by matrices [B, 3, 3] and shifts [B, 1, 1, 1], clamped to [0, 1]."""
    matrix, shift = matrix.to(pictures.device), shift.to(pictures.device)
    return (torch.einsum("bij,bjhw->bihw", matrix, pictures) + shift).clamp(0, 1)


class Batches:
    """Draws training batches from clips and a bank of source identities.

    Args:
        data: prepared clips.
        clips: those of them to draw from.
        bank: identities.
        px: side of the crops.
        seed: of everything that is random.
        device: where pictures are cut and batches are.
        seen: what the network may see of targets [B, 3, px, px].
    """

    def __init__(
        self,
        data: ClipSet,
        clips: list[Clip],
        bank: SourceBank,
        px: int,
        seed: int,
        device: torch.device | str = "cpu",
        seen: Callable[[Tensor], Tensor] = mask_lower_half,
    ) -> None:
        self.data, self.clips, self.bank, self.px, self.seed, self.seen = data, clips, bank, px, seed, seen
        self.shelf = Shelf(data.crops, torch.device(device))
        weight = np.sqrt([clip.frames for clip in clips])  # long clips matter more, but one person must not own the net
        self.weight = weight / weight.sum()
        self.poses = pose_thumbnails(data)

    def pictures(self, step: int, size: int) -> tuple[Tensor, np.ndarray]:
        """Augmented crops [size, 3, px, px] of a step and the rows they come from."""
        random = np.random.default_rng([self.seed, step])
        picks = (self.clips[i] for i in random.choice(len(self.clips), size, p=self.weight))
        rows = np.array([clip.start + random.integers(clip.frames) for clip in picks])
        colours = colour_change(random, size)
        jitter = np.stack([jitter_matrix(random) for _ in range(size)])
        return recolour(sample(self.shelf.rows(rows), jitter, self.px), *colours), rows

    def _reference_rows(self, clip: Clip, frame: int, random: np.random.Generator) -> np.ndarray:
        """Frames far enough from `frame`: of 1, 4, 16 or 64 random ones the quarter nearest in pose.

        Their mean is the reference, as it is at inference, see `models.references`. One candidate teaches to turn a
        face; many stand for what inference can choose from a whole clip.
        """
        far = np.flatnonzero(np.abs(np.arange(clip.frames) - frame) >= DISTANCE)
        candidates = clip.start + random.choice(far, random.choice([1, 4, 16, 64]))
        distance = np.abs(self.poses[candidates] - self.poses[clip.start + frame]).mean(1)
        return candidates[distance.argsort()[: max(1, len(candidates) // 4)]]

    @cached_property
    def _rest(self) -> list[tuple[Clip, np.ndarray]]:
        """Clips in which somebody rests, and in which frames."""
        frames = [(clip, resting_frames(self.data, clip)) for clip in self.clips]
        found = [(clip, where) for clip, where in frames if len(where)]
        if not found:
            log.warning("no clip has a silent stretch with closed lips: schedule.silent has no effect")
        return found

    def _at_rest(self, share: float, single: np.ndarray, random: np.random.Generator) -> dict[int, tuple[Clip, int]]:
        """Clip and frame of the rows that show somebody silent: about `share` of the rows `single`."""
        chosen = single[random.random(len(single)) < share]
        if not len(chosen) or not self._rest:
            return {}
        picks = [self._rest[random.integers(len(self._rest))] for _ in chosen]
        return {int(row): (clip, int(random.choice(frames))) for row, (clip, frames) in zip(chosen, picks, strict=True)}

    def _rows(
        self, swapped: int, lead: np.ndarray, resting: dict[int, tuple[Clip, int]], random: np.random.Generator
    ) -> tuple[np.ndarray, list[np.ndarray], np.ndarray]:
        """Stored rows of the targets [B] and of their references, and places of the sources in the bank [B].

        `lead` is the row that each row takes its clip and source from; frames follow one another from there.
        """
        size = len(lead)
        picks = random.choice(len(self.clips), size, p=self.weight)
        reach = np.bincount(lead, minlength=size)
        frames, target, source = (np.zeros(size, int) for _ in range(3))
        reference = []
        for row, first in enumerate(lead.tolist()):
            clip = self.clips[picks[first]]
            if row in resting:
                clip, frames[row] = resting[row]
            elif first == row:
                frames[row] = random.integers(clip.frames - reach[row] + 1)
            else:
                frames[row] = frames[first] + (lead[:row] == first).sum()
            target[row] = clip.start + frames[row]
            reference.append(self._reference_rows(clip, int(frames[row]), random))
            draw = self.bank.own if row < size - swapped else self.bank.other
            source[row] = draw(clip.identity, random) if first == row else source[first]
        return target, reference, source

    def _altered(self, mel: Tensor, single: np.ndarray, share: float, step: int) -> Tensor:
        """Mel windows [B, 1, 80, 16] with about `share` of the rows `single` changed as the audio tower heard them."""
        random = torch.Generator().manual_seed(int(np.random.default_rng([self.seed, step, 2]).integers(2**32)))
        rows = torch.from_numpy(single)[torch.rand(len(single), generator=random) < share]
        return mel.index_copy(0, rows, augment_mel(mel[rows], random))

    def of(self, step: int, schedule: ScheduleConfig, part: tuple[int, int] = (0, 1)) -> Batch:
        """The batch of a step of a run."""
        counts = schedule.batch, schedule.swapped, schedule.kept
        return self(step, *counts, part, schedule.windows, schedule.silent, schedule.altered)

    def __call__(
        self,
        step: int,
        size: int,
        swapped: int,
        kept: int = 0,
        part: tuple[int, int] = (0, 1),
        windows: int = 0,
        silent: float = 0.0,
        altered: float = 0.0,
    ) -> Batch:
        """The batch of a step.

        Args:
            step: which one.
            size: rows.
            swapped: this many, the last ones, get another identity.
            kept: this many, the first ones, go without identity.
            part: (i, n) gives what `Batch.part(i, n)` of the whole would, without drawing the other rows' pictures.
            windows: windows of five frames in each kind of rows, see `window_rows`. The frames of one share source,
                shift and colour; each has its own reference.
            silent: share of the single rows in which nobody speaks, lips closed; 0 where the clips have no such frames.
                Half of them hear digital silence, the others part of what was recorded, as behind the nodes' gate.
            altered: share of the single rows whose sound is louder or softer, a little higher or lower, or lacks bands.
        """
        random = np.random.default_rng([self.seed, step])
        hush = np.random.default_rng([self.seed, step, 1])  # of its own: without silence batches stay what they are
        rows = window_rows(size, swapped, kept, windows)
        lead = np.arange(size)
        lead[rows] = rows[:, :1]
        resting = self._at_rest(silent, np.setdiff1d(lead, rows), hush)
        loud = np.ones(size, np.float32)
        loud[list(resting)] = np.maximum(0, hush.uniform(-1, 1, len(resting)))
        target, reference, source = self._rows(swapped, lead, resting, random)
        jitter = np.stack([jitter_matrix(random) for _ in range(size)])[lead]
        colours = [change[lead] for change in colour_change(random, size)]
        mel = torch.from_numpy(quietened(self.data.windows[target], loud))[:, None]
        if altered:
            mel = self._altered(mel, np.setdiff1d(np.arange(size), rows), altered, step)
        own = slice(part[0], None, part[1])
        target, reference, source, jitter, mel = target[own], reference[own], source[own], jitter[own], mel[own]
        colours = [change[own] for change in colours]
        truth = recolour(sample(self.shelf.rows(target), jitter, self.px), *colours)
        other = recolour(sample(self.shelf.means(reference), jitter, self.px), *colours)
        to_arcface = torch.from_numpy((np.linalg.inv(jitter) @ arcface_matrix())[:, :2]).float()
        crops = torch.cat([self.seen(truth), other], 1)
        second = None if self.bank.second is None else self.bank.second[source]
        vectors, kept = self.bank.vectors[source], len(range(part[0], kept, part[1]))
        counts = {"kept": kept, "swapped": swapped // part[1], "windows": windows // part[1]}
        batch = Batch(crops, mel, truth, vectors, to_arcface=to_arcface, second=second, dealt=part, **counts)
        return batch.to(self.shelf.device)


def quietened(windows: np.ndarray, loud: np.ndarray) -> np.ndarray:
    """Mel windows [B, 80, 16] drawn towards silence where `loud` [B] is below 1; 0 is digital silence."""
    drawn = MEL_SILENCE + (windows - MEL_SILENCE) * loud[:, None, None]
    return np.where(loud[:, None, None] < 1, drawn, windows)


def aligned_faces(generated: Tensor, to_arcface: Tensor) -> Tensor:
    """Differentiable ArcFace alignment of generated crops [B, 3, px, px] -> [B, 3, 112, 112]."""
    grid = torch.nn.functional.affine_grid(to_arcface, [len(generated), 3, 112, 112], align_corners=False)
    return torch.nn.functional.grid_sample(generated, grid, padding_mode="border", align_corners=False)
