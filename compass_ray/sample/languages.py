"""How languages share the quotas of clusters: who goes first, and what one language may take or should have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compass_ray.sample.allocation import Counts, Vector, proportional_quotas

_ROUNDING = 1e-9
"""What a product of a fraction and a whole number may lie above the next one."""

Allocate = Callable[[Counts, int], Counts]
"""``allocate(capacity, budget)`` gives each cluster its quota; shapes (n_clusters,)."""


@dataclass(frozen=True)
class LanguageRules:
    """How the languages of a pool share what clusters get.

    Attributes
    ----------
    weights : ndarray of shape (n_clusters, n_languages), float64
        Shares within a tier.
    tier : ndarray of shape (n_languages,), int64
        Lower tiers take all that they can before higher ones get anything.
    in_cluster : float
        The largest fraction of a cluster's quota that one language takes; 1 is no cap.
    at_most, at_least : ndarray of shape (n_languages,), int64
        Of the whole budget.
    """

    weights: Vector
    tier: NDArray[np.int64]
    in_cluster: float
    at_most: Counts
    at_least: Counts


TEMPERATURE = 0.5
"""The power of capacity by which languages share, as multilingual models are pre-trained."""


def capacity_weights(capacity: Counts, temperature: float = TEMPERATURE) -> Vector:
    """Compute ``capacity ** temperature``, zero where there is no document; of the shape of ``capacity``."""
    weights: Vector = np.where(capacity > 0, capacity.astype(np.float64) ** temperature, 0.0)
    return weights


def split_by_language(quota: Counts, capacity: Counts, weights: Vector, tier: NDArray[np.int64]) -> Counts:
    """Share each cluster's quota among languages: tier by tier, within one in proportion to weights.

    Parameters
    ----------
    quota : ndarray of shape (n_clusters,), int64
    capacity : ndarray of shape (n_clusters, n_languages), int64
    weights : ndarray of shape (n_clusters, n_languages), float64
    tier : ndarray of shape (n_languages,), int64

    Returns
    -------
    ndarray of shape (n_clusters, n_languages), int64
        Row sums are ``quota`` as far as capacities allow.
    """
    split = np.zeros_like(capacity)
    for level in np.unique(tier):
        inside = capacity * (tier == level)
        amounts = np.minimum(quota - split.sum(axis=1), inside.sum(axis=1))
        rows = [proportional_quotas(w, c, int(q)) for w, c, q in zip(weights, inside, amounts, strict=True)]
        split += np.array(rows, dtype=np.int64).reshape(capacity.shape)
    return split


def capped_quotas(allocate: Allocate, capacity: Counts, rules: LanguageRules, budget: int) -> Counts:
    """Find quotas by cluster and language that keep to the rules.

    Fill, shrink, refill: clusters get quotas and languages their shares; languages above their part of the budget
    are shrunk to it, in proportion, and stay there; what they gave back is allocated again among the others. Each round
    settles a language, or lowers a cluster that rounding left a document short.

    Parameters
    ----------
    allocate : callable
    capacity : ndarray of shape (n_clusters, n_languages), int64
    rules : LanguageRules
    budget : int

    Returns
    -------
    ndarray of shape (n_clusters, n_languages), int64
        Sums to what ``allocate`` gives, or to less where caps leave no room for it. ``at_least`` is met as far as the
        clusters that get quotas hold the language.
    """
    room, settled = capacity.copy(), np.zeros(capacity.shape[1], dtype=bool)
    ceiling = capacity.sum(axis=1)
    while True:
        clusters = np.minimum(usable(room, rules.in_cluster), ceiling)
        by_cluster = allocate(clusters, min(budget, int(clusters.sum())))
        limit = np.ceil(rules.in_cluster * by_cluster - _ROUNDING).astype(np.int64)[:, None]
        quotas = _share(by_cluster, np.minimum(room, limit), rules)
        above = ~settled & (quotas.sum(axis=0) > rules.at_most)
        short = quotas.sum(axis=1) < by_cluster
        if not (above.any() or short.any()):
            return quotas
        ceiling = np.where(short, quotas.sum(axis=1), ceiling)
        for lang in np.flatnonzero(above):
            taken = quotas[:, lang]
            room[:, lang] = proportional_quotas(taken.astype(np.float64), taken, int(rules.at_most[lang]))
        settled |= above


def _share(by_cluster: Counts, capacity: Counts, rules: LanguageRules) -> Counts:
    """Split clusters among languages; where a language then has too little, its least share is set aside first."""
    split = split_by_language(by_cluster, capacity, rules.weights, rules.tier)
    short = split.sum(axis=0) < rules.at_least
    if not short.any():
        return split
    aside = np.zeros_like(capacity)
    for lang in np.flatnonzero(rules.at_least):
        free = np.minimum(capacity[:, lang], by_cluster - aside.sum(axis=1))
        aside[:, lang] = proportional_quotas(
            free.astype(np.float64), free, min(int(rules.at_least[lang]), int(free.sum()))
        )
    rest = by_cluster - aside.sum(axis=1)
    last = np.where(short, rules.tier.max() + 1, rules.tier)  # they have their share
    return aside + split_by_language(rest, capacity - aside, rules.weights, last)


def usable(capacity: Counts, in_cluster: float) -> Counts:
    """Find the largest quota of each cluster that its languages can fill.

    None of them may take more than a fraction of it.

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

    def held(limit: Counts) -> Counts:
        documents: Counts = np.minimum(capacity, limit[:, None]).sum(axis=1)
        return documents

    # Whether a quota fits goes up and down with it, as the limit of a language jumps. Of a limit m the quotas lie in
    # ((m - 1) / in_cluster, m / in_cluster], and the least of them fits if ``held`` is above the lower end: a concave
    # function of m above a straight line, so that this holds up to some m and for none beyond.
    low, high = np.minimum(total, 1), np.ceil(in_cluster * total - _ROUNDING).astype(np.int64)
    while (low < high).any():
        middle = (low + high + 1) // 2
        good = held(middle) > (middle - 1 + _ROUNDING) / in_cluster
        low, high = np.where(good, middle, low), np.where(good, high, middle - 1)
    most: Counts = np.floor((low + _ROUNDING) / in_cluster).astype(np.int64)
    return np.minimum(held(low), most)
