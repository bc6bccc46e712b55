from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.io import wavfile

from training.clips import Clip, ClipSet
from training.judge_sync import LATE, OTHER, RIGHT, SHIFTED, judge_sync, sounds, sync_table

FRAMES = 120


@pytest.fixture
def loud() -> ClipSet:
    """Two people whose mel columns are their loudness, which is new in every frame."""
    level = np.random.default_rng(0).random(FRAMES + 50).astype(np.float32)
    crops = np.zeros((len(level), 120, 120, 3), np.uint8)
    windows = np.broadcast_to(level[:, None, None], (len(level), 80, 16)).copy()
    clips = [Clip("one", "p1", "val", 0, FRAMES, False), Clip("two", "p2", "val", FRAMES, 50, False)]
    return ClipSet(clips, crops, windows, np.zeros((len(level), 14), np.float32))


class Follows:
    """Draws faces as bright as their sound is loud; a `deaf` one draws them all alike."""

    def __init__(self, deaf: bool = False) -> None:
        self.deaf = deaf

    def generate(self, crops, windows, identity, references):
        level = windows.mean((1, 2, 3)) * (0 if self.deaf else 1)
        return level[:, None, None, None].expand(crops.shape)


class Brightness:
    """A sync model that takes brightness for loudness."""

    name, side, geometry = "brightness", 96, "unit"

    def lips(self, faces):
        level = faces.astype(np.float32).mean((1, 2, 3)) / 255
        return np.lib.stride_tricks.sliding_window_view(level, 5).astype(np.float32)

    def sound(self, samples, windows):
        level = samples.unfold(0, 640, 640).abs().mean(1)
        return level.unfold(0, 5, 1)[:windows].numpy()


def heard(loud, folder, generator, clip=0):
    (folder / "talking").mkdir(exist_ok=True)
    for one in loud.clips:
        level = loud.windows[one.start : one.start + one.frames, 0, 0]
        wavfile.write(folder / "talking" / f"{one.name}.wav", 16000, np.repeat(level, 640).astype(np.float32))
    truth = torch.zeros(loud.clips[clip].frames, 3, 96, 96)
    faces = {"kept": None}
    return judge_sync(
        generator, loud, folder, loud.clips[clip], loud.clips[1 - clip], truth, truth, faces, Brightness()
    )


def test_sounds_are_the_clips_own_the_same_later_and_anothers_repeated(loud):
    made = sounds(loud, *loud.clips)
    assert {tuple(windows.shape) for windows in made.values()} == {(FRAMES, 1, 80, 16)}
    assert torch.equal(made[SHIFTED][LATE:], made[RIGHT][:-LATE])
    assert torch.equal(made[OTHER][50:100], made[OTHER][:50])
    assert made[OTHER][0, 0, 0, 0] == loud.windows[FRAMES, 0, 0]


def test_lips_that_follow_the_sound_are_nearest_to_it_and_deaf_ones_are_not(loud, tmp_path):
    found = heard(loud, tmp_path, Follows())
    assert found[f"kept: {RIGHT}"] < 0.05 < found[f"kept: {SHIFTED}"]
    assert found[f"kept: {RIGHT}"] < found[f"kept: {OTHER}"]
    deaf = heard(loud, tmp_path, Follows(deaf=True))
    assert deaf[f"kept: {RIGHT}"] == deaf[f"kept: {SHIFTED}"] == deaf[f"kept: {OTHER}"]
    assert "| kept: own sound 0.4 s late | " in "\n".join(sync_table({"one": deaf}, "brightness"))
    assert "| 0 of 1 |" in sync_table({"one": deaf}, "brightness")[-2]  # equal is no win
    assert "| 1 of 1 |" in sync_table({"one": found}, "brightness")[-2]


def test_a_clip_that_is_too_short_says_nothing(loud, tmp_path):
    assert heard(loud, tmp_path, Follows(), clip=1) == {}
    assert sync_table({"two": {}}, "brightness") == []
