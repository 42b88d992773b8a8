"""Weighted spherical k-means over rows that are spread out in groups of shards.

``fit`` is the driver's loop and knows nothing of Ray: it calls methods on all row groups through a
function. Groups hold their rows for the whole fit and are otherwise stateless: lost with their
process, rebuilt from files, they answer the same. Sums travel in fixed point (see ``shards``), so
the result has the same bits however shards are grouped.

Cost per iteration: one pass over the rows, ``2·n·K·d`` FLOP; each group sends K×d integers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compass_ray import records, seeding, shards
from compass_ray.cluster import kernels
from compass_ray.cluster.device import Nearest
from compass_ray.errors import TooFewSamples
from compass_ray.vectors import distinct_rows

_SAME_POINT = 1e-6
"""Squared distance below which two rows are one: float32 products of equal rows miss 1 by as much."""

Broadcast = Callable[..., list[Any]]
"""``broadcast(method, *args)`` calls a method of every row group and returns their answers."""

Point = tuple[float, bytes, NDArray[np.float32]]
"""A row put forward by a group: its key (lowest wins), doc_id and unit vector of shape (d,)."""


@dataclass(frozen=True)
class ShardRows:
    """The fitting rows of one shard."""

    ids: NDArray[np.uint8]  # (n, 16)
    x: NDArray[np.float32]  # (n, d), unit rows
    weights: NDArray[np.float64]  # (n,)


@dataclass(frozen=True)
class KMeansResult:
    """A fitted codebook: centroids of shape (K, d), the lengths of the weighted sums that they are the directions of,
    shape (K,) and 0 for one that is a row moved to, and the inertia before each iteration's update.
    """

    centroids: NDArray[np.float32]
    lengths: NDArray[np.float64]
    inertia: list[float]
    converged: bool


class RowGroup:
    """Some shards' rows, and what k-means asks of them."""

    def __init__(self, members: Sequence[ShardRows], nearest: Nearest = kernels.nearest) -> None:
        self._members, self._nearest = list(members), nearest
        self._closest: list[NDArray[np.float32]] = []
        self._known_centers = 0

    def n_features(self) -> int:
        """Return the width of the rows."""
        return int(self._members[0].x.shape[1])

    def race(self, centers: NDArray[np.float32], seed: int) -> Point | None:
        """Find the row of this group that wins the next center's draw.

        Each row gets an exponential number divided by ``weight * distance_sq`` to its closest center;
        the smallest over all groups is a draw with probability proportional to the divisor, which is
        the k-means++ rule (Arthur & Vassilvitskii, 2007), without any running total over rows.
        """
        self._measure(centers)
        best: Point | None = None
        for member, closest in zip(self._members, self._closest, strict=True):
            distance_sq = 2.0 - 2.0 * closest.astype(np.float64) if len(centers) else np.ones(len(closest))
            distance_sq[distance_sq < _SAME_POINT] = 0.0
            noise = seeding.exponential(member.ids, seed, f"center-{len(centers)}")
            with np.errstate(divide="ignore"):
                keys = noise / (member.weights * distance_sq)
            best = _first(best, _points(member, keys, _ordered(member, keys)[:1]))
        return best

    def _measure(self, centers: NDArray[np.float32]) -> None:
        """Bring similarities to the closest center up to date, one center at a time.
        A rebuilt group then repeats exactly the products of the one that was lost.
        """
        if not self._closest or self._known_centers > len(centers):
            self._closest = [np.full(len(member.x), -1.0, dtype=np.float32) for member in self._members]
            self._known_centers = 0
        for center in centers[self._known_centers :]:
            for member, closest in zip(self._members, self._closest, strict=True):
                np.maximum(closest, kernels.nearest(member.x, center[None])[1], out=closest)
        self._known_centers = len(centers)

    def step(self, centroids: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        """Compute sums, mass and inertia of this group's rows. Shapes are (K, d), (K,) and (1,), in fixed point."""
        total: tuple[NDArray[np.int64], ...] | None = None
        for member in self._members:
            labels, similarity = self._nearest(member.x, centroids)
            sums, mass = kernels.partial_sums(member.x, member.weights, labels, len(centroids))
            inertia = np.array([kernels.weighted_inertia(similarity, member.weights)])
            fixed = (shards.to_fixed(sums), shards.to_fixed(mass), shards.to_fixed(inertia))
            total = fixed if total is None else tuple(a + b for a, b in zip(total, fixed, strict=True))
        if total is None:
            zero = np.zeros(len(centroids), dtype=np.int64)
            return np.zeros(centroids.shape, dtype=np.int64), zero, zero[:1]
        return total[0], total[1], total[2]

    def farthest(self, centroids: NDArray[np.float32], count: int) -> list[Point]:
        """Find the rows least similar to their nearest centroid, the least similar first.
        They are different rows, at most ``count``.
        """
        found: list[Point] = []
        for member in self._members:
            _, similarity = self._nearest(member.x, centroids)
            keys = similarity.astype(np.float64)
            order = _ordered(member, keys)
            first = np.sort(distinct_rows(member.x[order])[0])[:count]  # of equal rows the one that comes first
            found += _points(member, keys, order[first])
        return _different(found)[:count]


def _ordered(member: ShardRows, keys: NDArray[np.float64]) -> NDArray[np.int64]:
    """Order the positions of the rows with a finite key. The lowest comes first; ties go by id."""
    finite = np.flatnonzero(np.isfinite(keys))
    words = records.ids_to_words(member.ids[finite])
    ordered: NDArray[np.int64] = finite[np.lexsort((words[:, 1], words[:, 0], keys[finite]))]
    return ordered


def _points(member: ShardRows, keys: NDArray[np.float64], rows: NDArray[np.int64]) -> list[Point]:
    return [(float(keys[i]), member.ids[i].tobytes(), member.x[i]) for i in rows]


def _order(point: Point) -> tuple[float, bytes]:
    return point[:2]


def _different(points: list[Point]) -> list[Point]:
    """Order points, and keep the first of those at one place."""
    places: dict[bytes, Point] = {}
    for point in sorted(points, key=_order):
        places.setdefault(point[2].tobytes(), point)
    return list(places.values())


def _first(best: Point | None, others: list[Point]) -> Point | None:
    candidates = others if best is None else [best, *others]
    return min(candidates, key=_order, default=None)


def draw_centers(broadcast: Broadcast, n_clusters: int, n_features: int, seed: int) -> NDArray[np.float32]:
    """Draw weighted k-means++ centers, one round after another.
    They are as many as asked for, or as there are distinct rows.
    """
    centers = np.empty((0, n_features), dtype=np.float32)
    while len(centers) < n_clusters:
        winner = min((point for point in broadcast("race", centers, seed) if point), key=_order, default=None)
        if winner is None:
            break
        centers = np.vstack([centers, winner[2][None]])
    return centers


def seed_centroids(broadcast: Broadcast, n_clusters: int, n_features: int, seed: int) -> NDArray[np.float32]:
    """Seed centroids by weighted k-means++: K rounds, one message per group and round.

    Raises
    ------
    TooFewSamples
        If there are fewer distinct rows than clusters.
    """
    centers = draw_centers(broadcast, n_clusters, n_features, seed)
    if len(centers) < n_clusters:
        raise TooFewSamples(
            f"cluster.n_clusters: {n_clusters} clusters need as many distinct documents, but only {len(centers)} "
            "were found; lower n_clusters, add data or raise cluster.fit_rows"
        )
    return centers


def lloyd(broadcast: Broadcast, centroids: NDArray[np.float32], *, max_iterations: int, tol: float) -> KMeansResult:
    """Run Lloyd's iterations until the inertia changes by less than ``tol`` of itself.

    They start from given centroids. Empty clusters move to the rows farthest from any centroid.
    """
    history: list[float] = []
    lengths = np.zeros(len(centroids))
    for _ in range(max_iterations):
        answers = broadcast("step", centroids)
        sums, mass, inertia = (shards.from_fixed(sum(parts[1:], parts[0])) for parts in zip(*answers, strict=True))
        history.append(float(inertia[0]))
        empty = np.flatnonzero(mass == 0)
        settled = not len(empty) and lengths.all()  # a centroid that was moved to a row is no sum yet
        if settled and len(history) > 1 and history[-2] - history[-1] <= tol * history[-2]:
            return KMeansResult(centroids, lengths, history, converged=True)
        moved, lengths = kernels.new_centroids(sums, centroids), np.linalg.norm(sums, axis=1)
        if len(empty):
            offers = _different([p for points in broadcast("farthest", centroids, len(empty)) for p in points])
            for cluster, point in zip(empty, offers, strict=False):
                moved[cluster] = point[2]
        centroids = moved
    return KMeansResult(centroids, lengths, history, converged=False)
