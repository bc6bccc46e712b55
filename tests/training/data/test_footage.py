from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from models import audio
from tests.models.swapping import speech
from training.clips import FPS
from training.data.footage import frame_numbers
from training.data.items import Settings, find_items
from training.data.sound import REACH, sound_from, track_sound
from training.data.stages import prepare_item
from training.data.work import Work


@pytest.mark.parametrize(
    "fps", [Fraction(24000, 1001), Fraction(24), Fraction(25), Fraction(30000, 1001), Fraction(60)]
)
@pytest.mark.parametrize("start", [Fraction(0), Fraction(7, 3)])
def test_each_frame_is_the_nearest_in_time(fps, start):
    count, base = 200, 1 / fps
    numbers = frame_numbers(np.arange(2000), base, start, count)
    for i, number in enumerate(numbers.tolist()):
        off = abs(number / fps - (start + i / FPS))
        assert off <= min(abs((number + step) / fps - (start + i / FPS)) for step in (-1, 1))
    assert (np.diff(numbers) >= 0).all()


def test_variable_frame_rate_is_followed_by_time_stamps_and_not_by_numbers():
    """Ten frames at 10 fps, then ten at 50: after one second frame 10 stands at second 1."""
    times = np.concatenate([np.arange(10) * 100, 1000 + np.arange(10) * 20])
    numbers = frame_numbers(times, Fraction(1, 1000), Fraction(0), 29)
    assert numbers[24] == 10  # 0.96 s is nearer to 1.0 than to 0.9
    assert numbers[25] == 10
    assert numbers[26] == 12
    assert numbers[5] == 2  # 0.2 s


@pytest.mark.parametrize("first, frames", [(0, 40), (33, 60), (60, 65)])
def test_a_tracks_windows_are_those_of_the_whole_recording(first, frames):
    wave = torch.from_numpy(speech(5, 16000)[0][0])
    mel = audio.mel_spectrogram(wave)
    part = track_sound(wave, first, frames)
    kept = sound_from(
        {"mel": part.mel, "column": np.int64(part.column), "columns": np.int64(part.columns)}, first, frames
    )
    for lag in (-REACH, -1, 0, 5, REACH):
        whole = audio.mel_windows(mel, frames, FPS, lag, first)[:, 0].numpy()
        assert np.array_equal(kept.windows(lag), whole)


def test_thirty_frames_a_second_become_twenty_five_and_sound_keeps_its_length(videos, tmp_path):
    item = next(item for item in find_items(videos) if item.name == "below/b.mp4")
    prepare_item(item, tmp_path, Settings())
    work = Work(tmp_path / item.key)
    footage = work.arrays("footage.npz")
    assert work.result("probe")["fps"] == "30"
    assert len(footage["numbers"]) == 33
    assert len(footage["sound"]) == 33 * 640
    assert footage["numbers"].tolist() == [round(i * 6 / 5) if (i * 6) % 5 else i * 6 // 5 for i in range(33)]
