"""The core of LSE-D, LSE-C and offset against the specification's values."""

from __future__ import annotations

import numpy as np
import pytest

from models.metrics.lse import SHIFTS, SyncScore, score, window_count


def features(frames: int = 60, dim: int = 1024, lag: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """The specification's pair (3.10): the sound of frame i + lag goes with the lips of frame i."""
    random = np.random.RandomState(13)
    lips = random.standard_normal((frames, dim))
    return lips, 0.8 * np.roll(lips, lag, 0) + 0.3 * random.standard_normal((frames, dim))


def test_golden_values():
    result = score(*features())
    assert result.offset == -3
    assert result.distance == pytest.approx(12.62418, rel=1e-5)
    assert result.confidence == pytest.approx(28.14069, rel=1e-5)


@pytest.mark.parametrize("valid_only", [False, True])
@pytest.mark.parametrize("early", range(-7, 8))
def test_sound_moved_by_k_frames_is_found_at_k(early: int, valid_only: bool):
    result = score(*features(lag=-early), valid_only=valid_only)
    assert result.offset == early


def test_zero_padding_as_published():
    """At shift s, |s| windows are compared with zeros: their distance is the length of the lips' vector."""
    lips, sound = features()
    distances = score(lips, sound).distances
    np.testing.assert_allclose(distances[:SHIFTS, 0], np.linalg.norm(lips[:SHIFTS] + 1e-6, axis=1), rtol=1e-6)
    np.testing.assert_allclose(distances[20, 12], np.linalg.norm(lips[20] - sound[17] + 1e-6), rtol=1e-6)


def test_valid_only_leaves_out_windows_without_a_partner():
    distances = score(*features(), valid_only=True).distances
    missing = np.isnan(distances).sum(0)
    assert missing.tolist() == [abs(shift) for shift in range(-SHIFTS, SHIFTS + 1)]


@pytest.mark.parametrize(
    "frames, samples, windows", [(100, 64000, 95), (100, 63999, 94), (90, 64000, 85), (5, 9999, 0)]
)
def test_one_window_fewer_than_would_fit(frames: int, samples: int, windows: int):
    assert window_count(frames, samples) == windows


def test_seconds_of_a_clip_whose_sync_breaks():
    distances = np.full((65, 31), 10.0, np.float32)
    distances[:, 15] = 4
    distances[25:50, 15] = 9
    assert SyncScore(distances).per_second().tolist() == [[4, 6], [9, 1], [4, 6]]
    assert SyncScore(distances[:60]).per_second().tolist() == [[4, 6], [9, 1]]
    assert len(SyncScore(distances[:10]).per_second()) == 1


def test_too_short_and_unequal():
    with pytest.raises(ValueError, match="15 windows.*more than 15.*longer"):
        score(*features(15))
    with pytest.raises(ValueError, match=r"\(60, 1024\) and \(59, 1024\)"):
        score(features()[0], features()[1][:59])
