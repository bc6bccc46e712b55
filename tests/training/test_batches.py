from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from models import geometry
from models.networks.wavsyncswap import mask_lower_half
from models.references import DISTANCE
from training.batches import (
    Batches,
    aligned_faces,
    arcface_matrix,
    colour_change,
    pose_thumbnails,
    recolour,
    window_rows,
)
from training.clips import MARGIN
from training.losses import recoloured


def test_a_batch_depends_on_seed_and_step_only(clip_set, bank):
    draw = Batches(clip_set, clip_set.clips, bank, 96, seed=3)
    draw(0, 8, 3)
    again = Batches(clip_set, clip_set.clips, bank, 96, seed=3)(7, 8, 3)
    assert torch.equal(draw(7, 8, 3).crops, again.crops)
    assert not torch.equal(draw(8, 8, 3).crops, again.crops)


def test_swapped_rows_carry_another_identity_and_the_others_their_own(clip_set, bank):
    batch = Batches(clip_set, clip_set.clips[:1], bank, 96, seed=0)(0, 16, 6)
    own = [any(torch.equal(row, vector) for vector in bank.vectors[:2]) for row in batch.source]
    assert own == [True] * 10 + [False] * 6


def test_kept_rows_are_given_no_identity_and_change_nothing_else(clip_set, bank):
    draw = Batches(clip_set, clip_set.clips, bank, 96, seed=0)
    batch, without = draw(0, 16, 6, 4), draw(0, 16, 6)
    assert batch.given[:4].abs().max() == 0
    assert torch.equal(batch.given[4:], batch.source[4:])
    assert torch.equal(without.given, without.source)
    assert torch.equal(batch.source, without.source)
    assert torch.equal(batch.crops, without.crops)


def test_colour_changes_tint_grey_and_the_identity_changes_nothing():
    matrix, shift = colour_change(np.random.default_rng(0), 500)
    grey = torch.full((500, 3, 1, 1), 0.5)
    tint = recolour(grey, matrix, shift * 0).flatten(1) / 0.5
    assert torch.allclose(tint, matrix.sum(2), atol=1e-6)
    assert 0.1 < tint.log().mean(1).std() < 0.2  # brightness
    pictures = torch.rand(500, 3, 2, 2)
    assert torch.allclose(recolour(pictures, torch.eye(3).expand(500, 3, 3), shift * 0), pictures, atol=1e-6)


def test_target_has_no_mouth_and_reference_is_another_frame(clip_set, bank):
    batch = Batches(clip_set, clip_set.clips, bank, 96, seed=0)(0, 16, 6)
    assert batch.crops[:, :3, 48:].abs().max() == 0
    assert torch.equal(batch.crops[:, :3], mask_lower_half(batch.truth))
    assert ((batch.crops[:, 3:] - batch.truth).abs().mean((1, 2, 3)) > 0.01).all()
    assert 0 <= batch.truth.min()
    assert batch.truth.max() <= 1


def test_second_vectors_are_of_the_same_pictures(clip_set, bank):
    batch = Batches(clip_set, clip_set.clips, bank, 96, seed=0)(0, 16, 6)
    for vector, second in zip(batch.source, batch.second, strict=True):
        assert torch.equal(bank.second[(bank.vectors == vector).all(1)][0], second)


def test_references_keep_their_distance_and_many_candidates_bring_the_pose_nearer(clip_set, bank):
    draw = Batches(clip_set, clip_set.clips, bank, 96, seed=0)
    clip, random = clip_set.clips[1], np.random.default_rng(0)
    drawn = [draw._reference_rows(clip, 6, random) - clip.start for _ in range(200)]
    assert {len(rows) for rows in drawn} == {1, 4, 16}
    rows = np.concatenate(drawn)
    assert ((np.abs(rows - 6) >= DISTANCE) & (0 <= rows) & (rows < clip.frames)).all()
    distance = np.abs(draw.poses[clip.start : clip.start + clip.frames] - draw.poses[clip.start + 6]).mean(1)
    far = np.flatnonzero(np.abs(np.arange(clip.frames) - 6) >= DISTANCE)
    assert distance[rows].mean() < distance[far].mean()


def test_the_reference_is_the_mean_of_its_frames(clip_set, bank):
    still = type(clip_set)(clip_set.clips, clip_set.crops.copy(), clip_set.windows, clip_set.lips)
    for clip in still.clips:
        still.crops[clip.start : clip.start + clip.frames] = still.crops[clip.start]
    batch = Batches(still, still.clips, bank, 96, seed=0)(0, 16, 6)
    assert torch.equal(batch.crops[:, 3:], batch.truth)


def test_poses_see_the_upper_half_only(clip_set):
    changed = clip_set.crops.copy()
    changed[:, 60:] = 0
    other = type(clip_set)(clip_set.clips, changed, clip_set.windows, clip_set.lips)
    assert np.array_equal(pose_thumbnails(clip_set), pose_thumbnails(other))


def test_arcface_alignment_undoes_the_augmentation():
    """A marked point of the canonical face lands on its ArcFace place, however the crop was shifted and turned."""
    u, v = geometry.CROP_TEMPLATE[2] * 2 - 1  # nose tip, normalised
    mapped = np.linalg.inv(arcface_matrix()) @ (u, v, 1)
    assert np.allclose((mapped[:2] + 1) * 56, geometry.ARCFACE_TEMPLATE[2], atol=1e-6)


def test_aligned_faces_are_the_same_with_and_without_jitter(clip_set, bank):
    smooth = np.linspace(0, 255, 120)[None, :, None, None] * np.ones((36, 1, 120, 3))
    smooth = (smooth + smooth.transpose(0, 2, 1, 3)) / 2
    data = type(clip_set)(clip_set.clips, smooth.astype(np.uint8), clip_set.windows, clip_set.lips)
    batch = Batches(data, data.clips, bank, 96, seed=1)(0, 4, 0)
    theta = torch.from_numpy(arcface_matrix()[:2] / (1 + 2 * MARGIN)).float().expand(4, 2, 3)
    direct = aligned_faces(torch.from_numpy(data.crops[:4]).permute(0, 3, 1, 2).float() / 255, theta)
    aligned = aligned_faces(batch.truth, batch.to_arcface)
    inner = (slice(None), slice(None), slice(45, 85), slice(30, 80))
    slope = torch.diff(aligned[inner], dim=2).mean((1, 2, 3)) / torch.diff(direct[inner], dim=2).mean((1, 2, 3))
    gain = torch.diff(aligned[inner], dim=3).mean((1, 2, 3)) / torch.diff(direct[inner], dim=3).mean((1, 2, 3))
    assert torch.allclose(slope, gain, rtol=0.05)  # colour gain may differ, direction and scale may not


def test_dealt_rows_are_those_of_the_whole_batch_kind_by_kind(clip_set, bank):
    batches = Batches(clip_set, clip_set.of("train"), bank, 96, 0)
    whole = batches(3, 12, 4, 3)
    for index in range(2):
        drawn, cut = batches(3, 12, 4, 3, (index, 2)), whole.part(index, 2)
        for name in ("crops", "mel", "truth", "source", "to_arcface", "second"):
            assert torch.equal(getattr(drawn, name), getattr(whole, name)[index::2]), name
            assert torch.equal(getattr(cut, name), getattr(whole, name)[index::2]), name
        assert (
            (drawn.swapped, drawn.kept, drawn.dealt) == (cut.swapped, cut.kept, cut.dealt) == (2, 2 - index, (index, 2))
        )
        assert torch.equal(drawn.given, whole.given[index::2])
    again = whole.part(1, 2).part(1, 3)
    assert again.dealt == (3, 6)
    assert torch.equal(again.truth, whole.truth[3::6])


def test_a_dealt_face_gets_the_colour_of_the_whole_batch():
    faces = torch.rand(6, 3, 112, 112)
    assert torch.equal(recoloured(faces[1::3], 5, (1, 3)), recoloured(faces, 5)[1::3])


def test_every_kind_of_rows_begins_with_its_windows():
    rows = window_rows(size=32, swapped=12, kept=10, windows=2)
    assert rows.shape == (6, 5)
    assert rows[0].tolist() == [0, 2, 4, 6, 8]  # time-major: the first frames of both windows, then the second ones
    assert rows[1].tolist() == [1, 3, 5, 7, 9]
    assert rows.min(1).tolist() == [0, 1, 10, 11, 20, 21]
    assert len(np.unique(rows)) == rows.size
    assert window_rows(8, 3, 0, 1).tolist() == [[0, 1, 2, 3, 4], [5, 6, 7, 8, 9]]
    assert window_rows(8, 3, 2, 0).shape == (0, 5)


def test_dealing_rows_out_in_turns_leaves_windows_whole(clip_set, bank):
    """Row r goes to process r % n: each gets every n-th window, in the layout of its smaller batch."""
    whole, part = window_rows(32, 12, 10, 2), window_rows(16, 6, 5, 1)
    for process in range(2):
        own = whole[(whole % 2 == process).all(1)]
        assert np.array_equal(own // 2, part)
    batches = Batches(clip_set, clip_set.clips, bank, 96, 0)
    batch = batches(1, 32, 12, 10, windows=2, silent=0.5)
    for index in range(2):
        drawn, cut = batches(1, 32, 12, 10, (index, 2), windows=2, silent=0.5), batch.part(index, 2)
        assert drawn.windows == cut.windows == 1
        assert torch.equal(drawn.mel, cut.mel)
        assert torch.equal(drawn.truth, cut.truth)
        assert torch.equal(drawn.truth[drawn.window_rows], batch.truth[batch.window_rows[index::2]])


def test_windows_are_consecutive_frames_of_one_clip_alike_in_all_but_the_reference(clip_set, bank):
    numbered = clip_set.windows.copy()
    numbered[:, 0, 0] = np.arange(36) / 100
    data = type(clip_set)(clip_set.clips, clip_set.crops, numbered, clip_set.lips)
    batch = Batches(data, data.clips, bank, 96, seed=0)(3, 22, 8, 6, windows=1)
    frames = (batch.mel[:, 0, 0, 0] * 100).round().long()
    assert batch.window_rows.shape == (3, 5)
    for rows in batch.window_rows:
        assert torch.equal(frames[rows], frames[rows[0]] + torch.arange(5))
        assert len({int(frame) // 12 for frame in frames[rows]}) == 1
        assert (batch.source[rows] == batch.source[rows[0]]).all()
        assert (batch.to_arcface[rows] == batch.to_arcface[rows[0]]).all()
        truth, reference = batch.truth[rows], batch.crops[rows, 3:]
        assert (truth[:, None] - reference[None]).abs().mean((2, 3, 4)).min() > 0.01  # no frame is shared (spec A11)
    assert len({tuple(vector.tolist()) for vector in batch.to_arcface.flatten(1)}) == 22 - 3 * 4
    own = [any(torch.equal(row, vector) for vector in bank.vectors[2 * p : 2 * p + 2]) for row, p in
           zip(batch.source, (frames // 12).tolist(), strict=True)]  # fmt: skip
    assert own == [True] * 14 + [False] * 8


def resting(clip_set):
    """The clip set with a silent stretch of closed lips in frames 4 to 6 of the second clip."""
    lips, windows = np.abs(clip_set.lips) + 1, clip_set.windows.copy()
    windows[16:19], lips[16:19] = -3.9, 0
    return type(clip_set)(clip_set.clips, clip_set.crops, windows, lips)


def test_silent_rows_come_from_resting_frames_and_are_quiet(clip_set, bank, monkeypatch):
    data = resting(clip_set)
    monkeypatch.setattr(
        "training.batches.resting_frames",
        lambda data, clip: np.array([4, 5, 6]) if clip.name == "c1" else np.array([], int),
    )
    draw = Batches(data, data.clips, bank, 96, seed=0)
    plain, batch = draw(2, 40, 10, windows=1), draw(2, 40, 10, windows=1, silent=0.5)
    quiet = batch.mel.amax((1, 2, 3)) <= -3.89
    assert 10 <= quiet.sum() <= 25
    assert not quiet[batch.window_rows].any()
    assert 0.2 < (batch.mel[quiet].amax((1, 2, 3)) == -4).float().mean() < 0.8  # digital silence, and less than that
    assert torch.equal(batch.mel[0], plain.mel[0])
    vectors = batch.source[:30][quiet[:30]]  # rows with their own identity: they are the second person's
    assert all(any(torch.equal(row, vector) for vector in bank.vectors[2:4]) for row in vectors)


def test_data_without_silence_is_told_once_and_changes_nothing(clip_set, bank, caplog, monkeypatch):
    monkeypatch.setattr("training.batches.resting_frames", lambda data, clip: np.array([], int))
    draw = Batches(clip_set, clip_set.clips, bank, 96, seed=0)
    assert torch.equal(draw(1, 8, 2, silent=0.5).truth, draw(1, 8, 2).truth)
    draw(2, 8, 2, silent=0.5)
    assert caplog.text.count("schedule.silent has no effect") == 1


def test_altered_sounds_are_heard_by_single_rows_and_change_nothing_else(clip_set, bank):
    random = np.random.default_rng(0)
    data = replace(clip_set, windows=random.uniform(-3, 3, clip_set.windows.shape).astype(np.float32))
    draw = Batches(data, data.clips, bank, 96, seed=0)
    plain, altered = (draw(3, 22, 8, 6, windows=1, altered=share) for share in (0.0, 1.0))
    rows = window_rows(22, 8, 6, 1).ravel()
    single = np.setdiff1d(np.arange(22), rows)
    assert torch.equal(altered.mel[rows], plain.mel[rows])
    assert (altered.mel[single] != plain.mel[single]).flatten(1).any(1).all()
    for name in ("crops", "truth", "source", "to_arcface"):
        assert torch.equal(getattr(altered, name), getattr(plain, name))
    half = draw(3, 22, 8, 6, part=(1, 2), altered=1.0)
    assert torch.equal(half.mel, draw(3, 22, 8, 6, altered=1.0).part(1, 2).mel)
