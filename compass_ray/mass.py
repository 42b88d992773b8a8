"""From counts of target documents to the mass that clusters deserve.

A few hundred questions over a hundred clusters are mostly noise, so observed shares are shrunk
towards a base measure by an amount that the counts themselves justify.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import gammaln
from scipy.stats import beta

Vector = NDArray[np.float64]

_ALPHA_RANGE = (1e-2, 1e6)
_EPSILON = 1e-3
_LEAST_USAGE = 0.5


def base_measure(own: NDArray[np.int64], others: NDArray[np.int64], pool: NDArray[np.int64]) -> Vector:
    """What usage looks like before one's own documents count: usage of all languages and the pool.

    Usage has a share λ of at least a half. It has more where the *other* languages' usage foretells the owner's better
    than the pool does: λ maximises the likelihood of the owner's documents under λ·others + (1-λ)·pool (interpolation
    with held-out data; Jelinek & Mercer, 1980). A fixed half would leave half of the mass on the pool however much
    the languages agree.

    Parameters
    ----------
    own, others, pool : ndarray of shape (n_clusters,), int64
        Target documents of the owner, of all other owners, and eligible pool documents.

    Returns
    -------
    ndarray of shape (n_clusters,), float64
        λ·(own + others) + (1-λ)·pool and a little of everything: positive, sums to one.
    """
    share = _usage_share(own, others, pool)
    mixed: Vector = share * _share(own + others) + (1 - share) * _share(pool) + _EPSILON / len(pool)
    mixed /= mixed.sum()
    return mixed


def _usage_share(own: NDArray[np.int64], others: NDArray[np.int64], pool: NDArray[np.int64]) -> float:
    if not (own.any() and others.any()):
        return _LEAST_USAGE
    smallest = _EPSILON / len(pool)
    usage, supply = _share(others) + smallest, _share(pool) + smallest

    def negative_log_likelihood(share: float) -> float:
        return float(-(own * np.log(share * usage + (1 - share) * supply)).sum())

    return float(minimize_scalar(negative_log_likelihood, bounds=(_LEAST_USAGE, 1.0), method="bounded").x)


def _share(counts: NDArray[np.int64]) -> Vector:
    share: Vector = counts / max(1, counts.sum())
    return share


def concentration(counts: NDArray[np.int64], base: Vector) -> float:
    """The α under which Dirichlet(α·base)–multinomial counts are most likely (Minka, 2000).

    Returns
    -------
    float
        In [0.01, 10^6]: small when the counts stand out from the base, large when they could be a sample of it.
    """
    total = counts.sum()

    def negative_log_likelihood(log_alpha: float) -> float:
        alpha = np.exp(log_alpha)
        prior = alpha * base
        gain = gammaln(prior + counts) - gammaln(prior)
        return float(gammaln(alpha + total) - gammaln(alpha) - gain.sum())

    low, high = np.log(_ALPHA_RANGE)
    return float(np.exp(minimize_scalar(negative_log_likelihood, bounds=(low, high), method="bounded").x))


def shrunk_mass(counts: NDArray[np.int64], base: Vector, alpha: float) -> Vector:
    """Posterior mean ``(counts + α·base) / (m + α)``, shape (n_clusters,), sums to one."""
    mass: Vector = (counts + alpha * base) / (counts.sum() + alpha)
    return mass


def mass_interval(counts: NDArray[np.int64], mass: Vector) -> tuple[Vector, Vector]:
    """95 % interval of each cluster's true share of usage, widened where it would not hold the shrunk one.

    The Jeffreys interval of a binomial share, with a lower end of 0 where nothing was counted (Brown, Cai & DasGupta,
    2001). It takes nothing from the base measure: resampling documents, or the posterior under it, covers too little
    where usage and base are alike (measured: docs/selection.md).

    Parameters
    ----------
    counts : ndarray of shape (n_clusters,), int64
    mass : ndarray of shape (n_clusters,), float64
        From :func:`shrunk_mass`.

    Returns
    -------
    low, high : ndarray of shape (n_clusters,), float64
    """
    others = counts.sum() - counts
    low = np.where(counts == 0, 0.0, beta.ppf(0.025, counts + 0.5, others + 0.5))
    high = np.where(others == 0, 1.0, beta.ppf(0.975, counts + 0.5, others + 0.5))
    return np.minimum(low, mass), np.maximum(high, mass)
