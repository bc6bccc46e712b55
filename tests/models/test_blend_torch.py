"""Pasting in torch against pasting with OpenCV: same edge, same colours, same averaging, the frame's numbers kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models import blend, blend_torch, geometry, memory, skin_colour, warp

cv2 = pytest.importorskip("cv2")
pytest.importorskip("kornia")

HEIGHT, WIDTH = 240, 320
MOST, MEAN = 3, 0.05  # grey levels, largest and mean difference of what is pasted
DEVICES = [
    "cpu",
    pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")),
]


def smooth(count: int, height: int, width: int, seed: int) -> np.ndarray:
    """Pictures of large and small spots, uint8 [count, height, width, 3]; of skin's colours, more or less."""
    random = np.random.default_rng(seed)
    made = np.empty((count, height, width, 3), np.float32)
    for picture in made:
        spots = [random.normal(0, level, (size, size, 3)) for size, level in ((6, 25), (24, 10))]
        picture[:] = sum(cv2.resize(spot, (width, height), interpolation=cv2.INTER_CUBIC) for spot in spots)
    return np.uint8(np.clip(made + (190, 140, 110), 0, 255))


def matrices(*places: tuple[float, float, float, float]) -> np.ndarray:
    """Crops given as (centre x, centre y, side, degrees) in pixels -> [N, 2, 3] frame pixels -> unit crop."""
    made = []
    for x, y, side, degrees in places:
        cos, sin = side * np.cos(np.deg2rad(degrees)), side * np.sin(np.deg2rad(degrees))
        linear = np.array([[cos, -sin], [sin, cos]])
        made.append(np.column_stack([linear, (x, y) - linear @ (0.5, 0.5)]))
    return geometry.invert(np.array(made))


class Track:
    """As much of a FaceTrack as pasting looks at."""

    def __init__(self, maps: np.ndarray) -> None:
        self.present, self.matrices, self.frame_size = np.ones(len(maps), bool), maps, (WIDTH, HEIGHT)

    def __len__(self) -> int:
        return len(self.present)


def both(frames, crops, maps, device="cpu", **options) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Frames pasted in torch and with OpenCV, and how much was drawn by the latter."""
    tensors = (torch.from_numpy(some).to(device).permute(0, 3, 1, 2) for some in (frames, crops))
    ours = blend_torch.paste(*tensors, maps, **options)
    assert ours.dtype == torch.uint8 and ours.permute(0, 2, 3, 1).is_contiguous()
    return ours.permute(0, 2, 3, 1).cpu().numpy(), *blend.paste_faces(frames, crops, Track(maps), **options)


INSIDE = [(150.3, 110.8, 120, 12), (160, 120, 200, -35), (100, 90, 60, 0), (170.5, 130.25, 90.7, 180)]
BEYOND = [(2, 3, 120, 20), (318, 238, 60, 0), (160, 120, 900, 45), (-900, 50, 100, 0), (160, -30, 110, 5)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("places", [INSIDE, BEYOND], ids=["inside", "beyond"])
@pytest.mark.parametrize("feather", [0.0, 0.05, 0.5])
@pytest.mark.parametrize("size", [48, 96, 256, 512])
@pytest.mark.parametrize("colour_match", ["off", "lab"])
def test_equals_opencv(size, feather, colour_match, places, device):
    frames, maps = smooth(len(places), HEIGHT, WIDTH, 0), matrices(*places)
    crops = np.float32(smooth(len(places), size, size, 1)) / 255 * np.float32((0.8, 0.9, 1))
    options = {"feather": feather, "colour_match": colour_match}
    ours, theirs, drawn = both(frames, crops, maps, device, **options)
    np.testing.assert_array_equal(ours[drawn == 0], frames[drawn == 0])
    difference = np.abs(ours[drawn > 0].astype(int) - theirs[drawn > 0])
    print("BOUND", size, feather, colour_match, len(places), difference.max(), round(difference.mean(),4))
    assert difference.max() <= MOST and difference.mean() < MEAN
