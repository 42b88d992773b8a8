"""Jensen–Shannon divergence in bits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


def jsd(p: Vector, q: Vector) -> NDArray[np.float64]:
    """Compute the Jensen–Shannon divergence, base 2, between 0 and 1 (Lin, 1991). Not its square root.

    Parameters
    ----------
    p, q : ndarray of shape (..., n)
        Distributions along the last axis; leading axes broadcast.
    """
    left, right = _terms(p, q)
    value: NDArray[np.float64] = np.clip((left.sum(axis=-1) + right.sum(axis=-1)) / 2, 0.0, 1.0)
    return value


def contributions(p: Vector, q: Vector) -> Vector:
    """Compute what each bin adds to :func:`jsd`, in bits.

    The shape is (..., n); they are never negative and sum to it.
    """
    left, right = _terms(p, q)
    bits: Vector = (left + right) / 2
    return bits


def _terms(p: Vector, q: Vector) -> tuple[Vector, Vector]:
    """Compute the terms of both Kullback–Leibler divergences from the middle, by bin."""
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        left = np.where(p > 0, p * np.log2(p / middle), 0.0)
        right = np.where(q > 0, q * np.log2(q / middle), 0.0)
    return left, right
