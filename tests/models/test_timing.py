from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from models.timing import LengthPlan, fit_audio, plan_length, read_planned, source_indices

RATES = [Fraction(24000, 1001), 24, 25, Fraction(30000, 1001), 30, 50, 60]
SECONDS = {"shorter": Fraction(3, 5), "longer": Fraction(23, 10)}


class Numbers:
    """A source whose frame i shows i, and that counts what is read."""

    def __init__(self) -> None:
        self.read_frames = 0

    def read(self, start: int, stop: int) -> np.ndarray:
        self.read_frames += stop - start
        return np.arange(start, stop, dtype=np.uint8)[:, None, None, None]


def indices(plan: LengthPlan) -> list[int]:
    return source_indices(plan, 0, plan.frames).tolist()


@pytest.mark.parametrize(
    "policy, shorter, longer",
    [("pad", 25, 25), ("cut", 15, 25), ("loop", 15, 58), ("bounce", 15, 58), ("hold", 15, 58)],
)
def test_frames_and_message_of_each_policy(policy, shorter, longer):
    for kind, expected in (("shorter", shorter), ("longer", longer)):
        plan = plan_length(25, Fraction(25), SECONDS[kind], policy)
        assert plan.frames == expected
        assert plan.audio_seconds == Fraction(expected, 25)
        assert policy in plan.message
        assert str(expected) in plan.message


def test_nothing_to_say_when_lengths_agree_or_there_is_no_sound():
    for seconds in (Fraction(1), Fraction(1) + Fraction(1, 60), None):
        plan = plan_length(25, Fraction(25), seconds, "loop")
        assert (plan.frames, plan.message) == (25, "")


def test_order_of_frames():
    fps, long = Fraction(10), Fraction(12, 10)
    assert indices(plan_length(5, fps, long, "loop")) == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 0, 1]
    assert indices(plan_length(5, fps, long, "bounce")) == [0, 1, 2, 3, 4, 3, 2, 1, 0, 1, 2, 3]
    assert indices(plan_length(5, fps, long, "hold")) == [0, 1, 2, 3, 4, 4, 4, 4, 4, 4, 4, 4]
    assert indices(plan_length(5, fps, long, "pad")) == [0, 1, 2, 3, 4]
    assert indices(plan_length(5, fps, Fraction(3, 10), "cut")) == [0, 1, 2]


@pytest.mark.parametrize("policy", ["loop", "bounce", "hold"])
def test_one_frame_can_be_prolonged(policy):
    assert indices(plan_length(1, Fraction(10), Fraction(1), policy)) == [0] * 10


@pytest.mark.parametrize("policy", ["pad", "cut", "loop", "bounce", "hold"])
@pytest.mark.parametrize("frames", [1, 2, 3, 7])
def test_planned_reading_equals_the_plan_and_reads_little(policy, frames):
    plan = plan_length(frames, Fraction(10), Fraction(3), policy)
    for size in (1, 4, 30):
        source = Numbers()
        parts = [read_planned(source.read, plan, i, min(i + size, plan.frames)) for i in range(0, plan.frames, size)]
        assert np.concatenate(parts).ravel().tolist() == indices(plan)
        assert source.read_frames <= plan.frames


@pytest.mark.parametrize("fps", RATES)
def test_sound_follows_the_frames_exactly(fps):
    fps = Fraction(fps)
    plan = plan_length(10**6, fps, Fraction(600), "cut")
    assert plan.frames == round(600 * fps)
    assert plan.audio_seconds * fps == plan.frames
    assert abs(float(plan.audio_seconds) - 600) <= 0.5 / float(fps)


def test_sound_is_padded_and_cut_to_the_sample():
    sound = np.arange(10, dtype=np.float32)[None] / 10
    assert fit_audio(sound, 10, Fraction(1)).tolist() == sound.tolist()
    assert fit_audio(sound, 10, Fraction(4, 10))[0].tolist() == sound[0, :4].tolist()
    longer = fit_audio(torch.from_numpy(sound[0]), 10, Fraction(13, 10))
    assert longer.shape == (1, 13)
    assert longer.dtype == np.float32
    assert not longer[0, 10:].any()
    assert fit_audio(np.zeros((2, 0)), 48000, Fraction(1001, 24000)).shape == (2, 2002)


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="pad, cut, loop"):
        plan_length(5, Fraction(25), None, "stretch")
    with pytest.raises(ValueError, match="0 frames"):
        plan_length(0, Fraction(25), None)
    with pytest.raises(ValueError, match="no samples"):
        plan_length(5, Fraction(25), Fraction(0))
