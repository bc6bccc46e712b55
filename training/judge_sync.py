"""Does a judge that had no part in training hear which sound drove the lips? Part of `python -m training judge`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from models.frames import FrameArray, to_rgb_uint8
from models.generator import FaceGenerator
from models.identity import FaceEmbedding
from models.metrics.lse import SHIFTS
from models.metrics.sync import score_crops
from models.metrics.sync_model import SyncModel

from .clips import FPS, Clip, ClipSet
from .samples import find_sound

SHORTEST = 100  # frames of a clip that counts: a few windows say nothing
LATE = 10  # frames, 0.4 s
AROUND = 1  # frames to each side in which the judge may find the right place

RIGHT, SHIFTED, OTHER = "own sound", "own sound 0.4 s late", "another clip's sound"


def sounds(data: ClipSet, clip: Clip, other: Clip) -> dict[str, Tensor]:
    """What drives the lips of a clip: mel windows [N, 1, 80, 16] of its own sound, the same later, another clip's."""
    own = torch.from_numpy(data.windows[clip.start : clip.start + clip.frames])[:, None]
    rows = other.start + np.arange(clip.frames) % other.frames
    return {RIGHT: own, SHIFTED: own.roll(LATE, 0), OTHER: torch.from_numpy(data.windows[rows])[:, None]}


def judge_sync(
    generator: FaceGenerator,
    data: ClipSet,
    folder: Path,
    clip: Clip,
    other: Clip,
    truth: Tensor,
    references: Tensor,
    faces: Mapping[str, FaceEmbedding | None],
    model: SyncModel,
) -> dict[str, float]:
    """Distances of lips to the clip's own sound, where they belong together.

    Args:
        generator: to judge.
        data: prepared clips.
        folder: data folder with the clip's sound.
        clip: target.
        other: clip that lends its sound.
        truth: the target's crops, float32 [N, 3, S, S].
        references: as many crops to draw from.
        faces: identities to draw with, by what to call them.
        model: the judge.

    Returns:
        Mean distance within a frame of the right place, by "face: sound"; that of the recording itself under "truth".
        Empty for a clip that is too short or has no sound.
    """
    sound = find_sound(folder, clip)
    if clip.frames < SHORTEST or sound is None:
        return {}
    made = {"truth": truth}
    for face, identity in faces.items():
        for name, windows in sounds(data, clip, other).items():
            made[f"{face}: {name}"] = generator.generate(truth, windows, identity, references=references)
    return {name: _distance(pictures, sound, model) for name, pictures in made.items()}


def _distance(pictures: Tensor, sound: tuple[np.ndarray, int], model: SyncModel) -> float:
    video = FrameArray(to_rgb_uint8(pictures.permute(0, 2, 3, 1)), FPS)
    (face,) = score_crops(video, sound, model, valid_only=True).faces
    return float(face.score.curve[SHIFTS - AROUND : SHIFTS + AROUND + 1].min())


def sync_table(clips: Mapping[str, Mapping[str, float]], model: str) -> list[str]:
    """Lines of Markdown: mean distances, and on how many clips the right sound gives the least."""
    judged = [clip for clip in clips.values() if clip]
    if not judged:
        return []
    lines = [
        f"Distance of lips to the clip's own sound, by {model}, {len(judged)} val clips of {SHORTEST / 25:g} s or more",
        "",
        "| lips | distance | own sound is nearer |",
        "|---|---|---|",
    ]
    for name in judged[0]:
        right = f"{name.partition(': ')[0]}: {RIGHT}"
        wins = sum(clip[right] < clip[name] for clip in judged) if right in judged[0] and right != name else None
        nearer = "" if wins is None else f"{wins} of {len(judged)}"
        lines.append(f"| {name} | {np.mean([clip[name] for clip in judged]):.3f} | {nearer} |")
    return [*lines, ""]
