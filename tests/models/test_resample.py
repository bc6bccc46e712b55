from __future__ import annotations

import builtins

import numpy as np
import pytest
import torch

from models import audio, resample

RATES = [8000, 11025, 22050, 24000, 44100, 48000, 96000, 192000]


def speech_like(rate: int) -> torch.Tensor:
    t = np.arange(rate) / rate
    voice = sum(np.sin(2 * np.pi * 120 * k * t) / k for k in range(1, 25))
    return torch.from_numpy(0.1 * voice * (1 + np.sin(2 * np.pi * 4 * t))).float()


@pytest.fixture
def without_torchaudio(monkeypatch):
    """As on a machine whose torchaudio was built for another torch."""
    real = builtins.__import__

    def broken(name, *args, **kwargs):
        if name.startswith("torchaudio"):
            raise OSError("undefined symbol")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", broken)


@pytest.mark.parametrize("rate", RATES)
def test_both_back_ends_agree(rate, request):
    pytest.importorskip("torchaudio")
    sound = speech_like(rate)
    first = audio.mel_spectrogram(sound, rate)
    request.getfixturevalue("without_torchaudio")
    second = audio.mel_spectrogram(sound, rate)
    assert first.shape == second.shape == (80, 81)
    assert (first - second).abs().max() < 5e-3
    assert (first - second).abs().mean() < 1e-4


@pytest.mark.parametrize("rate", [24000, 44100, 48000])
def test_mel_hardly_depends_on_the_rate_it_came_in(rate):
    """A band-limited sound sampled at two rates gives one mel; borders differ by what lies outside the clip."""
    from_rate, direct = audio.mel_spectrogram(speech_like(rate), rate), audio.mel_spectrogram(speech_like(16000))
    assert (from_rate - direct)[:, 4:-4].abs().mean() < 0.02


@pytest.mark.parametrize("rate", RATES)
def test_length(rate):
    for samples in (1, 7, rate // 10):
        out = resample.resample(torch.zeros(samples), rate, 16000)
        assert len(out) == -(-samples * 16000 // rate)


@pytest.mark.parametrize("rate", [44099, 47999])
def test_rates_without_a_common_divisor(rate):
    """Their filter table in full would take gigabytes."""
    resource = pytest.importorskip("resource")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    sound = speech_like(rate)
    out = resample.resample(sound, rate, 16000)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB
    inner = slice(800, -800)
    assert (out - speech_like(16000))[inner].abs().max() < 5e-3


def test_integers_channels_and_batches():
    sound = (speech_like(16000) * 32767).to(torch.int16)
    expected = sound.float() / 32768
    assert torch.equal(resample.to_mono_16k(sound, 16000), expected)
    assert torch.equal(resample.to_mono_16k(sound.numpy()[None, None], 16000), expected)
    surround = torch.stack([expected] * 6)
    assert (resample.to_mono_16k(surround, 16000) - expected).abs().max() < 1e-6
    assert resample.to_float(torch.tensor([0, 128, 255], dtype=torch.uint8)).tolist() == [-1, 0, 127 / 128]
    assert resample.to_float(torch.tensor([-(2**31)], dtype=torch.int32)).tolist() == [-1]
    assert len(resample.to_mono_16k(torch.zeros(0), 44100)) == 0


def test_bad_sounds_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        resample.to_mono_16k(torch.tensor([float("inf")]), 16000)
    with pytest.raises(ValueError, match=r"\[2, 1, 5\]"):
        resample.to_mono_16k(torch.zeros(2, 1, 5), 16000)
    with pytest.raises(ValueError, match="positive"):
        resample.resample(torch.zeros(5), 0, 16000)


@pytest.mark.parametrize("rate, target", [(44100, 16000), (48000, 16000), (11025, 48000)])
def test_a_long_sound_in_blocks_is_the_same(rate, target, monkeypatch):
    sound = torch.randn(2, 100 * rate + 123)
    made = resample.resample(sound, rate, target)
    monkeypatch.setattr(resample, "PIECE_SECONDS", 1000)
    whole = resample.resample(sound, rate, target)
    assert made.shape == whole.shape
    assert (made - whole).abs().max() < 1e-5
