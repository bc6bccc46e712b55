"""CIELAB in torch against OpenCV's and kornia's."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from models.lab import to_lab, to_rgb

DARK_TO_BRIGHT = [(0.02, 0.03), (0.5, 0.05), (0.5, 0.5), (0.97, 0.1)]  # mean and spread


def colours(mean: float, spread: float) -> torch.Tensor:
    """[1, 3, 64, 64], with black and white."""
    picture = np.random.default_rng(0).normal(mean, spread, (1, 3, 64, 64)).clip(0, 1)
    picture[..., 0, 0], picture[..., 0, 1] = 0, 1
    return torch.from_numpy(np.float32(picture))


@pytest.mark.parametrize("mean, spread", DARK_TO_BRIGHT)
def test_equals_kornias(mean, spread):
    kornia = pytest.importorskip("kornia.color")
    picture = colours(mean, spread)
    lab = to_lab(picture)
    torch.testing.assert_close(lab, kornia.rgb_to_lab(picture), atol=0.02, rtol=0)  # a white of other digits
    moved = lab + torch.tensor([5.0, 4.0, -6.0])[:, None, None]
    torch.testing.assert_close(to_rgb(moved), kornia.lab_to_rgb(moved), atol=5e-4, rtol=0)


@pytest.mark.parametrize("mean, spread", DARK_TO_BRIGHT)
def test_equals_opencvs(mean, spread):
    cv2 = pytest.importorskip("cv2")
    picture = colours(mean, spread)
    lab = to_lab(picture)
    theirs = cv2.cvtColor(picture[0].permute(1, 2, 0).numpy(), cv2.COLOR_RGB2Lab)
    np.testing.assert_allclose(lab[0].permute(1, 2, 0), theirs, atol=0.6)  # of 100 and more: it looks it up in a table
    for shift in ((5, 4, -6), (0, -30, 40), (-20, 60, 0)):  # far beyond what RGB can show
        moved = lab + torch.tensor(shift)[:, None, None]
        back = cv2.cvtColor(moved[0].permute(1, 2, 0).numpy(), cv2.COLOR_Lab2RGB).clip(0, 1)
        np.testing.assert_allclose(to_rgb(moved)[0].permute(1, 2, 0), back, atol=1e-3)


@pytest.mark.parametrize("mean, spread", DARK_TO_BRIGHT)
def test_there_and_back(mean, spread):
    picture = colours(mean, spread)
    torch.testing.assert_close(to_rgb(to_lab(picture)), picture, atol=1e-5, rtol=0)


def test_black_and_white():
    lab = to_lab(torch.tensor([0.0, 1.0]).expand(1, 3, 1, 2))
    torch.testing.assert_close(lab[0, :, 0], torch.tensor([[0.0, 100.0], [0.0, 0.0], [0.0, 0.0]]), atol=1e-3, rtol=0)
