"""Pasting in torch against pasting with OpenCV: same edge, same colours, same averaging, the frame's numbers kept."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models import blend, blend_torch, geometry, memory, warp

cv2 = pytest.importorskip("cv2")

HEIGHT, WIDTH = 240, 320
# Grey levels, largest and mean difference of what is pasted. OpenCV's Lab is interpolated in a table: there and back it
# comes out 0.2 darker on average, and wrong by some levels where colours are saturated; ours is exact.
BOUNDS = {"off": (1, 0.002), "lab": (2, 0.33)}
SATURATED = {"off": (1, 0.002), "lab": (8, 0.35)}
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
    return np.uint8(np.clip(made + np.array((190, 140, 110)), 0, 255))


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


def agree(frames, crops, maps, bounds: tuple[int, float], device="cpu", **options) -> None:
    """Nothing changes where nothing is drawn, and the rest is what OpenCV makes."""
    ours, theirs, drawn = both(frames, crops, maps, device, **options)
    np.testing.assert_array_equal(ours[drawn == 0], frames[drawn == 0])
    for one, other, alpha in zip(ours, theirs, drawn, strict=True):
        difference = np.abs(one[alpha > 0].astype(int) - other[alpha > 0])
        assert difference.max(initial=0) <= bounds[0]
        assert difference.sum() <= bounds[1] * max(difference.size, 3000)  # a few pixels have no mean


# Sides at which bytes are averaged to no exact halves: these may be rounded either way.
INSIDE = [(150.3, 110.8, 120, 12), (160, 120, 200, -35), (100, 90, 61, 3), (170.5, 130.25, 90.7, 180)]
BEYOND = [(2, 3, 120, 20), (318, 238, 61, 2), (160, 120, 900, 45), (-900, 50, 100, 0), (160, -30, 110, 5)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("places", [INSIDE, BEYOND], ids=["inside", "beyond"])
@pytest.mark.parametrize("feather", [0.0, 0.05, 0.5])
@pytest.mark.parametrize("size", [48, 96, 256, 512])
@pytest.mark.parametrize("colour_match", ["off", "lab"])
def test_equals_opencv(size, feather, colour_match, places, device):
    frames, maps = smooth(len(places), HEIGHT, WIDTH, 0), matrices(*places)
    crops = np.float32(smooth(len(places), size, size, 1)) / 255 * np.float32((0.8, 0.9, 1))
    agree(frames, crops, maps, BOUNDS[colour_match], device, feather=feather, colour_match=colour_match)


@pytest.mark.parametrize("seed", range(24))
def test_equals_opencv_wherever_and_however(seed):
    """Any place, size, edge and colours, noise beyond 0 .. 1 too."""
    random = np.random.default_rng(seed)
    size = int(random.integers(8, 400))
    options = {"feather": random.uniform(0, 0.5), "erode": random.choice([0, 0.06, 0.2])}
    places = np.stack(
        [
            random.uniform(-60, WIDTH + 60, 3),
            random.uniform(-60, HEIGHT + 60, 3),
            10 ** random.uniform(0.6, 2.9, 3),
            random.uniform(-180, 180, 3),
        ],
        1,
    )
    if seed % 2:
        frames = random.integers(0, 256, (3, HEIGHT, WIDTH, 3), np.uint8)
        crops = np.float32(random.uniform(-0.2, 1.2, (3, size, size, 3)))
    else:
        frames = np.ascontiguousarray(smooth(3, HEIGHT, WIDTH, seed)[..., ::-1])
        ramp = np.linspace(0, 1, size)[None, :, None, None]
        crops = np.float32(np.broadcast_to(random.random((3, 1, 1, 3)) * ramp, (3, size, size, 3)))
    for colour_match, bounds in SATURATED.items():
        agree(frames, crops, matrices(*places), bounds, colour_match=colour_match, **options)


@pytest.mark.parametrize("tint, most", [(0.0, 2), (0.02, 40)])
def test_black_and_white_stays_so(tint, most):
    """A colourful crop in a picture without colour, or with a breath of it."""
    coloured = smooth(4, HEIGHT, WIDTH, 0)
    grey = coloured.mean(-1, keepdims=True)
    frames, maps = np.uint8(grey + tint * (coloured - grey)), matrices(*INSIDE)
    crops = np.float32(smooth(4, 96, 96, 1)) / 255
    crops[:, 60:80, 30:66] = (0.9, 0.1, 0.2)  # lips, far from skin
    agree(frames, crops, maps, BOUNDS["lab"], colour_match="lab")
    ours, theirs, drawn = both(frames, crops, maps, colour_match="lab")
    for made in (ours, theirs):
        assert made[drawn > 0].std(0).min() > 5  # something is shown
        assert np.ptp(made[drawn > 0], axis=-1).max() <= most  # levels between a pixel's channels; the crop has 200


def test_parts_do_not_matter(monkeypatch):
    frames, maps = smooth(4, HEIGHT, WIDTH, 0), matrices(*INSIDE)
    crops = np.float32(smooth(4, 300, 300, 1)) / 255
    whole = both(frames, crops, maps)[0]
    monkeypatch.setattr(memory, "PIXELS", 2 * HEIGHT * WIDTH)
    parts = both(frames, crops, maps)[0]
    assert np.abs(whole.astype(int) - parts).max() <= 1  # sums are rounded in another order
    assert (whole != parts).mean() < 1e-3


def test_hardly_any_skin_in_the_frame_keeps_the_crops_colours():
    """The whole face beyond the edge but for a strip of it, and beside it one that is all there."""
    frames, maps = smooth(2, HEIGHT, WIDTH, 0), matrices((-55, 120, 120, 0), (160, 120, 120, 0))
    crops = np.full((2, 96, 96, 3), 0.4, np.float32)
    matched, raw = (both(frames, crops, maps, colour_match=kind)[0] for kind in ("lab", "off"))
    np.testing.assert_array_equal(matched[0], raw[0])
    assert (matched[1] != raw[1]).any()


def test_no_frames_and_a_broken_crop():
    frames, maps = smooth(1, HEIGHT, WIDTH, 0), matrices(PLACE := INSIDE[0])
    assert both(frames[:0], np.zeros((0, 64, 64, 3), np.float32), maps[:0])[0].shape == (0, HEIGHT, WIDTH, 3)
    tensor = torch.from_numpy(frames).permute(0, 3, 1, 2)
    made = blend_torch.paste(tensor, torch.full((1, 3, 64, 64), torch.nan), maps)
    unit = np.stack(np.meshgrid(np.arange(WIDTH) + 0.5, np.arange(HEIGHT) + 0.5), -1) - PLACE[:2]
    outside = torch.from_numpy(np.hypot(*unit.transpose(2, 0, 1)) > PLACE[2])
    assert torch.equal(made[0][:, outside], tensor[0][:, outside])


@pytest.mark.parametrize("sides, wanted", [((9, 16, 16), (9, 7, 5)), ((5, 12, 16), (16, 16, 16)), ((16, 11), (4, 4))])
def test_resizing_equals_opencvs(sides, wanted):
    """Each picture by itself, what lies beyond its size repeats its end."""
    size, most = 16, max(wanted)
    weights = warp.resizing(torch.tensor(sides), torch.tensor(wanted), size, most).numpy()
    for one, side, new in zip(weights, sides, wanted, strict=True):
        picture = np.random.default_rng(0).random((side, side)).astype(np.float32)
        way = cv2.INTER_AREA if new <= side else cv2.INTER_LINEAR
        small = cv2.resize(picture, (new, new), interpolation=way)
        ours = one[:, :side] @ picture @ one[:, :side].T
        np.testing.assert_allclose(ours, np.pad(small, (0, most - new), "edge"), atol=1e-5)
        assert not one[:, side:].any()
