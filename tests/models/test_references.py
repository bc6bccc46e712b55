from __future__ import annotations

import numpy as np
import pytest

from models.references import CAPACITY, DISTANCE, LASTING, References, pose_thumbnail, shot_numbers


def clip(levels) -> np.ndarray:
    """Crops with a bar of these grey levels in the upper half (the pose); the lower half is the frame's number."""
    crops = np.zeros((len(levels), 32, 32, 3), np.uint8)
    crops[:, :8] = np.asarray(levels, np.uint8)[:, None, None, None]
    crops[:, 16:] = np.arange(len(levels), dtype=np.uint8)[:, None, None, None]
    return crops


def chosen(levels, frames=None, shots=None) -> np.ndarray:
    """Mean numbers of the frames that make each reference."""
    count = len(levels)
    frames = np.arange(count) if frames is None else np.asarray(frames)
    shots = np.zeros(count, int) if shots is None else np.asarray(shots)
    return References().choose(clip(levels), frames, shots)[:, -1, 0, 0].astype(int)


def test_the_first_frames_are_their_own_reference_and_later_ones_lie_far_enough_back():
    rows = chosen(np.random.default_rng(0).integers(0, 256, 100))
    assert rows[:DISTANCE].tolist() == list(range(DISTANCE))
    assert all(row <= frame - DISTANCE for frame, row in enumerate(rows[DISTANCE:], DISTANCE))


def test_a_pose_that_returns_finds_its_earlier_pictures():
    poses = np.repeat([0, 4, 8, 12, 200, 204, 208, 212], 6)  # two groups of NEAREST poses
    rows = chosen(np.concatenate([poses, poses]))
    assert (rows[48 : 48 + DISTANCE] < 24).all()
    assert ((rows[72 : 72 + DISTANCE] >= 24) & (rows[72 : 72 + DISTANCE] < 48)).all()


def test_a_head_at_rest_is_shown_by_the_mean_of_its_last_pictures():
    """Noise in the pose makes no other pose; the mean of about LASTING frames follows slowly and without jumps."""
    noisy = 100 + np.random.default_rng(1).integers(-1, 2, 200)
    rows = chosen(noisy)[20:]
    behind = np.arange(20, 200) - rows
    assert (np.abs(behind - (DISTANCE + LASTING - 1)) <= 2).all()
    assert np.abs(np.diff(rows)).max() <= 2


def test_a_flickering_lamp_is_no_new_pose():
    light = np.random.default_rng(1).integers(0, 60, 200).astype(np.uint8)
    crops = clip([100] * 200)
    crops[:, :16] += light[:, None, None, None]
    references = References()
    references.choose(crops, np.arange(200), np.zeros(200, int))
    assert len(references._kept) == 1


def test_a_shot_never_sees_another_shot():
    shots = np.repeat([0, 1, 2], 20)
    rows = chosen([50] * 60, shots=shots)
    assert (shots[rows] == shots).all()
    assert rows[20:25].tolist() == [20, 21, 22, 23, 24]


@pytest.mark.parametrize("sizes", [[1] * 60, [7] * 9, [16, 3, 41]])
def test_chunks_make_no_difference(sizes):
    levels = np.random.default_rng(2).integers(0, 256, 63)[: sum(sizes)]
    crops, frames, shots = clip(levels), np.arange(len(levels)), np.repeat([0, 1], [30, len(levels) - 30])
    whole, parts, references = References().choose(crops, frames, shots), [], References()
    for start, size in zip(np.cumsum([0, *sizes]), sizes, strict=False):
        part = slice(start, start + size)
        parts.append(references.choose(crops[part], frames[part], shots[part]))
    assert np.array_equal(np.concatenate(parts), whole)


def test_a_still_and_a_loop_are_their_own_reference_or_a_distant_frame():
    assert chosen([10] * 50, frames=np.zeros(50, int)).tolist() == list(range(50))  # one picture: any copy is the same
    frames = np.arange(60) % 20
    crops = clip(np.tile(np.linspace(0, 250, 20), 3))
    crops[:, 16:] = 0
    crops[np.arange(60), 16 + np.arange(60) // 20, frames] = 255  # each frame marks a place of its own
    shown = References().choose(crops, frames, np.zeros(60, int))
    for i in range(60):
        marks = np.flatnonzero(shown[i, 16:19, :20, 0].max(0) > 0)
        assert marks.tolist() == [frames[i]] or (np.abs(marks - frames[i]) >= DISTANCE).all()


def test_memory_does_not_grow():
    references = References()
    levels = np.random.default_rng(3).integers(0, 256, 2000)
    references.choose(np.repeat(clip(levels[:100]), 20, 0), np.arange(2000), np.zeros(2000, int))
    assert len(references._kept) <= CAPACITY
    assert len(references._waiting) <= 2 * DISTANCE
    still = References()
    still.choose(clip([5] * 100), np.zeros(100, int), np.zeros(100, int))
    assert len(still._waiting) == 1


def test_the_pose_ignores_the_mouth():
    crops = clip([70, 70])
    assert np.array_equal(pose_thumbnail(crops[0]), pose_thumbnail(crops[1]))
    assert pose_thumbnail(crops[0]).shape == (72,)


def test_shot_numbers():
    assert shot_numbers((), np.arange(3)).tolist() == [0, 0, 0]
    assert shot_numbers((2, 5), np.array([0, 1, 2, 4, 5, 1])).tolist() == [0, 0, 1, 1, 2, 0]
