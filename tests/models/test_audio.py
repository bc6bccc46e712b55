from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from models import audio

RATES = [Fraction(24000, 1001), 24, 25, Fraction(30000, 1001), 30, 50, 60]


def noise(seed: int, samples: int, scale: float = 0.1) -> np.ndarray:
    return scale * np.random.RandomState(seed).standard_normal(samples)


def reference_mel(x: np.ndarray) -> np.ndarray:
    """Second implementation, in numpy, straight from the definition (spec 1.1)."""
    x = np.append(x[0], x[1:] - 0.97 * x[:-1])
    padded = np.pad(x, 400, mode="reflect")
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(800) / 800)
    columns = [np.abs(np.fft.rfft(padded[i * 200 : i * 200 + 800] * window)) for i in range(1 + len(x) // 200)]

    def mel_of(hz):
        return hz * 3 / 200 if hz < 1000 else 15 + 27 * np.log(hz / 1000) / np.log(6.4)

    def hz_of(mel):
        return mel * 200 / 3 if mel < 15 else 1000 * 6.4 ** ((mel - 15) / 27)

    edges = [hz_of(m) for m in np.linspace(mel_of(55.0), mel_of(7600.0), 82)]
    bank = np.zeros((80, 401))
    for band in range(80):
        low, mid, high = edges[band : band + 3]
        for k in range(401):
            hz = 20.0 * k
            bank[band, k] = max(0, min((hz - low) / (mid - low), (high - hz) / (high - mid))) * 2 / (high - low)
    level = 20 * np.log10(np.maximum(1e-5, bank.astype(np.float32).astype(np.float64) @ np.array(columns).T)) - 20
    return np.clip(8 * (level + 100) / 100 - 4, -4, 4)


def test_golden_values_of_the_specification():
    mel = audio.mel_spectrogram(torch.from_numpy(noise(11, 16000).astype(np.float32)), 16000)
    assert mel.shape == (80, 81)
    assert mel.dtype == torch.float32
    found = [mel.mean(), mel.std(unbiased=False), mel[0, 0], mel[40, 40], mel[79, 80], mel[10, 0]]
    expected = [0.183218, 0.701925, -0.699969, 0.327803, 1.016951, 0.001163]
    assert np.allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("kind", ["noise", "gated", "chirp", "tone"])
def test_agrees_with_a_second_implementation(kind):
    t = np.arange(16000) / 16000
    signal = {
        "noise": noise(1, 16000),
        "gated": noise(2, 16000) * (np.sin(6 * np.pi * t) > 0),
        "chirp": np.sin(2 * np.pi * (50 * t + 3900 * t**2)),
        "tone": 0.5 * np.sin(2 * np.pi * 440 * t),
    }[kind]
    mel = audio.mel_spectrogram(torch.from_numpy(signal), 16000)
    assert np.abs(mel.numpy() - reference_mel(signal)).max() < 1e-6


def test_filter_bank_agrees_with_torchaudio():
    functional = pytest.importorskip("torchaudio.functional")
    bank = functional.melscale_fbanks(401, 55.0, 7600.0, 80, 16000, "slaney", "slaney").T
    assert (audio.slaney_filter_bank() - bank).abs().max() < 1e-6


def test_long_sounds_are_computed_in_blocks_without_a_seam(monkeypatch):
    sound = torch.from_numpy(noise(12, 50_000)).float()
    whole = audio.mel_spectrogram(sound)
    monkeypatch.setattr(audio, "BLOCK_COLUMNS", 37)
    assert torch.equal(audio.mel_spectrogram(sound), whole)


@pytest.mark.parametrize("samples", [0, 1, 2, 199, 200, 400, 401, 3199, 3200])
def test_length_rule_and_short_sounds(samples):
    mel = audio.mel_spectrogram(torch.from_numpy(noise(3, samples)).float(), 16000)
    assert mel.shape == (80, 1 + samples // 200)
    assert torch.isfinite(mel).all()


def test_digital_silence_is_exactly_the_floor():
    assert (audio.mel_spectrogram(torch.zeros(16000)) == -4).all()


def test_bad_waveforms_are_refused():
    with pytest.raises(ValueError, match="NaN"):
        audio.mel_spectrogram(torch.tensor([0.0, float("nan")]))
    with pytest.raises(ValueError, match="mono"):
        audio.mel_spectrogram(torch.zeros(2, 100))


@pytest.mark.parametrize("fps", RATES)
def test_windows_start_within_one_column_of_the_frame_for_ten_minutes(fps):
    fps = Fraction(fps)
    frames = int(600 * fps)
    starts = audio.window_starts(frames, fps, 10**9)
    index = np.arange(frames)
    exact = index * 80 * fps.denominator // fps.numerator
    assert np.array_equal(starts.numpy(), exact)
    late = index / float(fps) - starts.numpy() / 80
    assert late.min() > -1e-9
    assert late.max() < 1 / 80
    assert torch.equal(audio.window_starts(5, fps, 10**9, first=frames - 5), starts[-5:])


def test_windows_do_not_wrap_in_a_ten_hour_clip():
    last = 36_000 * 60 - 1
    assert audio.window_starts(1, Fraction(60), 10**9, first=last).item() == last * 80 // 60


def test_windows_at_the_edges_stay_inside():
    mel = torch.arange(30).float().expand(80, 30)
    windows = audio.mel_windows(mel, 100, Fraction(25), lag=-1)
    assert windows.shape == (100, 1, 80, 16)
    assert windows[0, 0, 0, 0] == 0
    assert windows[-1, 0, 0, 0] == 14
    assert (audio.mel_windows(mel[:, :3], 2, Fraction(25))[:, 0, 0, 3:] == -4).all()


@pytest.mark.parametrize("fps", RATES)
def test_driving_windows_count_and_silence_after_the_end(fps):
    mel = audio.load_mel(noise(4, 16000), 16000)
    windows = audio.driving_windows(mel, 200, Fraction(fps))
    assert windows.shape == (200, 1, 80, 16)
    assert (windows[-1] == -4).all()
    chunked = torch.cat([audio.driving_windows(mel, 50, Fraction(fps), first=k) for k in range(0, 200, 50)])
    assert torch.equal(windows, chunked)


def test_open_ended_windows_equal_those_of_a_mel_with_silence_behind():
    mel = torch.randn(80, 90)
    longer = torch.nn.functional.pad(mel, (0, 1000), value=-4.0)
    for fps, lag, first in ((Fraction(25), -1, 0), (Fraction(30000, 1001), 0, 20), (Fraction(25), 0, 100)):
        expected = audio.mel_windows(longer, 30, fps, lag, first)
        assert torch.equal(audio.open_ended_windows(mel, 30, fps, lag, first), expected)
    assert audio.open_ended_windows(mel, 0, Fraction(25)).shape == (0, 1, 80, 16)


def test_offset_moves_the_lips_later_and_earlier():
    mel = audio.load_mel(noise(5, 32000), 16000)
    base = audio.driving_windows(mel, 25, Fraction(25))
    assert torch.equal(audio.driving_windows(mel, 25, Fraction(25), offset=0.2)[5:20], base[:15])
    assert torch.equal(audio.driving_windows(mel, 25, Fraction(25), offset=-0.2)[:15], base[5:20])


def test_mel_keeps_the_original_sound_and_its_exact_length():
    stereo = np.stack([noise(6, 44100), noise(7, 44100)])
    mel = audio.load_mel(stereo[None], 44100)
    assert mel.waveform.shape == (2, 44100)
    assert mel.duration == 1
    assert mel.values.shape == (81, 80)
    assert mel.activity.shape == (81,)
    assert audio.silent_mel(Fraction(1, 3)).duration == Fraction(5333, 16000)


@pytest.mark.parametrize("offset", [-1.5, -2.0, -5.0])
def test_sound_moved_past_its_end_is_silence(offset):
    mel = audio.load_mel(noise(3, 16000), 16000)
    windows = audio.driving_windows(mel, 25, Fraction(25), speech_gate=1.0, offset=offset)
    assert windows.shape == (25, 1, 80, 16)
    assert (windows == audio.MEL_SILENCE).all()
    moved = audio.driving_windows(mel, 25, Fraction(25), offset=-0.5)
    torch.testing.assert_close(moved[0, 0], mel.values[40:56].T)


def test_a_long_sound_tells_how_far_it_is_and_can_be_stopped():
    sound, told = noise(5, 30 * 32000), []
    plain = audio.load_mel(sound, 32000)
    watched = audio.load_mel(sound, 32000, told.append)
    assert torch.equal(plain.values, watched.values)
    assert told == sorted(told)
    assert (told[0], told[-1]) == (0, 1)
    assert len([share for share in told if 0 < share < 1]) > 3

    class Cancelled(Exception):
        pass

    for moment in (told[0], told[len(told) // 2]):

        def stop(share, moment=moment):
            if share >= moment:
                raise Cancelled

        with pytest.raises(Cancelled):
            audio.load_mel(sound, 32000, stop)
