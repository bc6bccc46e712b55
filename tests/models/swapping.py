"""Stand-ins for the pipeline's tests: a clip whose face is a red disc, a detector that finds it, a random generator."""

from __future__ import annotations

import numpy as np
import torch

from models.faces import Detection
from models.generator import Generator
from models.geometry import ARCFACE_TEMPLATE
from models.identity import FaceEmbedding, check_embedding
from models.inference_form import inference_form
from models.networks import build

FACE = 44  # px, side of the face's box


def clip(frames: int, width: int = 160, height: int = 120, absent: tuple[int, ...] = ()) -> np.ndarray:
    """Grey frames with a red disc that wanders; uint8 [frames, height, width, 3]."""
    y, x = np.mgrid[:height, :width]
    result = np.empty((frames, height, width, 3), np.uint8)
    result[:] = (60 + 40 * np.sin(x / 9) + 30 * np.cos(y / 7))[..., None]
    for i in range(frames):
        if i not in absent:
            centre_x, centre_y = width / 2 + 12 * np.sin(i / 15), height / 2 + 4 * np.cos(i / 9)
            result[i][np.hypot(x - centre_x, y - centre_y) < FACE / 2] = (220, 40, 30)
    return result


class DiscDetector:
    """Finds the red disc and invents five landmarks on it."""

    name, threshold = "disc", 0.5

    def __init__(self) -> None:
        self.seen = 0
        self.most = 0  # frames in one call

    def detect(self, frames: np.ndarray) -> list[list[Detection]]:
        self.seen += len(frames)
        self.most = max(self.most, len(frames))
        return [self._one(frame) for frame in frames]

    def _one(self, frame: np.ndarray) -> list[Detection]:
        red = frame[..., 0].astype(int) - frame[..., 1] > 90
        if red.sum() < 50:
            return []
        rows, columns = np.nonzero(red)
        centre = np.array([columns.mean(), rows.mean()])
        points = (ARCFACE_TEMPLATE - ARCFACE_TEMPLATE.mean(0)) * (FACE / 112) + centre
        box = np.concatenate([centre - FACE / 2, centre + FACE / 2])
        return [Detection(box.astype(np.float32), 0.9, points.astype(np.float32))]


class Painter:
    """In place of a generator: paints every face green, the brighter the louder its mel window is."""

    px, recogniser, mel_lag, hears = 32, "r1", 0, True
    alone = takes_all_cores = False
    device = torch.device("cpu")

    def check_identity(self, embedding) -> None:
        check_embedding(embedding, self.recogniser)

    @staticmethod
    def greens(windows: torch.Tensor) -> torch.Tensor:
        return 0.2 + (windows.mean((1, 2, 3)) + 4) / 8

    def generate(self, crops, windows, embedding, references=None, progress=None, to=None) -> torch.Tensor:
        assert len(crops) == len(windows)
        result = torch.zeros(len(crops), 3, self.px, self.px)
        result[:, 1] = self.greens(windows)[:, None, None]
        return result


def generator(recogniser: str = "r1", **config) -> Generator:
    """A small real network with random weights."""
    torch.manual_seed(0)
    network = build("wavsyncswap", width="small", px=96, **config)
    return Generator(inference_form(network.eval(), torch.float32), recogniser, 0, {})


def embedding(recogniser: str = "r1") -> FaceEmbedding:
    vector = np.zeros(512, np.float32)
    vector[0] = 1
    return FaceEmbedding(vector, recogniser, 1.0, 1)


def speech(seconds: float, rate: int = 16000, channels: int = 1) -> tuple[np.ndarray, int]:
    """Voiced syllables, four a second."""
    t = np.arange(round(seconds * rate)) / rate
    voice = sum(np.sin(2 * np.pi * 140 * k * t) / k for k in range(1, 20))
    one = 0.15 * voice * (np.sin(2 * np.pi * 4 * t) > 0)
    return np.repeat(one[None], channels, 0).astype(np.float32), rate
