"""Sources in memory: arrays and stills."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from models.frames import FrameArray, StillImage, to_rgb_uint8
from models.video import VideoFile
from models.video_writer import VideoWriter


def different(frames: int) -> np.ndarray:
    """Noise, uint8 [frames, 48, 64, 3]."""
    return np.random.default_rng(0).integers(0, 256, (frames, 48, 64, 3), np.uint8)


def test_arrays_and_stills_are_sources_too():
    frames = different(10)
    for kept in (frames, frames.astype(np.float32) / 255, torch.from_numpy(frames).float() / 255):
        source = FrameArray(kept, Fraction(24))
        assert (source.info.width, source.info.height, source.info.frames) == (64, 48, 10)
        assert np.array_equal(source.read(2, 5), frames[2:5])
        assert [len(chunk) for chunk in source.chunks(4)] == [4, 4, 2]
        assert source.sound() is None
        with pytest.raises(IndexError):
            source.read(9, 11)
    still = StillImage(frames[3], 7, Fraction(30))
    assert still.info.duration == Fraction(7, 30)
    assert np.array_equal(still.read(5, 7), frames[[3, 3]])
    assert sum(len(chunk) for chunk in still.chunks(2)) == 7


def test_grey_and_rgba_become_rgb():
    rgba = np.dstack([different(1)[0], np.zeros((48, 64), np.uint8)])
    assert np.array_equal(to_rgb_uint8(rgba), rgba[..., :3])
    grey = FrameArray(np.full((2, 4, 4, 1), 0.5, np.float32), 25).read(0, 2)
    assert grey.shape == (2, 4, 4, 3)
    assert (grey == 128).all()
    assert to_rgb_uint8(np.array([[[np.nan, 2.0, -1.0]]])).tolist() == [[[0, 255, 0]]]
    for bad in (np.zeros((2, 4, 4)), np.zeros((0, 4, 4, 3)), np.zeros((1, 4, 4, 2))):
        with pytest.raises(ValueError, match=r"\[N, H, W, 3\]"):
            FrameArray(bad, 25)
    with pytest.raises(ValueError, match="at least one frame"):
        StillImage(different(1)[0], 0)


@pytest.mark.parametrize(
    "typed, meant",
    [
        (23.976, Fraction(24000, 1001)),
        (29.97, Fraction(30000, 1001)),
        (59.94, Fraction(60000, 1001)),
        (12.3, Fraction(123, 10)),
    ],
)
def test_rates_typed_as_decimals_become_the_rate_they_mean(tmp_path, typed, meant):
    frames = np.zeros((5, 16, 16, 3), np.uint8)
    for source in (FrameArray(frames, Fraction(typed)), StillImage(frames[0], 5, Fraction(typed))):
        assert (source.info.fps, source.info.duration) == (meant, 5 / meant)
        with VideoWriter(tmp_path / "a.mp4", 16, 16, Fraction(typed)) as writer:
            writer.write(source.read(0, 5))
        assert VideoFile(tmp_path / "a.mp4").info.fps == meant
    assert FrameArray(frames, Fraction(1000000, 33333)).info.fps == Fraction(1000000, 33333)  # storable: kept
    with pytest.raises(ValueError, match="positive"):
        FrameArray(frames, Fraction(0))
