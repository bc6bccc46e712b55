from __future__ import annotations

import numpy as np
import pytest

from models.references import (
    CAPACITY,
    DISTANCE,
    LASTING,
    NEAREST,
    PREVIEWED,
    References,
    pose_thumbnail,
    preview_rows,
    references_within,
    shot_numbers,
)


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
    group = np.arange(NEAREST) * 4
    poses = np.repeat([*group, *(group + 200)], 6)
    rows, half, whole = chosen(np.concatenate([poses, poses])), 6 * NEAREST, 12 * NEAREST
    assert (rows[whole : whole + DISTANCE] < half).all()
    assert ((rows[whole + half : whole + half + DISTANCE] >= half) & (rows[whole + half :][:DISTANCE] < whole)).all()


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


def marked(count: int) -> np.ndarray:
    """Crops in one pose, in each of which one pixel of the lower half tells its number."""
    crops = np.full((count, 32, 32, 3), 90, np.uint8)
    crops[:, 16:] = 0
    crops[np.arange(count), 16 + np.arange(count) // 32, np.arange(count) % 32] = 255
    return crops


def shown_in(reference: np.ndarray) -> np.ndarray:
    """Numbers of the frames that went into a reference of `marked` crops."""
    return np.flatnonzero(reference[16:, :, 0].ravel())


def test_what_is_to_come_is_known_from_a_few_pictures_of_the_shot():
    shots = np.repeat([0, 1], [40, 30])
    references = references_within(marked(70), np.ones(70, bool), shots)
    for i, reference in enumerate(references):
        frames = shown_in(reference)
        assert len(frames) >= NEAREST  # from the first frame on
        assert (shots[frames] == shots[i]).all()
        assert (np.abs(frames - i) >= DISTANCE).all()


def test_frames_without_the_face_are_no_reference_and_have_none():
    crops, present = marked(60), np.ones(60, bool)
    present[10:30] = False
    references = references_within(crops, present, np.zeros(60, int))
    assert np.array_equal(references[~present], crops[~present])
    assert not any(np.isin(shown_in(reference), np.arange(10, 30)).any() for reference in references[present])
    nobody = references_within(crops, np.zeros(60, bool), np.zeros(60, int))
    assert np.array_equal(nobody, crops)


def test_a_preview_is_spread_over_the_shot():
    assert preview_rows(np.arange(7, 12)).tolist() == [7, 8, 9, 10, 11]
    rows = preview_rows(np.arange(1000))
    assert (len(rows), rows[0], rows[-1]) == (PREVIEWED, 0, 999)
    assert np.diff(rows).max() - np.diff(rows).min() <= 1


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
