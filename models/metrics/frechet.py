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

    The trace of the root is the sum of the singular values of S1^(1/2) S2^(1/2): no general matrix root, at home with
    covariances of too few pictures, whose rank is not full, and the same to the last digits whichever set comes first.
    """
    shared = np.linalg.svd(_root(a.covariance) @ _root(b.covariance), compute_uv=False).sum()
    difference = a.mean - b.mean
    total = difference @ difference + np.trace(a.covariance) + np.trace(b.covariance) - 2 * shared
    return max(0.0, float(total))  # of equal sets rounding leaves a little less than nothing


def _root(covariance: NDArray[np.float64]) -> NDArray[np.float64]:
    """The symmetric root [D, D]; eigenvalues that rounding made negative count as zero."""
    values, vectors = np.linalg.eigh(covariance)
    return (vectors * np.sqrt(values.clip(0))) @ vectors.T
