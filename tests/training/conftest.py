"""A little data set that needs no files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.small_run import made_up_people, write_still
from training.batches import SourceBank
from training.clips import Clip, ClipSet


@pytest.fixture
def clip_set() -> ClipSet:
    """Three people, 12 frames each, smooth coloured pictures of 120 px; the third is for validation."""
    return made_up_people()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data folder with one still of somebody else."""
    write_still(tmp_path)
    return tmp_path


@pytest.fixture
def bank() -> SourceBank:
    """Two vectors a person, by two recognisers."""
    random = torch.Generator().manual_seed(0)
    vectors, second = (torch.nn.functional.normalize(torch.randn(6, n, generator=random), dim=1) for n in (512, 128))
    return SourceBank(vectors, ["p0", "p0", "p1", "p1", "p2", "p2"], second)


@pytest.fixture
def talking() -> ClipSet:
    """Three people of 60 frames whose brightness follows their sound."""
    random = np.random.default_rng(0)
    level = random.random(180).astype(np.float32)
    crops = np.broadcast_to((level * 255).astype(np.uint8)[:, None, None, None], (180, 120, 120, 3)).copy()
    windows = np.broadcast_to(level[:, None, None] * 8 - 4, (180, 80, 16)).astype(np.float32)
    clips = [Clip(f"c{i}", f"p{i}", "val" if i == 2 else "train", 60 * i, 60, False) for i in range(3)]
    return ClipSet(clips, crops, windows, random.standard_normal((180, 14)).astype(np.float32))
