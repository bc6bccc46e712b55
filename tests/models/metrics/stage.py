"""Small made-up videos with a face whose place is known, a detector that knows it, a sync model one can see through."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.faces import Detection
from models.frames import FrameArray
from models.geometry import CROP_TEMPLATE

FPS = Fraction(25)
SIDE = 120  # px of the face
GREYS = (90, 165)  # of a mouth at level 0 and 1
MARK = np.array([250, 3, 250], np.uint8)  # top left corner of every face


class MarkDetector:
    """Finds the one face by its mark; every face is SIDE px wide, its landmarks where the crop's template has them."""

    name, threshold = "mark", 0.5

    def detect(self, frames: NDArray[np.uint8]) -> list[list[Detection]]:
        result: list[list[Detection]] = []
        for frame in frames:
            places = np.argwhere((frame == MARK).all(-1))
            faces = [
                Detection(np.float32([x, y, x + SIDE, y + SIDE]), 0.9, np.float32((x, y) + SIDE * CROP_TEMPLATE - 0.5))
                for y, x in places
            ]
            result.append(faces)
        return result


def scene(
    levels: NDArray[np.floating], size: tuple[int, int] = (200, 160), seed: int = 0, greys: tuple[int, int] = GREYS
) -> NDArray[np.uint8]:
    """Frames uint8 [N, H, W, 3] with a textured face that wanders; levels [N] in 0..1 make its mouth dark to bright."""
    random = np.random.default_rng(seed)
    width, height = size
    face = random.integers(0, 256, (6, 6, 3), np.uint8).repeat(SIDE // 6, 0).repeat(SIDE // 6, 1)
    face = face // 2 + random.integers(0, 128, face.shape, np.uint8)
    background = np.linspace(0, 255, width, dtype=np.uint8)[:, None].repeat(
        3, 1
    )  # a contrast against which no mouth is a cut
    frames = np.broadcast_to(background, (len(levels), height, width, 3)).copy()
    for i, (frame, level) in enumerate(zip(frames, levels, strict=True)):
        x, y = 20 + round(8 * np.sin(i / 9)), 15 + round(5 * np.cos(i / 7))
        frame[y : y + SIDE, x : x + SIDE] = face
        frame[y + 66 : y + 108, x + 30 : x + 90] = round(greys[0] + (greys[1] - greys[0]) * float(level))
        frame[y, x] = MARK
    return frames


def video(levels: NDArray[np.floating], fps: Fraction = FPS, **options: object) -> FrameArray:
    return FrameArray(scene(levels, **options), fps)  # type: ignore[arg-type]


def murmur(levels: NDArray[np.floating], early: int = 0) -> tuple[NDArray[np.float32], int]:
    """A tone whose loudness follows `levels`, 16 kHz, `early` frames before the picture."""
    moved = np.roll(levels, -early)
    tone = np.sin(2 * np.pi * 300 * np.arange(640 * len(levels)) / 16000)
    return (np.repeat(moved, 640) * tone * 0.5).astype(np.float32)[None], 16000


class PlainModel:
    """Lips are how bright the mouth is, sound how loud it is: five numbers a window."""

    side, name = 96, "plain"

    def __init__(self, geometry: str = "unit") -> None:
        self.geometry = geometry

    def lips(self, faces: NDArray[np.uint8]) -> NDArray[np.float32]:
        mouth = (faces[:, 60:80, 36:60].mean((1, 2, 3)) - GREYS[0]) / (GREYS[1] - GREYS[0])
        return np.lib.stride_tricks.sliding_window_view(mouth, 5).astype(np.float32)

    def sound(self, samples: Tensor, windows: int) -> NDArray[np.float32]:
        level = samples[: len(samples) // 640 * 640].view(-1, 640).square().mean(1).mul(8).sqrt()
        return level.unfold(0, 5, 1)[:windows].numpy()


def syllables(frames: int, seed: int = 0) -> NDArray[np.float64]:
    """A course of loudness without rhythm, [N] in 0..1."""
    return np.random.default_rng(seed).uniform(0, 1, frames)


def random_unit(rows: int, dim: int, seed: int) -> NDArray[np.float32]:
    vectors = torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed))
    return torch.nn.functional.normalize(vectors, dim=1).numpy()
