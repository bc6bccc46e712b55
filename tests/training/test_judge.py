from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from training.judge import (
    judge,
    judge_reconstruction,
    lip_correlation,
    mean_training_face,
    mouth_scores,
    unit_crops,
)
from training.lip_reader import LipReader


class Brightness(LipReader):
    """Reads the brightness of the mouth as every number."""

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        return crops[:, :, 48:].mean((1, 2, 3))[:, None].expand(-1, 14)


def test_mouth_scores_against_known_numbers():
    truth = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0)) * 0.5
    psnr, ssim = mouth_scores(truth + 0.1, truth)
    assert abs(psnr - 20) < 1e-3  # a constant error of 0.1 is -20 log10(0.1) dB
    assert ssim < 1
    assert mouth_scores(truth, truth)[1] == 1


def test_lip_correlation_is_one_for_the_truth_and_minus_one_for_its_opposite(clip_set):
    clip = clip_set.clips[0]
    pictures = torch.from_numpy(clip_set.lips[:12, 12])[:, None, None, None].expand(12, 3, 96, 96)
    assert lip_correlation(Brightness(), pictures, clip_set, clip) > 0.999
    assert lip_correlation(Brightness(), -pictures, clip_set, clip) < -0.999
    assert np.isnan(lip_correlation(Brightness(), pictures * 0, clip_set, clip))
    assert np.isnan(lip_correlation(None, pictures, clip_set, clip))


def test_the_mean_training_face_never_sees_the_validation_people(clip_set):
    other = clip_set.crops.copy()
    other[24:] = 0
    changed = type(clip_set)(clip_set.clips, other, clip_set.windows, clip_set.lips)
    assert torch.equal(mean_training_face(clip_set), mean_training_face(changed))
    assert unit_crops(clip_set, clip_set.clips[0]).shape == (12, 3, 96, 96)


def with_split(data, split):
    return replace(data, clips=[replace(clip, split=split) for clip in data.clips])


def test_nobody_held_out_is_one_error(clip_set, tmp_path):
    with pytest.raises(ValueError, match=r"Nobody is held out: none of 3 clips has the split val"):
        judge(None, with_split(clip_set, "train"), tmp_path, {})


def test_without_training_clips_their_mean_is_left_out(clip_set):
    data = with_split(clip_set, "val")
    assert mean_training_face(data) is None
    clip, generator = data.clips[0], Copier()
    scores = judge_reconstruction(generator, data, clip, None, None, None)
    assert "mean frame of the clip PSNR" in scores
    assert not [name for name in scores if "training" in name]


class Copier:
    """A generator that gives the truth."""

    keeps_identity, takes_identity = True, False

    def generate(self, truth, windows, identity, references):
        return truth
