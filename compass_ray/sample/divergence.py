"""Jensen–Shannon divergence in bits, and what a finite sample adds to it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]


def jsd(p: Vector, q: Vector) -> NDArray[np.float64]:
    """Jensen–Shannon divergence, base 2, between 0 and 1 (Lin, 1991). Not its square root.

    Parameters
    ----------
    p, q : ndarray of shape (..., n)
        Distributions along the last axis; leading axes broadcast.
    """
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        left = np.where(p > 0, p * np.log2(p / middle), 0.0).sum(axis=-1)
        right = np.where(q > 0, q * np.log2(q / middle), 0.0).sum(axis=-1)
    value: NDArray[np.float64] = np.clip((left + right) / 2, 0.0, 1.0)
    return value


def sampling_bias(p: Vector, q: Vector, samples: int) -> NDArray[np.float64]:
    """How much, in bits, ``jsd(p, q)`` exceeds its true value when p is the shares of a sample.

    Second-order delta method: half the variance of each share times the curvature of the divergence.
    q is taken as known. For p = q with q also sampled, twice this is the classical (K - 1)/(8 ln 2)·(1/n + 1/m).
    """
    middle = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        curvature = np.where(p > 0, 0.5 / p - 0.25 / middle, 0.0)
    bias: NDArray[np.float64] = (0.5 * p * (1 - p) / samples * curvature).sum(axis=-1) / np.log(2)
    return bias
