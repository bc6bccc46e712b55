"""The built-in face detector: a small anchor-free pyramid, and a second look at each face for exact landmarks.

Both parts are our own, trained by `training.distill.detector`. The pyramid predicts at strides 8, 16 and 32 a score,
distances to the four sides of the box and offsets to five landmarks; the refiner places the landmarks on a 64-px crop.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .blocks import ConvBlock

STRIDES = (8, 16, 32)
UNIT = 4  # one predicted unit is UNIT * stride pixels, about half a face of the level
REFINER_SIDE = 64  # px


class LandmarkRefiner(nn.Module):
    """Corrections of five landmarks, seen on a crop that the first estimate aligned."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            ConvBlock(3, 16, 3, 2, 1),
            ConvBlock(16, 32, 3, 2, 1),
            ConvBlock(32, 32, 3, 1, 1, residual=True),
            ConvBlock(32, 64, 3, 2, 1),
            ConvBlock(64, 64, 3, 1, 1, residual=True),
            ConvBlock(64, 96, 3, 2, 1),
        )
        self.head = nn.Linear(96 * 16, 10)

    def forward(self, crops: Tensor) -> Tensor:
        """RGB [B, 3, 64, 64] in [0, 1] -> landmark positions [B, 5, 2] in unit-crop coordinates."""
        from ..geometry import CROP_TEMPLATE

        offsets = self.head(self.features(crops - 0.5).flatten(1)).unflatten(1, (5, 2)).float()
        return offsets * 0.1 + torch.as_tensor(CROP_TEMPLATE, dtype=torch.float32, device=offsets.device)


class FaceDetector(nn.Module):
    """Score, box and landmarks of every cell of three strides.

    Args:
        width: channels of the pyramid and its shared head.
    """

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            ConvBlock(3, 16, 3, 2, 1), ConvBlock(16, 32, 3, 2, 1), ConvBlock(32, 32, 3, 1, 1, residual=True)
        )
        levels, inputs = [], 32
        for channels, depth in ((64, 1), (96, 2), (128, 2)):
            blocks = [ConvBlock(inputs, channels, 3, 2, 1)]
            blocks += [ConvBlock(channels, channels, 3, 1, 1, residual=True) for _ in range(depth)]
            levels.append(nn.Sequential(*blocks))
            inputs = channels
        self.levels = nn.ModuleList(levels)
        self.lateral = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in (64, 96, 128))
        self.smooth = nn.ModuleList(ConvBlock(width, width, 3, 1, 1) for _ in STRIDES)
        last = nn.Conv2d(width, 15, 3, 1, 1)
        self.head = nn.Sequential(ConvBlock(width, width, 3, 1, 1), ConvBlock(width, width, 3, 1, 1), last)
        self.refiner = LandmarkRefiner()
        # A face is rare: starting at a score of 1 % keeps the first steps from drowning in false alarms.
        last.bias = nn.Parameter(torch.tensor([-4.6] + [0.0] * 14))

    def forward(self, images: Tensor) -> list[Tensor]:
        """Raw maps.

        Args:
            images: [B, 3, H, W] RGB in [0, 1], H and W multiples of 32.

        Returns:
            Per stride float32 [B, 15, H / stride, W / stride]: logit, 4 sides, 10 landmark offsets.
        """
        x = self.stem(images - 0.5)
        features = []
        for level in self.levels:
            x = level(x)
            features.append(x)
        merged: list[Tensor] = []
        for lateral, feature in zip(reversed(self.lateral), reversed(features), strict=True):
            y = lateral(feature)
            merged.append(y + nn.functional.interpolate(merged[-1], scale_factor=2.0) if merged else y)
        return [self.head(smooth(y)).float() for smooth, y in zip(self.smooth, reversed(merged), strict=True)]


def joined(maps: list[Tensor]) -> Tensor:
    """The levels of `FaceDetector.forward` one after another, row by row: [B, 15, cells]; one transfer for all."""
    return torch.cat([level.flatten(2) for level in maps], 2)


def decode(
    values: NDArray[np.float32], width: int, height: int, threshold: float, most: int = 200
) -> tuple[NDArray[np.intp], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Candidates above a score, before suppression of doubles.

    Args:
        values: [B, 15, cells], see `joined`.
        width: of the pictures, a multiple of 32.
        height: of the pictures, a multiple of 32.
        threshold: least score, 0..1.
        most: most candidates of a picture.

    Returns:
        Picture of each candidate [K], scores [K], boxes [K, 4] x1 y1 x2 y2, landmarks [K, 5, 2] in input pixels;
        picture by picture, in each by falling score.
    """
    scores = np.tanh(values[:, 0] / 2) / 2 + np.float32(0.5)  # the logistic function, without overflow
    picture, cell = np.nonzero(scores >= threshold)
    order = np.lexsort((-scores[picture, cell], picture))
    picture, cell = picture[order], cell[order]
    rank = np.arange(len(picture)) - np.searchsorted(picture, picture)
    picture, cell = picture[rank < most], cell[rank < most]
    centres, strides = _cells(width, height)
    centre, unit = centres[cell], UNIT * strides[cell, None]
    found = values[picture, :, cell]
    sides = np.logaddexp(np.float32(0), found[:, 1:5]) * unit  # softplus
    boxes = np.concatenate([centre - sides[:, :2], centre + sides[:, 2:]], 1)
    landmarks = centre[:, None] + found[:, 5:].reshape(-1, 5, 2) * unit[:, None]
    return picture, scores[picture, cell], boxes, landmarks


def _cells(width: int, height: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Centres [cells, 2] and strides [cells], in the order of `joined`."""
    centres, strides = [], []
    for stride in STRIDES:
        y, x = np.mgrid[: height // stride, : width // stride]
        centres.append((np.stack([x, y], -1).reshape(-1, 2).astype(np.float32) + np.float32(0.5)) * np.float32(stride))
        strides.append(np.full(len(centres[-1]), stride, np.float32))
    return np.concatenate(centres), np.concatenate(strides)


def suppress(boxes: NDArray[np.floating], overlap: float = 0.4) -> list[int]:
    """Greedy non-maximum suppression of score-sorted boxes [K, 4]; indices to keep.

    A face also falls when most of it lies inside a better one: the strides see the same face at two sizes.
    """
    boxes = np.asarray(boxes)
    area = np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(1)
    left, kept = np.arange(len(boxes)), []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(int(best))
        corner = np.maximum(boxes[best, :2], boxes[left, :2]), np.minimum(boxes[best, 2:], boxes[left, 2:])
        shared = np.maximum(corner[1] - corner[0], 0).prod(1)
        iou = shared / np.maximum(area[best] + area[left] - shared, 1e-6)
        inside = shared / np.maximum(np.minimum(area[best], area[left]), 1e-6)
        left = left[(iou <= overlap) & (inside <= 0.75)]
    return kept
