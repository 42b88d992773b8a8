"""Clusters as dense regions: HDBSCAN over a bounded sample, its medoids as centroids, and how good it is.

Density says little in hundreds of dimensions, where all distances are alike, so both work on the sample's principal
axes. Array functions; cost: ``n²·components`` distances, rows of one point at a time, so memory stays ``4·n·d``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import logsumexp

from compass_ray.cluster.config import HdbscanConfig
from compass_ray.errors import TooFewSamples

Rows = NDArray[np.float64]

_TILE_ROWS = 512


@dataclass(frozen=True)
class DenseClusters:
    """What HDBSCAN found.

    Attributes
    ----------
    medoids : ndarray of shape (n_clusters, d), float32
        Rows of the sample: the member of each cluster that is most similar to all its members, by their weights.
    noise_fraction : float
        Share of the sample, by weight, in no cluster. Like all documents it goes to the nearest medoid afterwards.
    dbcv : float
        See :func:`dbcv`.
    """

    medoids: NDArray[np.float32]
    noise_fraction: float
    dbcv: float


def dense_clusters(x: NDArray[np.float32], weights: NDArray[np.float64], config: HdbscanConfig) -> DenseClusters:
    """Cluster by density (Campello, Moulavi & Sander, 2013).

    Parameters
    ----------
    x : ndarray of shape (n, d), float32
        Unit rows.
    weights : ndarray of shape (n,), float64
    config : HdbscanConfig

    Raises
    ------
    TooFewSamples
        If fewer than two clusters are found.
    """
    from sklearn.cluster import HDBSCAN

    if len(x) < 2 * config.min_cluster_size:
        raise TooFewSamples(
            f"cluster.hdbscan: two clusters of min_cluster_size {config.min_cluster_size} need "
            f"{2 * config.min_cluster_size} rows, but {len(x)} were sampled; lower it, raise cluster.hdbscan.rows or "
            "add data"
        )
    reduced = principal_axes(x, config.components)
    search = HDBSCAN(min_cluster_size=config.min_cluster_size, min_samples=config.min_samples, copy=True)
    labels = search.fit_predict(reduced)
    n_clusters = int(labels.max()) + 1
    if n_clusters < 2:
        raise TooFewSamples(
            f"cluster.hdbscan: {n_clusters} dense regions were found in {len(x)} rows with min_cluster_size "
            f"{config.min_cluster_size}; lower min_cluster_size or min_samples, or use cluster.method: kmeans"
        )
    noise = float(weights[labels < 0].sum() / weights.sum())
    return DenseClusters(_medoids(x, weights, labels, n_clusters), noise, dbcv(reduced, labels))


def principal_axes(x: NDArray[np.float32], components: int) -> Rows:
    """Project rows on the axes of largest variance (Pearson, 1901). Shape (n, min(components, d)), float64."""
    rows = x.astype(np.float64)
    rows -= rows.mean(axis=0)
    axes = np.linalg.eigh(rows.T @ rows)[1][:, ::-1]  # eigenvalues ascend
    reduced: Rows = np.ascontiguousarray(rows @ axes[:, :components])
    return reduced


def _medoids(
    x: NDArray[np.float32], weights: NDArray[np.float64], labels: NDArray[np.intp], n_clusters: int
) -> NDArray[np.float32]:
    found = np.empty((n_clusters, x.shape[1]), dtype=np.float32)
    for cluster in range(n_clusters):
        members = np.flatnonzero(labels == cluster)
        rows = x[members].astype(np.float64)
        found[cluster] = x[members[int((rows @ (weights[members] @ rows)).argmax())]]
    return found


def dbcv(x: Rows, labels: NDArray[np.intp]) -> float:
    """Compute the index of density-based clustering validation (Moulavi et al., 2014).

    For each cluster this sets the sparsest place inside it, the longest edge between inner points of its minimum
    spanning tree of mutual reachability, against the density between it and the nearest other cluster. Agrees with
    ``validity_index`` of the hdbscan package, which holds all distances of a cluster at once and whose powers of ``d``
    overflow where that is large: here logarithms are added.

    Parameters
    ----------
    x : ndarray of shape (n, d), float64
    labels : ndarray of shape (n,), int
        Two clusters at least; -1 is noise, which counts against the index.

    Returns
    -------
    float
        In [-1, 1]; above 0 where clusters are denser inside than between each other.
    """
    clusters = [np.flatnonzero(labels == cluster) for cluster in range(int(labels.max()) + 1)]
    core = np.zeros(len(x))
    inner, sparseness = [], []
    for members in clusters:
        core[members] = _core_distances(x[members])
        inside, longest = _tree(x[members], core[members])
        inner.append(members[inside])
        sparseness.append(longest)
    separation = np.full(len(clusters), np.inf)
    for one in range(len(clusters)):
        for other in range(one + 1, len(clusters)):
            between = _separation(x, core, inner[one], inner[other])
            separation[[one, other]] = np.minimum(separation[[one, other]], between)
    sparse = np.array(sparseness)
    larger = np.maximum(separation, sparse)
    validity = np.where(larger == 0, 0.0, (separation - sparse) / np.where(larger == 0, 1.0, larger))
    sizes = np.array([len(members) for members in clusters])
    return float(sizes @ validity / len(x))


def _distances(x: Rows, y: Rows) -> Rows:
    squares: Rows = (x * x).sum(axis=1)[:, None] + (y * y).sum(axis=1) - 2.0 * (x @ y.T)
    return np.sqrt(np.maximum(0.0, squares))


def _core_distances(x: Rows) -> Rows:
    """Compute each row's mean distance to all other members, of the power -d.

    Zero distances, to equal rows, are left out.
    """
    core = np.zeros(len(x))
    dimensions = x.shape[1]
    for start in range(0, len(x), _TILE_ROWS):
        part = slice(start, start + _TILE_ROWS)
        with np.errstate(divide="ignore"):
            logs = -dimensions * np.log(_distances(x[part], x))
        logs[np.isposinf(logs)] = -np.inf
        logs[np.arange(len(logs)), np.arange(start, start + len(logs))] = -np.inf  # itself, whatever its rounding
        total = logsumexp(logs, axis=1) - np.log(len(x) - 1)
        core[part] = np.where(np.isneginf(total), 0.0, np.exp(-total / dimensions))
    return core


def _tree(x: Rows, core: Rows) -> tuple[NDArray[np.bool_], float]:
    """Grow Prim's minimum spanning tree of mutual reachability.

    It tells which points are inner, and the longest edge between them. Inner points have more than one edge; where
    there are none all count. Mutual reachability is full of ties, which go to the lower row.
    """
    closest, nearest_in = np.full(len(x), np.inf), np.zeros(len(x), dtype=np.intp)
    waiting = np.ones(len(x), dtype=bool)
    ends, lengths = [], []
    current = 0
    waiting[0] = False
    for _ in range(len(x) - 1):
        reach = np.maximum(np.maximum(_distances(x[current : current + 1], x)[0], core[current]), core)
        nearer = waiting & ((reach < closest) | ((reach == closest) & (current < nearest_in)))
        closest[nearer], nearest_in[nearer] = reach[nearer], current
        current = int(np.where(waiting, closest, np.inf).argmin())
        waiting[current] = False
        ends.append((int(nearest_in[current]), current))
        lengths.append(float(closest[current]))
    edges, length = np.array(ends), np.array(lengths)
    inside = np.bincount(edges.ravel(), minlength=len(x)) > 1
    between = inside[edges].all(axis=1)
    longest = float(length[between].max() if between.any() else length.max())
    return (inside if inside.any() else np.ones(len(x), dtype=bool)), longest


def _separation(x: Rows, core: Rows, one: NDArray[np.intp], other: NDArray[np.intp]) -> float:
    """Find the smallest mutual reachability between inner points of two clusters."""
    smallest = np.inf
    for start in range(0, len(one), _TILE_ROWS):
        part = one[start : start + _TILE_ROWS]
        reach = np.maximum(_distances(x[part], x[other]), np.maximum(core[part][:, None], core[other]))
        smallest = min(smallest, float(reach.min()))
    return smallest
