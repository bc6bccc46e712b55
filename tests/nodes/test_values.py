"""Host conventions at the boundary: frame rates, images, audio, masks, memory."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from nodes import values


@pytest.mark.parametrize(
    "given, expected",
    [
        (23.976, Fraction(24000, 1001)),
        (23.98, Fraction(24000, 1001)),
        (24000 / 1001, Fraction(24000, 1001)),
        (24.0, Fraction(24)),
        (25.0, Fraction(25)),
        (29.97, Fraction(30000, 1001)),
        (30000 / 1001, Fraction(30000, 1001)),
        (30.0, Fraction(30)),
        (50.0, Fraction(50)),
        (59.94, Fraction(60000, 1001)),
        (60.0, Fraction(60)),
        (12.5, Fraction(25, 2)),
        (119.88, Fraction(120000, 1001)),
    ],
)
def test_exact_rate(given: float, expected: Fraction) -> None:
    assert values.exact_rate(given) == expected


@pytest.mark.parametrize(
    "numerator, denominator", [(24000, 1001), (24, 1), (25, 1), (30000, 1001), (30, 1), (50, 1), (60, 1)]
)
def test_ten_minutes_stay_within_a_millisecond(numerator: int, denominator: int) -> None:
    """What Get Video Components hands on is a float of the exact rate."""
    rate = Fraction(numerator, denominator)
    frames = round(600 * rate)
    assert abs(frames / values.exact_rate(float(rate)) - frames / rate) < Fraction(1, 1000)


@pytest.mark.parametrize("given", [0.0, -25.0, float("nan"), float("inf")])
def test_exact_rate_refuses(given: float) -> None:
    with pytest.raises(ValueError, match="fps"):
        values.exact_rate(given)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_rgb_takes_grey_and_rgba(channels: int) -> None:
    images = torch.rand(2, 5, 7, channels)
    before = images.clone()
    result = values.rgb(images)
    assert result.shape == (2, 5, 7, 3)
    assert torch.equal(result[..., 0], images[..., 0])
    assert torch.equal(images, before)


def test_rgb_keeps_the_same_pixels_without_a_copy() -> None:
    images = torch.rand(1, 4, 4, 3)
    assert values.rgb(images).data_ptr() == images.data_ptr()


@pytest.mark.parametrize("shape", [(0, 4, 4, 3), (4, 4), (1, 4, 4, 2), (1, 0, 4, 3)])
def test_rgb_refuses(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"'crops' has shape.*expected"):
        values.rgb(torch.zeros(shape), "crops")


def test_to_uint8_rounds_and_clips() -> None:
    assert values.to_uint8(torch.tensor([-1.0, 0.0, 0.5, 1.0, 2.0, 100 / 255])).tolist() == [0, 0, 128, 255, 255, 100]
    every = np.arange(256, dtype=np.uint8)
    assert np.array_equal(values.to_uint8(torch.from_numpy(every) / 255), every)


def test_chunks_cover_everything_once() -> None:
    assert list(values.chunks(5, 2)) == [(0, 2), (2, 4), (4, 5)]
    assert list(values.chunks(0)) == []


@pytest.mark.parametrize(
    "dtype, low, high",
    [(torch.int16, -32768, 16384), (torch.int32, -(2**31), 2**30), (torch.uint8, 0, 192), (torch.float32, -1.0, 0.5)],
)
def test_waveform_scales_every_pcm_format(dtype: torch.dtype, low: float, high: float) -> None:
    audio = {"waveform": torch.tensor([[[low, high]]]).to(dtype), "sample_rate": 8000}
    samples, rate = values.waveform(audio)  # type: ignore[misc]
    assert rate == 8000
    assert samples.dtype == torch.float32
    assert samples.tolist() == [[-1.0, 0.5]]


def test_waveform_of_nothing_is_nothing() -> None:
    assert values.waveform(None) is None
    assert values.waveform({"waveform": torch.zeros(1, 2, 0), "sample_rate": 44100}) is None


def test_waveform_takes_the_first_of_a_batch_and_keeps_channels() -> None:
    batch = torch.rand(2, 6, 10)
    samples, _ = values.waveform({"waveform": batch, "sample_rate": 48000})  # type: ignore[misc]
    assert torch.equal(samples, batch[0])


def test_waveform_refuses() -> None:
    with pytest.raises(ValueError, match=r"shape \(10,\)"):
        values.waveform({"waveform": torch.zeros(10), "sample_rate": 16000})


def test_pasting_mask() -> None:
    assert values.pasting_mask(None, 3, 8, 9) is None
    assert values.pasting_mask(torch.zeros(1, 64, 64), 3, 8, 9) is None  # a loader's "no alpha"
    assert values.pasting_mask(torch.ones(8, 9), 3, 8, 9).shape == (1, 8, 9)  # type: ignore[union-attr]
    assert values.pasting_mask(torch.ones(3, 8, 9), 3, 8, 9).shape == (3, 8, 9)  # type: ignore[union-attr]
    with pytest.raises(ValueError, match=r"2 frame\(s\) of 9x8; the video has 3 of 9x8"):
        values.pasting_mask(torch.ones(2, 8, 9), 3, 8, 9)


def test_require_memory() -> None:
    values.require_memory(1, 2, "work")
    with pytest.raises(ValueError, match=r"work needs 2\.0 GiB.*1\.0 GiB is free.*Talking Swap Video"):
        values.require_memory(2**31, 2**30, "work")
