"""Integer quotas under capacities: exact solutions, no iteration over documents."""

from __future__ import annotations

import heapq

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Counts = NDArray[np.int64]

_NUMPY_POPULATION = 10**9


def kl_quotas(usage: Vector, present: Vector, capacity: Counts, budget: int) -> Counts:
    r"""Compute the integers that bring ``present + quotas`` closest to ``usage``.

    Minimises :math:`\mathrm{KL}(p \,\|\, (n+q)/(N+B))` over integers with :math:`0 \le q \le c` and
    :math:`\sum q = B`. The objective is separable and concave in each q, so the exact optimum takes the
    ``B`` units of largest gain :math:`p \log(1 + 1/(n+q))`. All units above a gain θ number
    :math:`\lfloor 1/\operatorname{expm1}(\theta/p) - n \rfloor + 1`; θ is bisected and the few units
    at the boundary are taken one by one, ties to the lower cluster (Fox, 1966, for the greedy argument).

    Parameters
    ----------
    usage : ndarray of shape (n_clusters,), float64
        share of usage p, positive where capacity is.
    present : ndarray of shape (n_clusters,), float64
        Documents n that are trained on anyway; 0.5 is added to keep gains finite.
    capacity : ndarray of shape (n_clusters,), int64
    budget : int
        At most ``capacity.sum()``.

    Returns
    -------
    ndarray of shape (n_clusters,), int64
        Cost O(K log(1/ε) + K log K).
    """
    quotas = np.zeros(len(usage), dtype=np.int64)
    wanted = (usage > 0) & (capacity > 0)
    room = int(capacity[wanted].sum())
    if budget < room:
        quotas[wanted] = _kl_optimum(usage[wanted], present[wanted] + 0.5, capacity[wanted], budget)
        return quotas
    quotas[wanted] = capacity[wanted]
    unwanted = capacity - quotas  # usage zero: any of them is as good, so as the pool has them
    return quotas + proportional_quotas(unwanted.astype(np.float64), unwanted, budget - room)


def _kl_optimum(usage: Vector, n: Vector, capacity: Counts, budget: int) -> Counts:
    """Find the exact optimum. All usage and capacity must be positive, and the budget below the total capacity."""

    def taken(theta: float) -> Counts:
        with np.errstate(over="ignore", divide="ignore"):
            units = np.floor(1.0 / np.expm1(theta / usage) - n) + 1
        clipped: Counts = np.clip(units, 0, capacity).astype(np.int64)
        return clipped

    high = float((usage * np.log1p(1 / n)).max()) * 2
    low = float(np.finfo(float).tiny)
    quotas = taken(high)
    for _ in range(200):
        middle = float(np.sqrt(low) * np.sqrt(high))
        if middle in (low, high):
            break
        attempt = taken(middle)
        if attempt.sum() <= budget:
            high, quotas = middle, attempt
        else:
            low = middle
    return _take_rest(quotas, usage, n, capacity, budget)


def _take_rest(quotas: Counts, usage: Vector, n: Vector, capacity: Counts, budget: int) -> Counts:
    quotas = quotas.copy()

    def offer(cluster: int) -> tuple[float, int]:
        return (-float(usage[cluster] * np.log1p(1 / (n[cluster] + quotas[cluster]))), cluster)

    heap = [offer(int(cluster)) for cluster in np.flatnonzero(quotas < capacity)]
    heapq.heapify(heap)
    for _ in range(budget - int(quotas.sum())):
        _, cluster = heap[0]
        quotas[cluster] += 1
        if quotas[cluster] < capacity[cluster]:
            heapq.heapreplace(heap, offer(cluster))
        else:
            heapq.heappop(heap)
    return quotas


def proportional_quotas(weights: Vector, capacity: Counts, budget: int) -> Counts:
    """Compute integers proportional to weights as far as capacities allow.

    What a full cell cannot take goes to the others in proportion; what no weighted cell can take is
    shared in proportion to the remaining capacities. Rounding is by largest remainder, ties to the lower index.

    Parameters
    ----------
    weights : ndarray of shape (n,), float64, not negative
    capacity : ndarray of shape (n,), int64
    budget : int
        At most ``capacity.sum()``.

    Returns
    -------
    ndarray of shape (n,), int64, summing to ``budget``
    """
    quotas = _fill(weights, capacity, budget)
    left = budget - int(quotas.sum())
    if left:
        quotas += _fill((capacity - quotas).astype(np.float64), capacity - quotas, left)
    return quotas


def _fill(weights: Vector, capacity: Counts, budget: int) -> Counts:
    open_cells = (weights > 0) & (capacity > 0)
    room = capacity * open_cells
    budget = min(budget, int(room.sum()))
    share = np.zeros(len(weights))
    left = float(budget)
    while open_cells.any() and left > 0:
        level = left / weights[open_cells].sum()
        full = open_cells & (weights * level >= room)
        if not full.any():
            share[open_cells] = weights[open_cells] * level
            break
        share[full] = room[full]
        left -= float(room[full].sum())
        open_cells &= ~full
    quotas = np.minimum(np.floor(share + 1e-9).astype(np.int64), room)
    remainder = np.where(quotas < room, share - quotas, -np.inf)
    order = np.lexsort((np.arange(len(share)), -remainder))
    quotas[order[: budget - int(quotas.sum())]] += 1
    return quotas


def hypergeometric_quotas(capacity: Counts, budget: int, rng: np.random.Generator, draws: int) -> Counts:
    """Draw counts of ``draws`` uniform samples of ``budget`` documents, shape (draws, n).

    Above 10^9 documents, where NumPy's sampler ends, samples are multinomial (with replacement), cut to the
    capacities and topped up; the two differ by less than one document in a thousand at budgets below 10^6.
    """
    total = int(capacity.sum())
    if total < _NUMPY_POPULATION:
        exact: Counts = rng.multivariate_hypergeometric(capacity, budget, size=draws, method="marginals")
        return exact
    sampled = np.minimum(rng.multinomial(budget, capacity / total, size=draws), capacity)
    topped = [
        row + proportional_quotas((capacity - row).astype(np.float64), capacity - row, budget - int(row.sum()))
        for row in sampled
    ]
    return np.array(topped, dtype=np.int64)
