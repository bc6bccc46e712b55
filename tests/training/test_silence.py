from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
import torch

from models.audio import mel_spectrogram, mel_windows
from models.speech import SILENT_DB, speech_activity
from training.clips import FPS, OPENING, Clip, ClipSet
from training.silence import mel_level, resting_frames, spoken_frames


def bursts(seconds: int = 8, floor: float = 1e-3) -> torch.Tensor:
    """Noise that is loud in every even second, 16 kHz."""
    time = torch.arange(seconds * 16000) // 16000
    noise = torch.randn(seconds * 16000, generator=torch.Generator().manual_seed(0))
    return noise * torch.where(time % 2 == 0, 0.1, floor)


@pytest.mark.parametrize("amplitude", [0.3, 0.01, 1e-3])
def test_level_of_a_mel_is_that_of_its_sound(amplitude):
    sound = amplitude * torch.randn(16000, generator=torch.Generator().manual_seed(1))
    level = mel_level(mel_spectrogram(sound))
    assert abs(level.mean().item() - 20 * np.log10(amplitude)) < 2


def test_digital_silence_is_below_what_counts_as_audible():
    assert mel_level(torch.full((80, 5), -4.0)).max() < SILENT_DB - 5


def test_frames_of_silence_are_those_of_the_waveform():
    sound = bursts()
    windows = mel_windows(mel_spectrogram(sound), 200, FPS, lag=-1)[:, 0].numpy()
    spoken = spoken_frames(windows)
    activity = speech_activity(sound)
    starts = np.clip(16 * (np.arange(200) - 1) // 5, 0, len(activity) - 16)
    expected = np.array([activity[start : start + 16].max() >= 0.05 for start in starts])
    assert (spoken == expected).mean() > 0.97
    assert not spoken[35:40].any()
    assert spoken[:20].all()


def test_rest_is_silence_with_closed_lips():
    windows = mel_windows(mel_spectrogram(bursts()), 200, FPS, lag=-1)[:, 0].numpy()
    lips = np.ones((200, 14), np.float32)
    lips[10:20, OPENING] = lips[36:40, OPENING] = 0  # once in speech, once in silence
    data = ClipSet([Clip("c", "p", "train", 0, 200, False)], np.zeros((200, 1, 1, 3), np.uint8), windows, lips)
    frames = resting_frames(data, data.clips[0])
    assert {36, 37, 38, 39} <= set(frames.tolist())
    assert not set(frames.tolist()) & set(range(22))


def test_real_recordings_agree_with_their_waveform(shared_data: Path):
    """What the waveform calls silent the mel does too; beyond that it finds what is loud below its 55 Hz only."""
    from scipy.io import wavfile

    both = quiet = found = 0
    with (shared_data / "talking" / "manifest.csv").open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["file"].startswith(("obama", "grid", "vr"))]
    for row in rows:
        rate, samples = wavfile.read(shared_data / "talking" / row["wav"])
        assert rate == 16000
        sound = torch.from_numpy(samples.astype(np.float32) / 32768)
        count = len(sound) // 640
        silent = ~spoken_frames(mel_windows(mel_spectrogram(sound), count, FPS, lag=-1)[:, 0].numpy())
        activity = speech_activity(sound)
        starts = np.clip(16 * (np.arange(count) - 1) // 5, 0, max(0, len(activity) - 16))
        direct = np.array([activity[start : start + 16].max() < 0.05 for start in starts])
        both, quiet, found = both + (direct & silent).sum(), quiet + direct.sum(), found + silent.sum()
    assert quiet > 100
    assert both > 0.95 * quiet
    assert both > 0.6 * found
