"""The way of a graphics card against the CPU's, on the CPU where there is no card: same crops, same frames."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from models import blend_torch, face_work
from models.chunk_swap import ChunkReferences, ChunkSwap
from models.face_track import FaceTrack
from models.face_work import FaceWork, as_arrays
from models.references import References
from tests.models.swapping import Painter, embedding, generator
from tests.models.test_blend_torch import BOUNDS, HEIGHT, WIDTH, matrices, smooth

cv2 = pytest.importorskip("cv2")

CPU = torch.device("cpu")
card = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")


@pytest.fixture
def as_on_a_card(monkeypatch):
    """The way of a graphics card, on the CPU."""
    monkeypatch.setattr(face_work, "in_torch", lambda device: True)


def chunk(count: int, absent: tuple[int, ...] = ()) -> tuple[np.ndarray, FaceTrack]:
    """Frames that nobody may write to, and a face that wanders and turns in them."""
    frames = smooth(count, HEIGHT, WIDTH, 0)
    frames.flags.writeable = False
    maps = matrices(*[(150 + 3 * i, 120 - 2 * i, 140 + 5 * i, 4 * i) for i in range(count)])
    there = ~np.isin(np.arange(count), absent)
    empty = np.zeros((count, 5, 2), np.float32)
    return frames, FaceTrack(there, maps, empty, np.float32(there), (WIDTH, HEIGHT), Fraction(25))


def swapped(frames: np.ndarray, track: FaceTrack, network, colour_match: str) -> np.ndarray:
    """A chunk with random sound, and references of its own."""
    count = len(frames)
    windows = torch.randn(count, 1, 80, 16, generator=torch.Generator().manual_seed(0))
    swap = ChunkSwap(frames, track, windows, network)
    swap.cut(ChunkReferences(References(), np.arange(count), np.zeros(count, int)))
    swap.draw(embedding())
    return swap.paste(0.05, colour_match)


def close(made: np.ndarray, wanted: np.ndarray, drift: int, mean: float) -> None:
    difference = np.abs(made.astype(int) - wanted)
    assert difference.max() <= drift and difference.mean() < mean


@pytest.mark.parametrize("colour_match", ["off", "lab"])
@pytest.mark.parametrize("absent", [(), (0, 3, 4)])
@pytest.mark.parametrize("make", [Painter, generator])
def test_both_ways_give_the_same_frames(make, absent, colour_match, monkeypatch):
    (frames, track), network = chunk(9, absent), make()
    wanted = swapped(frames, track, network, colour_match)
    before = frames.copy()
    monkeypatch.setattr(face_work, "in_torch", lambda device: True)
    monkeypatch.setattr(face_work.geometry, "warp_crops", None)  # nobody asks
    monkeypatch.setattr(face_work.blend, "paste_into", None)
    made = swapped(frames, track, network, colour_match)
    assert made.dtype == np.uint8 and made.flags.c_contiguous
    np.testing.assert_array_equal(frames, before)
    np.testing.assert_array_equal(made[list(absent)], frames[list(absent)])
    drift, mean = BOUNDS[colour_match]
    close(made, wanted, drift + 1, mean + 0.05)  # crops differ by a level here and there, and so does what is made
    assert np.abs(made.astype(int) - frames).max() > 20


def test_crops_of_both_ways_agree(as_on_a_card, monkeypatch):
    frames, track = chunk(6, (2,))
    ours = FaceWork(frames, track, CPU).crops(96)
    assert ours.dtype == torch.uint8 and ours.shape == (5, 3, 96, 96)
    monkeypatch.setattr("models.memory.PIXELS", 2 * HEIGHT * WIDTH)
    assert torch.equal(FaceWork(frames, track, CPU).crops(96), ours)
    monkeypatch.undo()
    close(as_arrays(ours), as_arrays(FaceWork(frames, track, CPU).crops(96)), 3, 0.3)


@pytest.mark.parametrize("step", ["crops", "paste"])
def test_a_card_too_small_leaves_the_chunk_to_opencv(step, as_on_a_card, monkeypatch, caplog):
    """Nothing is lost, and references are chosen once: they remember what they saw."""
    frames, track = chunk(6, (2,))
    calls, choose = [], References.choose

    def counted(self, *arguments):
        calls.append(arguments)
        return choose(self, *arguments)

    def full(*arguments, **keywords):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB")

    monkeypatch.setattr(References, "choose", counted)
    with monkeypatch.context() as patch:
        patch.setattr(*((face_work.warp, "crops", full) if step == "crops" else (blend_torch, "paste", full)))
        made = swapped(frames, track, Painter(), "lab")
    assert len(calls) == 1
    assert "6 frames" not in caplog.text and "these 5 frames" in caplog.text
    monkeypatch.setattr(face_work, "in_torch", lambda device: False)
    np.testing.assert_array_equal(made, swapped(frames, track, Painter(), "lab"))


def test_other_failures_are_not_hidden(as_on_a_card, monkeypatch):
    frames, track = chunk(2)

    def broken(*arguments, **keywords):
        raise RuntimeError("an illegal memory access was encountered")

    monkeypatch.setattr(blend_torch, "paste", broken)
    with pytest.raises(RuntimeError, match="illegal"):
        swapped(frames, track, Painter(), "off")


def test_no_face_in_the_chunk(as_on_a_card):
    frames, track = chunk(2, (0, 1))
    assert swapped(frames, track, Painter(), "lab") is frames


def test_only_cuda_cuts_and_pastes():
    kinds = {kind: face_work.in_torch(torch.device(kind)) for kind in ("cpu", "cuda", "mps", "xpu")}
    assert kinds == {"cpu": False, "cuda": True, "mps": False, "xpu": False}


@card
@pytest.mark.parametrize("colour_match", ["off", "lab"])
def test_a_card_gives_what_the_cpu_gives(colour_match):
    frames, track = chunk(9, (0, 3, 4))
    wanted = swapped(frames, track, generator(), colour_match)
    network = generator()
    network.network.to("cuda")
    work = FaceWork(frames, track, network.device)
    assert work.crops(96).device.type == work.device.type == "cuda"
    made = swapped(frames, track, network, colour_match)
    drift, mean = BOUNDS[colour_match]
    close(made, wanted, drift + 5, mean + 0.1)  # the network may round to 10 bits there (TF32)
    np.testing.assert_array_equal(made[[0, 3, 4]], frames[[0, 3, 4]])


@card
def test_faces_can_stay_on_the_card():
    network = generator()
    network.network.to("cuda")
    crops, mel = torch.rand(3, 3, 96, 96), torch.randn(3, 1, 80, 16)
    made = network.generate(crops, mel, embedding(), to=network.device)
    assert made.device.type == "cuda"
    torch.testing.assert_close(made.cpu(), network.generate(crops, mel, embedding()))
