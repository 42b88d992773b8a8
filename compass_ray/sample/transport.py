"""Where usage goes that its own cluster cannot serve: to the nearest clusters that have documents, and no farther.

Partial optimal transport (Caffarelli & McCann, 2010) between what clusters ask for beyond their capacity and what
others have beyond what they are asked for. No unit goes farther than a cap on the distance; what cannot be moved is
unmet.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from compass_ray.errors import SamplingError
from compass_ray.sample.allocation import Counts, Vector

_WHOLE = 1e-6
"""A flow this near to a whole number is that number; vertices of a transport problem are whole."""


@dataclass(frozen=True)
class Moves:
    """Units that go from one cluster to another, by source, nearest first; all arrays of shape (n_moves,)."""

    source: NDArray[np.int64]
    to: NDArray[np.int64]
    amount: Counts

    def out_of(self, n_clusters: int) -> Counts:
        """Add up the units that left each cluster, shape (n_clusters,)."""
        return np.bincount(self.source, weights=self.amount, minlength=n_clusters).astype(np.int64)

    def into(self, n_clusters: int) -> Counts:
        """Add up the units that came to each cluster, shape (n_clusters,)."""
        return np.bincount(self.to, weights=self.amount, minlength=n_clusters).astype(np.int64)


def centroid_distances(centroids: NDArray[np.float32]) -> Vector:
    """Compute cosine distances between centroids, shape (n_clusters, n_clusters), in [0, 2].

    Parameters
    ----------
    centroids : ndarray of shape (n_clusters, n_features), float32
        Unit rows.
    """
    rows = centroids.astype(np.float64)
    distance: Vector = np.clip(1.0 - rows @ rows.T, 0.0, 2.0)
    np.fill_diagonal(distance, 0.0)
    return distance


def reach_of(distance: Vector, fraction: float) -> float:
    """Find the distance within which a fraction of cluster pairs lie. These are the nearest of all pairs.

    A share of pairs means the same for every encoder; a cosine does not. Returns 0, which lets nothing move, for a
    fraction of 0 and for a single cluster.
    """
    pairs = np.sort(distance[np.triu_indices(len(distance), 1)])
    count = int(np.floor(fraction * len(pairs) + 1e-9))
    return float(pairs[count - 1]) if count else 0.0


def transport(excess: Counts, spare: Counts, distance: Vector, reach: float) -> Moves:
    """Move what clusters ask for beyond their capacity to near clusters with documents to spare.

    As much as can be moved between clusters within ``reach`` of each other, over the least total distance: exact, the
    least of ``sum(moved * distance) + price * unmet`` at a price that no detour costs.

    Parameters
    ----------
    excess, spare : ndarray of shape (n_clusters,), int64
        Not negative.
    distance : ndarray of shape (n_clusters, n_clusters), float64
    reach : float
        The largest distance that a unit may move; ``inf`` for any.

    Returns
    -------
    Moves
        Deterministic. A linear program over the pairs within reach: 0.1 s for 100 clusters, seconds for a thousand.
    """
    source, to = np.nonzero((excess > 0)[:, None] & (spare > 0)[None, :] & (distance <= reach))
    if not len(source):
        empty = np.zeros(0, dtype=np.int64)
        return Moves(empty, empty, empty)
    cost = distance[source, to]
    price = (2 * len(excess) + 1) * max(float(cost.max()), _WHOLE)
    amount = _cheapest(source, to, cost - price, excess, spare)
    kept = np.flatnonzero(amount)
    order = kept[np.lexsort((to[kept], cost[kept], source[kept]))]
    return Moves(source[order], to[order], amount[order])


def _cheapest(source: NDArray[np.int64], to: NDArray[np.int64], gain: Vector, excess: Counts, spare: Counts) -> Counts:
    """Find the flow of least total gain (all are negative) along pairs.

    It stays within what sources have and sinks take.
    """
    from scipy.optimize import linprog  # slow to import, and only the sampler gets here

    pairs, clusters = np.arange(len(source)), len(excess)
    incidence = sp.csr_array(
        (np.ones(2 * len(pairs)), (np.r_[source, clusters + to], np.r_[pairs, pairs])), shape=(2 * clusters, len(pairs))
    )
    found = linprog(gain, A_ub=incidence, b_ub=np.r_[excess, spare], bounds=(0, None), method="highs-ds")
    if found.status != 0:
        raise SamplingError(f"transport between {clusters} clusters over {len(pairs)} pairs: {found.message}")
    amount: Counts = np.rint(found.x).astype(np.int64)
    if np.abs(found.x - amount).max() > _WHOLE:
        raise SamplingError(f"transport between {clusters} clusters: the solver's flow is not whole")
    return amount
