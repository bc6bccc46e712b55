from __future__ import annotations

from dataclasses import replace

import av
import numpy as np
import pytest
import torch
from scipy.io import wavfile
from torch import nn

from models.frames import to_rgb_uint8
from models.identity import load_recogniser
from models.mouth import mouth_weights
from training.clips import ClipSet
from training.samples import MOST_FRAMES, OWN, SHOWN, HeldOut, excerpt


class Copy(nn.Module):
    """Draws the reference."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(1))

    def forward(self, crops: torch.Tensor, mel: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        return crops[:, 3:]


@pytest.fixture
def held_out(clip_set, tmp_path) -> HeldOut:
    """Two people held out; the first one's sound is there."""
    clip_set.clips[1] = replace(clip_set.clips[1], split="val")
    (tmp_path / "talking").mkdir()
    wavfile.write(tmp_path / "talking" / "c1.wav", 16000, np.zeros(12 * 640, np.int16))
    return HeldOut(clip_set, tmp_path, load_recogniser("builtin"), 96)


def test_the_number_is_the_weighted_error_of_own_identities(held_out):
    batch = held_out.batch
    error = ((batch.crops[:OWN, 3:] - batch.truth[:OWN]).abs() * mouth_weights(96)).mean().item()
    assert held_out.l1(Copy()) == pytest.approx(error)
    assert len(batch.truth) > OWN == len(batch.truth) - batch.swapped


def test_the_picture_has_five_columns_and_sources_are_who_they_should_be(held_out):
    grid = held_out.grid(Copy()).reshape(2 * SHOWN, 96, 5, 96, 3).swapaxes(1, 2)
    source, target, reference, generated, truth = grid.swapaxes(0, 1)
    assert np.array_equal(reference, generated)
    assert np.array_equal(target[:, :48], truth[:, :48])
    assert not target[:, 48:].any()
    clips = held_out.data.clips
    shown = {}
    for name, clip in enumerate(clips):
        pictures = held_out._plain(np.arange(clip.start, clip.start + clip.frames)).permute(0, 2, 3, 1)
        shown.update({to_rgb_uint8(picture).tobytes(): name for picture in pictures})
    who = [shown[np.ascontiguousarray(picture).tobytes()] for picture in source]
    drawn = np.random.default_rng([0, 0]).choice(2, len(held_out.batch.truth), p=[0.5, 0.5])
    assert who == [*drawn[:SHOWN], *(1 - drawn[OWN : OWN + SHOWN])]


def test_the_video_has_the_clips_length_and_its_sound(held_out, tmp_path):
    held_out.video(Copy(), tmp_path / "with.mp4")
    with av.open(str(tmp_path / "with.mp4")) as container:
        assert len(container.streams.audio) == 1
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert len(frames) == 12
    assert frames[0].shape == (96, 192, 3)
    held_out.sound = None
    held_out.video(Copy(), tmp_path / "without.mp4")
    with av.open(str(tmp_path / "without.mp4")) as container:
        assert not container.streams.audio


def test_an_excerpt_has_the_clips_first_frames(clip_set):
    part = excerpt(clip_set, [clip_set.clips[2], clip_set.clips[0]])
    assert [(clip.name, clip.start, clip.frames) for clip in part.clips] == [("c2", 0, 12), ("c0", 12, 12)]
    assert np.array_equal(part.crops[:12], clip_set.crops[24:])
    assert np.array_equal(part.windows[12:], clip_set.windows[:12])
    crops, windows, lips = (np.repeat(x, 4, 0) for x in (clip_set.crops, clip_set.windows, clip_set.lips))
    long = ClipSet([replace(clip_set.clips[0], frames=MOST_FRAMES + 9)], crops, windows, lips)
    assert len(excerpt(long, long.clips).crops) == MOST_FRAMES


def test_nobody_held_out_is_an_error(clip_set, tmp_path):
    clip_set.clips[2:] = []
    with pytest.raises(ValueError, match="no clip of the split val"):
        HeldOut(clip_set, tmp_path, load_recogniser("builtin"), 96)
