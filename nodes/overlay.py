"""Preview pictures of a face track."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw

from .values import to_uint8

LONGEST = 480  # pixels: enough to see a wrong face, small enough for a long clip


def overlay_size(width: int, height: int) -> tuple[int, int]:
    """Even (width, height) of the preview of a frame."""
    scale = min(1.0, LONGEST / max(width, height))
    return tuple(max(2, 2 * round(side * scale / 2)) for side in (width, height))  # type: ignore[return-value]


def paint_track(frames: torch.Tensor, track: Any, size: tuple[int, int], first: int = 0) -> torch.Tensor:
    """Frames with the crop's outline and the five landmarks; absent frames get a red border.

    Args:
        frames: float32 [N, H, W, 3] RGB 0..1.
        track: the same N frames of a FaceTrack.
        size: (width, height) of the preview.
        first: number of the first frame, for the label.

    Returns:
        float32 [N, height, width, 3].
    """
    from ..models.geometry import invert

    width, height = size
    scale = np.array([width / frames.shape[2], height / frames.shape[1]])
    corners = np.array([[0, 0], [1, 0], [1, 1], [0, 1]], np.float64)
    boxes = invert(track.matrices)
    painted = torch.empty(len(frames), height, width, 3)
    for i, frame in enumerate(frames):
        canvas = Image.fromarray(to_uint8(frame)).resize(size, Image.Resampling.BILINEAR)
        draw = ImageDraw.Draw(canvas)
        if track.present[i]:
            outline = (corners @ boxes[i][:, :2].T + boxes[i][:, 2]) * scale
            draw.polygon([tuple(point) for point in outline], outline=(80, 255, 120), width=2)
            for x, y in track.landmarks[i] * scale:
                draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=(255, 210, 60))
            draw.text((4, 4), f"{first + i}", fill=(80, 255, 120))
        else:
            draw.rectangle((0, 0, width - 1, height - 1), outline=(255, 60, 60), width=3)
            draw.text((6, 6), f"{first + i} absent", fill=(255, 60, 60))
        painted[i] = torch.from_numpy(np.asarray(canvas).copy()).float() / 255
    return painted
