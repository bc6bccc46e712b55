from __future__ import annotations

import csv

import numpy as np
import pytest
import torch
from scipy.io import wavfile

from models.speech import gate_mel, speech_activity


def bursts(seed: int = 0, floor: float = 0.0) -> tuple[torch.Tensor, np.ndarray]:
    """Half a second of sound, half a second of (nearly) none, four times; the truth per mel column."""
    random = np.random.default_rng(seed)
    on = (np.arange(64000) // 8000) % 2 == 0
    sound = random.standard_normal(64000) * (0.1 * on + floor)
    return torch.from_numpy(sound).float(), on[::200]


@pytest.mark.parametrize("floor", [0.0, 0.003])
def test_finds_bursts_and_leaves_pauses(floor):
    sound, truth = bursts(floor=floor)
    activity = speech_activity(sound).numpy()
    assert activity.shape == (321,)
    assert activity[:-1][truth].min() > 0.5
    middle = np.convolve(truth, np.ones(30), "same") == 0
    assert activity[:-1][middle].max() < 0.1


def test_no_sound_and_steady_noise_are_no_speech():
    assert speech_activity(torch.zeros(16000)).max() == 0
    assert speech_activity(torch.zeros(0)).tolist() == [0]
    assert speech_activity(torch.ones(1)).shape == (1,)
    noise = torch.from_numpy(np.random.default_rng(1).standard_normal(32000) * 0.05).float()
    assert speech_activity(noise).max() < 0.1


def test_does_not_depend_on_loudness():
    sound, _ = bursts(floor=0.01)
    assert (speech_activity(sound) - speech_activity(sound * 0.2)).abs().max() < 1e-4


def test_follows_a_voice_detector_on_real_speech(shared_data):
    found, expected = [], []
    for row in csv.DictReader((shared_data / "talking" / "manifest.csv").open(newline="")):
        samples = wavfile.read(shared_data / "talking" / row["wav"])[1]
        found.append(float(speech_activity(torch.from_numpy(samples.astype(np.float32) / 32768)).mean()))
        expected.append(float(row["speech_fraction"]))
    assert np.corrcoef(found, expected)[0, 1] > 0.85  # 0.95 measured against Silero VAD
    assert abs(np.mean(found) - np.mean(expected)) < 0.12


def test_gate_quiets_only_where_nobody_speaks():
    mel, activity = torch.ones(80, 4), torch.tensor([0.0, 0.5, 1.0, 1.0])
    gated = gate_mel(mel, activity, 1.0, -4.0)
    assert gated[0].tolist() == [-4, -1.5, 1, 1]
    assert torch.equal(gate_mel(mel, activity, 0.0, -4.0), mel)
