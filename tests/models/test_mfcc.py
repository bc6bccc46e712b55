"""Cepstral coefficients: the specification's anchors (1.3, 3.10), a second implementation, edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from models.mfcc import FULL_SCALE, filter_edges, mfcc


def noise(samples: int, seed: int = 11) -> np.ndarray:
    """The anchor's signal in int16 units."""
    x = (0.1 * np.random.RandomState(seed).standard_normal(samples)).astype(np.float32)
    return np.round(32767 * x)


def second_implementation(samples: np.ndarray) -> np.ndarray:
    """The definition written out with numpy, frame by frame and filter by filter."""
    x = np.append(samples[0], samples[1:] - 0.97 * samples[:-1])
    mels = np.linspace(0, 2595 * math.log10(1 + 80 / 7), 28)
    edges = [int(513 * (700 * (10 ** (m / 2595) - 1)) / 16000) for m in mels]
    rows = []
    for start in range(0, max(1, len(x) - 400 + 160), 160):
        power = np.abs(np.fft.rfft(x[start : start + 400], 512)) ** 2 / 512
        sums = []
        for low, peak, high in zip(edges, edges[1:], edges[2:], strict=False):
            up = sum(power[i] * (i - low) / (peak - low) for i in range(low, peak))
            sums.append(up + sum(power[i] * (high - i) / (high - peak) for i in range(peak, high)))
        logs = np.log(np.maximum(sums, np.finfo(float).eps))
        angles = [[math.pi * n * (2 * k + 1) / 52 for k in range(26)] for n in range(13)]
        scales = [math.sqrt((1 if n == 0 else 2) / 26) * (1 + 11 * math.sin(math.pi * n / 22)) for n in range(13)]
        row = [scale * (logs * np.cos(angle)).sum() for scale, angle in zip(scales, angles, strict=True)]
        rows.append([math.log(max(power.sum(), np.finfo(float).eps)), *row[1:]])
    return np.array(rows)


def test_anchor_values():
    found = mfcc(torch.from_numpy(noise(16000)))
    assert found.shape == (99, 13)
    assert found.dtype == torch.float32
    assert found.mean().item() == pytest.approx(-4.059528, abs=1e-5)
    np.testing.assert_allclose(found[0, :4], [22.10195, -38.086, -12.80182, -13.74245], atol=1e-4)
    assert found[98, 12].item() == pytest.approx(-2.83557, abs=1e-4)


def test_filter_edges():
    expected = "0 2 4 7 10 13 16 20 24 29 34 40 46 53 60 68 77 87 97 109 122 136 152 169 188 209 231 256"  # spec 1.3
    assert filter_edges().tolist() == [int(edge) for edge in expected.split()]


@pytest.mark.parametrize("samples", [1, 399, 400, 401, 560, 561, 6400])
def test_equals_a_second_implementation(samples):
    x = noise(samples, seed=samples)
    found = mfcc(torch.from_numpy(x)).numpy()
    expected = second_implementation(x)
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, atol=2e-5)


@pytest.mark.parametrize(("samples", "rows"), [(0, 1), (1, 1), (400, 1), (401, 2), (560, 2), (561, 3), (640 * 25, 99)])
def test_number_of_rows(samples, rows):
    assert len(mfcc(torch.zeros(samples))) == rows


def test_long_sounds_are_computed_in_blocks_without_seams(monkeypatch):
    x = torch.from_numpy(noise(16000))
    whole = mfcc(x)
    monkeypatch.setattr("models.mfcc.BLOCK_FRAMES", 7)
    torch.testing.assert_close(mfcc(x), whole, atol=1e-5, rtol=0)


def test_level_moves_only_the_first_coefficient():
    """The unit matters: [-1, 1] in place of int16 units is 2 ln 32768 lower."""
    x = torch.from_numpy(noise(4000))
    loud, quiet = mfcc(x), mfcc(x / FULL_SCALE)
    torch.testing.assert_close(loud[:, 1:], quiet[:, 1:], atol=1e-4, rtol=0)
    torch.testing.assert_close(loud[:, 0] - quiet[:, 0], torch.full((len(loud),), 2 * math.log(32768)))


def test_silence_and_integers():
    assert mfcc(torch.zeros(2000)).isfinite().all()
    x = torch.from_numpy(noise(3000))
    assert torch.equal(mfcc(x.to(torch.int16)), mfcc(x))


def test_bad_input_is_named():
    with pytest.raises(ValueError, match=r"mono \[T\], got shape \[1, 400\]"):
        mfcc(torch.zeros(1, 400))
    with pytest.raises(ValueError, match="not finite"):
        mfcc(torch.tensor([1.0, float("nan")]))
