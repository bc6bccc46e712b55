"""The Frechet distance against the general matrix root of the usual formula."""

from __future__ import annotations

import numpy as np
import pytest

from models.metrics.frechet import distance, normal


def usual(a: np.ndarray, b: np.ndarray) -> float:
    """Formula of pytorch-fid with scipy's root, on covariances made regular as it does where they are not."""
    sqrtm = pytest.importorskip("scipy.linalg").sqrtm
    ma, mb, sa, sb = a.mean(0), b.mean(0), np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = sqrtm(sa @ sb)
    if not np.isfinite(root).all() or min(len(a), len(b)) <= a.shape[1]:
        small = np.eye(len(sa)) * 1e-6
        root = sqrtm((sa + small) @ (sb + small))
    return float(((ma - mb) ** 2).sum() + np.trace(sa + sb - 2 * root.real))


def features(rows: int, dim: int, seed: int, shift: float = 0.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return random.standard_normal((rows, dim)) @ random.standard_normal((dim, dim)) * 0.3 + shift


@pytest.mark.parametrize("rows, dim", [(400, 64), (90, 64), (40, 64), (8, 64)])
def test_is_the_usual_formula(rows: int, dim: int):
    """Full rank and fewer pictures than numbers alike."""
    a, b = features(rows, dim, 0), features(rows + 3, dim, 1, 0.2)
    expected = usual(a, b)
    assert distance(normal(a), normal(b)) == pytest.approx(expected, rel=1e-3 if rows <= dim else 1e-9)


def test_of_a_set_with_itself_is_zero_and_it_is_symmetric():
    a, b = (normal(features(30, 48, seed)) for seed in (0, 1))
    assert distance(a, a) == pytest.approx(0, abs=1e-6 * np.trace(a.covariance))
    assert distance(a, b) == pytest.approx(distance(b, a), rel=1e-9)


def test_closed_forms():
    """Equal covariances leave the distance of the means; in one dimension it is (s1 - s2)^2."""
    a = features(200, 16, 0)
    assert distance(normal(a), normal(a + 2)) == pytest.approx(16 * 4)
    one = np.random.default_rng(0).standard_normal((500, 1))
    assert distance(normal(one), normal(3 * one)) == pytest.approx(4 * one.var(ddof=1) + (2 * one.mean()) ** 2)


def test_one_picture_is_no_set():
    with pytest.raises(ValueError, match="two pictures or more"):
        normal(np.zeros((1, 8)))
