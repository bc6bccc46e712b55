"""The built-in face detector: a small anchor-free pyramid, and a second look at each face for exact landmarks.

Both parts are our own, trained by `training.distill.detector`. The pyramid predicts at strides 8, 16 and 32 a score,
distances to the four sides of the box and offsets to five landmarks; the refiner places the landmarks on a 64-px crop.
"""

from __future__ import annotations

import torch
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


def decode(maps: list[Tensor], threshold: float, most: int = 200) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Candidates above a score, before suppression of doubles.

    Args:
        maps: output of `FaceDetector.forward`.
        threshold: least score, 0..1.
        most: most candidates of a picture.

    Returns:
        Per picture scores [K] (falling), boxes [K, 4] x1 y1 x2 y2, landmarks [K, 5, 2], in input pixels.
    """
    scores, boxes, landmarks = [], [], []
    for stride, level in zip(STRIDES, maps, strict=True):
        rows, columns = level.shape[-2:]
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        centre = ((torch.stack([x, y], -1).reshape(1, -1, 2) + 0.5) * stride).to(level.device)
        flat = level.flatten(2).transpose(1, 2)
        sides = nn.functional.softplus(flat[..., 1:5]) * UNIT * stride
        scores.append(flat[..., 0].sigmoid())
        boxes.append(torch.cat([centre - sides[..., :2], centre + sides[..., 2:]], -1))
        landmarks.append(centre[:, :, None] + flat[..., 5:].unflatten(-1, (5, 2)) * UNIT * stride)
    score, box, points = (torch.cat(parts, 1) for parts in (scores, boxes, landmarks))
    result = []
    for picture in range(len(score)):
        order = score[picture].argsort(descending=True)[:most]
        order = order[score[picture, order] >= threshold]
        result.append((score[picture, order], box[picture, order], points[picture, order]))
    return result


def suppress(boxes: Tensor, overlap: float = 0.4) -> list[int]:
    """Greedy non-maximum suppression of score-sorted boxes [K, 4]; indices to keep.

    A face also falls when most of it lies inside a better one: the strides see the same face at two sizes.
    """
    area = (boxes[:, 2:] - boxes[:, :2]).clamp_min(0).prod(1)
    corner = (
        torch.maximum(boxes[:, None, :2], boxes[None, :, :2]),
        torch.minimum(boxes[:, None, 2:], boxes[None, :, 2:]),
    )
    shared = (corner[1] - corner[0]).clamp_min(0).prod(2)
    iou = shared / (area[:, None] + area[None] - shared).clamp_min(1e-6)
    inside = shared / torch.minimum(area[:, None], area[None]).clamp_min(1e-6)
    double = ((iou > overlap) | (inside > 0.75)).tolist()
    kept: list[int] = []
    for i in range(len(boxes)):
        if not any(double[i][j] for j in kept):
            kept.append(i)
    return kept
