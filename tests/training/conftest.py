"""A little data set that needs no files."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.training.small_run import made_up_people, write_still
from training.batches import SourceBank
from training.clips import ClipSet


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
