"""Frechet distance between two sets of features, the distance behind FID (specification section 6.3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Normal:
    """Mean [D] and covariance [D, D] of a set of features, float64."""

    mean: NDArray[np.float64]
    covariance: NDArray[np.float64]


def normal(features: NDArray[np.floating]) -> Normal:
    """Mean and covariance (ddof 1) of features [N, D].

    Raises:
        ValueError: fewer than two rows.
    """
    if features.ndim != 2 or len(features) < 2:
        raise ValueError(f"A distance of sets needs features [N, D] of two pictures or more; got {features.shape}.")
    rows = np.asarray(features, np.float64)
    return Normal(rows.mean(0), np.atleast_2d(np.cov(rows, rowvar=False)))


def distance(a: Normal, b: Normal) -> float:
    """|m1 - m2|^2 + tr(S1 + S2 - 2 (S1 S2)^(1/2)).

    The trace of the root is the sum of the roots of the eigenvalues of S1^(1/2) S2 S1^(1/2), which is symmetric: faster
    than a general matrix root, and at home with covariances of too few pictures, whose rank is not full.
    """
    values, vectors = np.linalg.eigh(a.covariance)
    root = (vectors * np.sqrt(values.clip(0))) @ vectors.T
    inner = root @ b.covariance @ root
    shared = np.sqrt(np.linalg.eigvalsh((inner + inner.T) / 2).clip(0)).sum()
    difference = a.mean - b.mean
    total = difference @ difference + np.trace(a.covariance) + np.trace(b.covariance) - 2 * shared
    return max(0.0, float(total))  # of equal sets rounding leaves a little less than nothing
