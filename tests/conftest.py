"""Fixtures that every test folder shares."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real clips and stills that live beside the checkout, never inside it; the test skips where they are absent."""
    folder = ROOT.parent / "shared" / "data"
    if not (folder / "README.md").is_file():
        pytest.skip("no real test material: ../shared/data is absent")
    return folder


@pytest.fixture(scope="session")
def astronaut() -> np.ndarray:
    """The public-domain NASA portrait that ships in scikit-image, uint8 [512, 512, 3] RGB; read-only."""
    image = pytest.importorskip("skimage.data").astronaut()
    image.setflags(write=False)
    return image
