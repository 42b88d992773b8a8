"""How languages share the quotas of clusters, and what one language may take at most."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compass_ray.sample.allocation import Counts, Vector, proportional_quotas

Allocate = Callable[[Counts, int], Counts]
"""``allocate(capacity, budget)`` gives each cluster its quota; shapes (n_clusters,)."""


@dataclass(frozen=True)
class Caps:
    """What one language may take: of each cluster's quota (``in_cluster``), and of the whole budget."""

    in_cluster: float  # a fraction; 1 is no cap
    in_budget: Counts  # (n_languages,), absolute


def split_by_language(quota: Counts, capacity: Counts, weights: Vector) -> Counts:
    """Share each cluster's quota among languages in proportion to weights, as far as capacities allow.

    Parameters
    ----------
    quota : ndarray of shape (n_clusters,), int64
    capacity : ndarray of shape (n_clusters, n_languages), int64
    weights : ndarray of shape (n_clusters, n_languages), float64

    Returns
    -------
    ndarray of shape (n_clusters, n_languages), int64, with row sums ``quota``
    """
    rows = [proportional_quotas(w, c, int(q)) for w, c, q in zip(weights, capacity, quota, strict=True)]
    return np.array(rows, dtype=np.int64).reshape(capacity.shape)


def capped_quotas(allocate: Allocate, capacity: Counts, weights: Vector, caps: Caps, budget: int) -> Counts:
    """Quotas by cluster and language that keep to the caps.

    Fill, shrink, refill: clusters get quotas and languages their shares; languages above their part of the budget
    are shrunk to it, in proportion, and stay there; what they gave back is allocated again among the others. Each round
    settles a language, or lowers a cluster that rounding left a document short.

    Parameters
    ----------
    allocate : callable
    capacity : ndarray of shape (n_clusters, n_languages), int64
    weights : ndarray of shape (n_clusters, n_languages), float64
    caps : Caps
    budget : int

    Returns
    -------
    ndarray of shape (n_clusters, n_languages), int64
        Sums to ``budget``, or to less where caps and capacities leave no room for it.
    """
    room, settled = capacity.copy(), np.zeros(capacity.shape[1], dtype=bool)
    ceiling = capacity.sum(axis=1)
    while True:
        clusters = np.minimum(usable(room, caps.in_cluster), ceiling)
        by_cluster = allocate(clusters, min(budget, int(clusters.sum())))
        limit = np.ceil(caps.in_cluster * by_cluster - 1e-9).astype(np.int64)[:, None]
        quotas = split_by_language(by_cluster, np.minimum(room, limit), weights)
        above = ~settled & (quotas.sum(axis=0) > caps.in_budget)
        short = quotas.sum(axis=1) < by_cluster
        if not (above.any() or short.any()):
            return quotas
        ceiling = np.where(short, quotas.sum(axis=1), ceiling)
        for lang in np.flatnonzero(above):
            taken = quotas[:, lang]
            room[:, lang] = proportional_quotas(taken.astype(np.float64), taken, int(caps.in_budget[lang]))
        settled |= above


def usable(capacity: Counts, in_cluster: float) -> Counts:
    """The largest quota of each cluster that its languages can fill if none takes more than a fraction of it.

    Parameters
    ----------
    capacity : ndarray of shape (n_clusters, n_languages), int64
    in_cluster : float
        A language takes at most ``ceil(in_cluster * quota)``.

    Returns
    -------
    ndarray of shape (n_clusters,), int64
    """
    total: Counts = capacity.sum(axis=1)
    if in_cluster >= 1:
        return total

    def fits(quota: Counts) -> NDArray[np.bool_]:
        limit = np.ceil(in_cluster * quota - 1e-9).astype(np.int64)[:, None]
        enough: NDArray[np.bool_] = np.minimum(capacity, limit).sum(axis=1) >= quota
        return enough

    low, high = np.zeros_like(total), total  # 0 fits
    while (low < high).any():
        middle = (low + high + 1) // 2
        good = fits(middle)
        low, high = np.where(good, middle, low), np.where(good, high, middle - 1)
    return low
