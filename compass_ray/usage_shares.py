"""From usage documents to the share of it that each cluster deserves.

A few hundred questions over a hundred clusters are mostly noise, so observed shares are shrunk
towards a base measure by an amount that the documents themselves justify: that by which each is best foretold from the
others. The base is usage again, each document shared among the clusters that it could belong to, and some of what the
adapter is trained on: where few were counted, what is near and what is common count too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, gammaln, softmax

Vector = NDArray[np.float64]

BANDWIDTH = 0.3
"""Width of the kernel that shares a document among clusters, in standard deviations of its similarities."""

CURRENT_SHARE = 0.2
"""How much of the base measure a target language's current data are, at most. With this and the width, selections came
nearest to unseen usage on other topics, target languages and languages than published figures are of
(benchmarks/usage_shares.py)."""

_HALF_SHARE = 50
"""Current documents at which they are half of that: one says little of what an adapter is for, a thousand much."""

_ALPHA_RANGE = (1e-2, 1e6)
_EPSILON = 1e-3
_RARE = 1e-2


def cluster_weights(pool: NDArray[np.int64], current: NDArray[np.int64]) -> Vector:
    """Estimate how common a cluster is before usage is looked at.

    It is the mean of its shares of pool and current data.

    Usage is a few documents in a codebook that gives it a quarter of all weight, so some clusters form around single
    documents of it. Unseen usage seldom lies in such clusters; how rare they are elsewhere tells.

    Parameters
    ----------
    pool, current : ndarray of shape (n_clusters,), number
        Documents by cluster; either may be all zero and then has no say.

    Returns
    -------
    ndarray of shape (n_clusters,), float64
        Positive, sums to one.
    """
    shares = [counts / counts.sum() for counts in (pool, current) if counts.any()]
    mean = np.mean(shares, axis=0) if shares else np.full(len(pool), 1 / len(pool))
    return positive(mean, _RARE)


def soft_counts(similarity: NDArray[np.floating], weights: Vector, width: float = BANDWIDTH) -> Vector:
    """Share documents among all clusters, by similarity to their centroids and by how common they are.

    The posterior of a mixture of von Mises-Fisher distributions (Banerjee, Dhillon, Ghosh & Sra, 2005): each document
    gives ``weight * exp(similarity / width)`` over its sum. The width is in standard deviations of the document's own
    similarities, so that encoders whose cosines all lie near 0.8 are treated like others.

    Parameters
    ----------
    similarity : ndarray of shape (n, n_clusters), float
        Cosines.
    weights : ndarray of shape (n_clusters,), float64
        From :func:`cluster_weights`.
    width : float
        Above 0.

    Returns
    -------
    ndarray of shape (n, n_clusters), float64
        Rows sum to one.
    """
    rows = similarity.astype(np.float64)
    scale = rows.std(axis=1, keepdims=True)
    shares: Vector = softmax(rows / np.where(scale == 0, 1, width * scale) + np.log(weights), axis=1)
    return shares


def usage_prior(usage: Vector, current: NDArray[Any], current_share: float = CURRENT_SHARE) -> Vector:
    """Tell what usage looks like before one's own counts: soft counts of all target languages, and a part of one's
    current data.

    What an adapter is trained on was once chosen for its use: usage that was not seen yet lies there more often than
    what was seen of it says. Of n current documents the part is ``current_share * n / (n + 50)``.

    Parameters
    ----------
    usage : ndarray of shape (n_clusters,), float64
        Sum of :func:`soft_counts` over the usage documents of all target languages.
    current : ndarray of shape (n_clusters,), number
        The target language's current documents, or what they are worth; all zero, they have no say.
    current_share : float
        Their part of the base where there are very many, in [0, 1].

    Returns
    -------
    ndarray of shape (n_clusters,), float64
        Positive, sums to one; without usage and current documents uniform.
    """
    total = usage.sum()
    share = usage / total if total else np.full(len(usage), 1 / len(usage))
    return positive(_with_current(share, current, current_share))


def _with_current(share: Vector, current: NDArray[Any], current_share: float) -> Vector:
    """Mix the shares of usage and of current data. Each cluster's follows from that cluster alone."""
    total = current.sum()
    if not total:
        return share
    part = current_share * total / (total + _HALF_SHARE)
    mixed: Vector = (1 - part) * share + part * current / total
    return mixed


def positive(share: Vector, epsilon: float = _EPSILON) -> Vector:
    """Mix shares with a little of everything, so that none is zero."""
    mixed: Vector = (share + epsilon / len(share)) / (1 + epsilon)
    return mixed


def concentration(counts: NDArray[Any], base: Vector, within: float = 0.0) -> float:
    """Find the α under which Dirichlet(α·base)–multinomial counts are most likely (Minka, 2000).

    Parameters
    ----------
    counts : ndarray of shape (n_clusters,), number
        Documents by cluster, or what they are worth.
    within : float
        Above 0, the largest α whose log likelihood is at most that much below the best.

    Returns
    -------
    float
        In [0.01, 10^6]: small when the counts stand out from the base, large when they could be a sample of it.
    """
    from scipy.optimize import brentq, minimize_scalar  # slow to import, and of all workers only the sampler gets here

    total, seen = counts.sum(), counts > 0
    some, prior = counts[seen], base[seen]

    def negative_log_likelihood(log_alpha: float) -> float:
        alpha = np.exp(log_alpha)
        gain = gammaln(alpha * prior + some) - gammaln(alpha * prior)
        return float(gammaln(alpha + total) - gammaln(alpha) - gain.sum())

    low, high = np.log(_ALPHA_RANGE)
    best = minimize_scalar(negative_log_likelihood, bounds=(low, high), method="bounded")
    found = best.x
    if within:
        worst = best.fun + within
        if negative_log_likelihood(high) <= worst:
            found = high
        else:
            found = brentq(lambda log_alpha: negative_log_likelihood(log_alpha) - worst, best.x, high)
    return float(np.exp(found))


@dataclass(frozen=True)
class Observed:
    """A target language's usage documents by cluster, arrays of shape (n_clusters,), and those of all target languages.

    Attributes
    ----------
    counts : ndarray of number
        Documents of the target language, copies counted as often as they are there.
    squares : ndarray of number
        Over its distinct documents, of how often each is there.
    soft_counts : ndarray of float64
        Sum of :func:`soft_counts` over the documents of all target languages.
    own : ndarray of float64
        What the target language's documents of a cluster add to ``soft_counts`` there, each as often as there are
        copies of it: what is gone on average if a document is left out with its copies is this over ``counts``.
    """

    counts: NDArray[Any]
    squares: NDArray[Any]
    soft_counts: NDArray[Any]
    own: NDArray[Any]


def estimate_usage(
    observed: Observed, current: NDArray[Any], current_share: float = CURRENT_SHARE
) -> tuple[Vector, float]:
    """Estimate the share of usage that each cluster deserves.

    Shares count documents as often as they were asked for; how far they are to be believed goes by how many there are
    that are not copies.

    Parameters
    ----------
    observed : Observed
    current, current_share
        As :func:`usage_prior` takes them.

    Returns
    -------
    shares : ndarray of shape (n_clusters,), float64
        Positive, sums to one.
    alpha : float
        How many documents the base measure is worth, in [0.01, 10^6].
    """
    counts = observed.counts
    base = usage_prior(observed.soft_counts, current, current_share)
    worth = counts * (effective_number(counts, int(observed.squares.sum())) / max(1, counts.sum()))
    alpha = _left_out_concentration(observed, worth, current, current_share)
    return shrunk_shares(worth, base, alpha), alpha


def _left_out_concentration(observed: Observed, worth: Vector, current: NDArray[Any], current_share: float) -> float:
    """Find the α under which documents are likeliest. Each is foretold from all others by :func:`shrunk_shares`.

    A base measure that was made of the same documents foretells them too well; here each is left out of it too. The
    leave-one-out likelihood of Chen & Goodman (1998, for smoothing in language models) and others before. Fewer than
    two different documents say nothing of it, and then the base is believed.
    """
    from scipy.optimize import minimize_scalar  # slow to import, and of all workers only the sampler gets here

    low, high = np.log(_ALPHA_RANGE)
    seen = observed.counts > 0
    counts = observed.counts[seen].astype(np.float64)
    copies = observed.squares[seen] / counts if observed.squares.any() else np.ones(len(counts))
    others = counts.sum() - copies
    if not (others > 0).any():
        return float(np.exp(high))
    there = worth[seen] * (1 - copies / counts)
    every = worth.sum() * others / counts.sum()
    total = observed.soft_counts.sum() - copies
    nobody = total <= 0
    gone = np.maximum(0.0, observed.soft_counts[seen] - observed.own[seen] / counts)
    share = np.full(len(observed.soft_counts), 1 / len(observed.soft_counts))
    share[seen] = np.where(nobody, share[seen], gone / np.where(nobody, 1.0, total))
    base = positive(_with_current(share, current, current_share))[seen]

    def negative_log_likelihood(log_alpha: float) -> float:
        alpha = np.exp(log_alpha)
        return -float(worth[seen] @ np.log((there + alpha * base) / (every + alpha)))

    best = minimize_scalar(negative_log_likelihood, bounds=(low, high), method="bounded")
    return float(np.exp(best.x))


def shrunk_shares(counts: NDArray[Any], base: Vector, alpha: float) -> Vector:
    """Compute the posterior mean ``(counts + α·base) / (m + α)``. The shape is (n_clusters,); it sums to one."""
    shares: Vector = (counts + alpha * base) / (counts.sum() + alpha)
    return shares


def effective_number(counts: NDArray[np.int64], squares: int) -> float:
    """Count the independent documents that scatter as documents with copies do (Kish, 1965).

    They are at most as many as there are.

    Parameters
    ----------
    counts : ndarray of int64
        Documents, copies included.
    squares : int
        Over distinct documents, of how often each is there; 0 where nobody counted, and then all are distinct.
    """
    total = int(counts.sum())
    return total**2 / squares if squares else float(total)


def share_interval(counts: NDArray[Any], shares: Vector) -> tuple[Vector, Vector]:
    """Compute the 95 % interval of each cluster's true share of usage.

    It is widened where it would not hold the shrunk one.

    The Jeffreys interval of a binomial share, with a lower end of 0 where nothing was counted (Brown, Cai & DasGupta,
    2001). It takes nothing from the base measure: resampling documents, or the posterior under it, covers too little
    where usage and base are alike (measured: benchmarks/results/2026-11-28-selection.md).

    Parameters
    ----------
    counts : ndarray of shape (n_clusters,), number
        Documents, or what they are worth: see :func:`effective_number`.
    shares : ndarray of shape (n_clusters,), float64
        From :func:`shrunk_shares`.

    Returns
    -------
    low, high : ndarray of shape (n_clusters,), float64
    """
    others = counts.sum() - counts
    low = np.where(counts == 0, 0.0, betaincinv(counts + 0.5, others + 0.5, 0.025))
    high = np.where(others == 0, 1.0, betaincinv(counts + 0.5, others + 0.5, 0.975))
    return np.minimum(low, shares), np.maximum(high, shares)
