from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from models.mouth import mouth
from models.networks import build
from training.batches import Batches
from training.leak import leaks


@pytest.fixture
def batch(clip_set, bank):
    return Batches(clip_set, clip_set.clips, bank, 96, seed=0)(0, 6, 2)


def test_a_network_that_copies_the_reference_is_deaf(batch):
    numbers = leaks(lambda pairs, mel, vector: pairs[:, 3:], batch)
    assert numbers["audio"] == 0
    assert numbers["mask"] == 0
    assert numbers["reference"] > 5


def test_a_network_that_listens_is_told_from_the_size_of_the_change(batch):
    def listens(pairs, mel, vector):
        return pairs[:, 3:] * 0 + mel.mean((1, 2, 3))[:, None, None, None]

    sound = batch.mel.mean((1, 2, 3))
    numbers = leaks(listens, batch)
    assert numbers["audio"] == pytest.approx(255 * (sound.roll(3) - sound).abs().mean().item(), rel=1e-4)
    assert numbers["reference"] == 0


def test_the_mask_lets_nothing_through_and_a_broken_one_is_found(batch):
    network = build("wavsyncswap", width="small", skips="adain", blend=True).eval()
    assert leaks(network, batch)["mask"] == 0
    assert leaks(network, batch, mask=lambda target: target)["mask"] == 1

    def one_row_short(target):
        return torch.cat([target[:, :, :49], torch.zeros_like(target[:, :, 49:])], 2)

    assert leaks(network, batch, mask=one_row_short)["mask"] == 1


def test_only_the_mouth_counts_as_mouth():
    picture = torch.zeros(1, 3, 96, 96)
    picture[..., 60:80, 30:60] = 1
    assert mouth(picture).sum() == picture.sum()


def test_one_row_has_no_other_sound(batch):
    single = {name: value[:1] for name, value in vars(batch).items() if isinstance(value, torch.Tensor)}
    with pytest.raises(ValueError, match="larger batch"):
        leaks(lambda pairs, mel, vector: pairs[:, 3:], replace(batch, **single))
