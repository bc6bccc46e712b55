from __future__ import annotations

import io
import wave
from fractions import Fraction

import numpy as np
import pytest
import torch

from models import audio
from models.checkpoints import save_weights
from training.data.listening import LEAST_OTHERS, Spoken, least_correlation, offsets
from training.data.pictures import Strip, encode
from training.data.sound import REACH, cut_samples, packed_sound, samples_in_sync, track_sound, wav
from training.data.sync import LAGS, best_lag, lag_curve, load_expert


def spoken(video: str, frames: int, offset: int, seed: int, noise: float = 1.0) -> Spoken:
    """A track whose lips follow 14 of the things that are heard, `offset` frames before the sound shows it."""
    random = np.random.default_rng(seed)
    heard = random.standard_normal((frames + 2 * LAGS, 512))
    there = heard[LAGS + offset : LAGS + offset + frames]
    lips = there[:, :14] + noise * random.standard_normal((frames, 14))
    return Spoken(video, lambda: (heard.astype(np.float16), lips.astype(np.float32)))


def test_offsets_are_found_by_what_other_videos_teach():
    wanted = [0, 0, -1, 0, 1, 6, -4]
    found = offsets([spoken(f"v{i}", 700, offset, i) for i, offset in enumerate(wanted)])
    assert [offset for offset, _ in found] == wanted
    assert min(correlation for _, correlation in found) > least_correlation(700)


def test_foreign_sound_does_not_correlate():
    tracks = [spoken(f"v{i}", 700, 0, i) for i in range(4)]
    stranger = spoken("v4", 700, 0, 9, noise=1000.0)
    correlation = offsets([*tracks, stranger])[-1][1]
    assert correlation < least_correlation(700) == 0.2
    assert least_correlation(64) == 0.375


def test_without_enough_other_videos_nothing_is_claimed():
    assert offsets([spoken("a", 5000, 3, 0), spoken("b", LEAST_OTHERS - 1, 0, 1)])[0] is None
    assert offsets([spoken("a", 5000, 3, 0), spoken("a", 5000, 3, 1)]) == [
        None,
        None,
    ]  # one video teaches itself nothing


def test_the_expert_is_asked_at_every_lag(tmp_path):
    """Brightness of picture and loudness of sound say the same; the sound comes four frames late."""

    class Loud(torch.nn.Module):
        def embed_audio(self, mel):
            angle = (mel.mean((1, 2, 3)) + 4) / 8 * torch.pi / 2
            return torch.stack([angle.cos(), angle.sin()], 1)

        def embed_face(self, frames):
            angle = frames.mean((1, 2, 3)) * torch.pi / 2
            return torch.stack([angle.cos(), angle.sin()], 1)

    random = np.random.default_rng(0)
    level = np.repeat(random.random(20), 10)  # of 200 frames
    t = np.arange(200 * 640)
    late = np.roll(level, 4)[t // 640]
    sound = track_sound(torch.from_numpy((late**3 * random.standard_normal(len(t)) * 0.3).astype(np.float32)), 0, 200)
    # What the expert hears of each frame's own sound, four frames on, is what the pictures show.
    heard = (sound.windows(4).mean((1, 2)) + 4) / 8
    data = [encode(np.full((120, 120, 3), round(255 * value), np.uint8)) for value in heard]
    ends = np.cumsum([0, *map(len, data)]).tolist()
    (tmp_path / "s").write_bytes(b"".join(data))
    strip = Strip(tmp_path / "s", [(start, len(one)) for start, one in zip(ends, data, strict=False)])
    offset, contrast = best_lag(lag_curve(Loud(), strip, sound))
    assert 4 <= offset <= 6  # a window of five pictures is compared with the sound of its first
    assert contrast > 3


@pytest.mark.parametrize("first", [0, 25, 40])
def test_packed_sound_is_in_sync_whoever_reads_it(first):
    """The sound of a track at its offset, at the ends of a recording too: readers know no offset."""
    recording = torch.randn(100 * 640, generator=torch.Generator().manual_seed(0)) * 0.1
    whole = audio.mel_spectrogram(recording)
    sound = track_sound(recording, first, 50)
    for offset in (-10, -3, 0, 10):
        packed = packed_sound(sound.in_sync(offset).arrays(), 50)
        for lag in (-10, -1, 0, 4, 10):
            wanted = audio.mel_windows(whole, 50, Fraction(25), lag + offset, first)[:, 0].numpy()
            assert np.allclose(packed.windows(lag), wanted, atol=1e-5), (offset, lag)


@pytest.mark.parametrize(("first", "frames"), [(0, 50), (25, 50), (40, 60)])
def test_packed_samples_are_in_sync_too(first, frames):
    """Sample 640 i of the stored sound belongs to picture i; beyond the ends of the recording there is silence."""
    recording = np.arange(1, 100 * 640 + 1).astype(np.int16)
    around = cut_samples(recording, first - REACH, frames + 2 * REACH)
    for offset in (-10, -3, 0, 10):
        found = samples_in_sync(around, offset)
        places = (first + offset) * 640 + np.arange(frames * 640)
        inside = (places >= 0) & (places < len(recording))
        assert np.array_equal(found, np.where(inside, recording[places.clip(0, len(recording) - 1)], 0)), offset
    with wave.open(io.BytesIO(wav(found))) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16000, 1, 2)
        assert np.array_equal(np.frombuffer(file.readframes(-1), "<i2"), found)


def test_another_networks_file_is_no_expert(tmp_path):
    save_weights(tmp_path / "g.safetensors", {"a": torch.zeros(2)}, {"network": "wavsyncswap"})
    with pytest.raises(ValueError, match=r"no sync expert but wavsyncswap.*training export"):
        load_expert(tmp_path / "g.safetensors")
