"""Array functions of spherical k-means: no Ray, no files, no state.

``x`` has shape (n_samples, n_features), float32 and unit rows; ``centroids`` (n_clusters, n_features).
On the unit sphere ``distance_sq = 2 - 2 * similarity`` (Dhillon & Modha, 2001).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

TILE_ROWS = 4096
"""Rows of one matrix product. Constant, because a product's last bits may depend on its height."""

SIMILARITY_BINS = 8192
"""Resolution of similarity quantiles over [-1, 1]."""

_ALONE = 1e-5
"""What is left of a cluster's sum without one row, of its length: less is rounding, the row was alone."""


def nearest(x: NDArray[np.float32], centroids: NDArray[np.float32]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Find the most similar centroid of each row. Ties go to the lower id.

    Returns
    -------
    labels : ndarray of shape (n_samples,), int32
    similarity : ndarray of shape (n_samples,), float32
        Cosine, at most 1.
    """
    labels = np.empty(len(x), dtype=np.int32)
    similarity = np.empty(len(x), dtype=np.float32)
    for start in range(0, len(x), TILE_ROWS):
        part = slice(start, start + TILE_ROWS)
        products = x[part] @ centroids.T
        labels[part] = products.argmax(axis=1)
        rows = np.arange(len(products))
        similarity[part] = np.minimum(products[rows, labels[part]], 1.0)  # a second look for the maximum costs as much
    return labels, similarity


def partial_sums(
    x: NDArray[np.float32], weights: NDArray[np.float64], labels: NDArray[np.int32], n_clusters: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Compute the weighted sum of each cluster's rows, and their total weight.

    Returns
    -------
    sums : ndarray of shape (n_clusters, n_features), float64
    mass : ndarray of shape (n_clusters,), float64
    """
    sums = np.zeros((n_clusters, x.shape[1]))
    for start in range(0, len(x), TILE_ROWS):
        part = slice(start, start + TILE_ROWS)
        rows = x[part].astype(np.float64)
        columns = np.arange(len(rows))
        sums += sp.csr_array((weights[part], (labels[part], columns)), shape=(n_clusters, len(rows))) @ rows
    mass = np.bincount(labels, weights=weights, minlength=n_clusters).astype(np.float64)
    return sums, mass


def weighted_inertia(similarity: NDArray[np.float32], weights: NDArray[np.float64]) -> float:
    """Sum ``weight * distance_sq``, the objective that k-means minimises."""
    return float(np.sum(weights * (2.0 - 2.0 * similarity.astype(np.float64))))


def new_centroids(sums: NDArray[np.float64], previous: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute the directions of the cluster sums. A sum of no length keeps its previous centroid."""
    norms = np.linalg.norm(sums, axis=1, keepdims=True)
    moved = (sums / np.where(norms == 0, 1, norms)).astype(np.float32)
    return np.where(norms == 0, previous, moved)


def row_weights(
    groups: Mapping[tuple[str, str], float], role_mass: Mapping[str, float]
) -> dict[tuple[str, str], float]:
    """Compute the weight of one row of each (role, language).

    Roles get their mass, languages share it by √count. ``role_mass`` is renormalised over the roles that are present,
    so all weights sum to one.
    """
    present = {role for (role, _), count in groups.items() if count}
    total_mass = sum(role_mass[role] for role in present)
    shares = {role: sum(count**0.5 for (r, _), count in groups.items() if r == role) for role in present}
    return {
        (role, lang): role_mass[role] / total_mass * count**0.5 / shares[role] / count
        for (role, lang), count in groups.items()
        if count
    }


def nearest_leave_one_out(
    x: NDArray[np.float32], weights: NDArray[np.float64], centroids: NDArray[np.float32], lengths: NDArray[np.float64]
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.float16]]:
    """Find each row's most similar centroid, had that row not been fitted.

    Each row is left out by itself, or with its copies. A centroid is the direction of a sum, and a row of large weight
    turns it towards itself: what the rows of a sample say of clusters is not what the next ones will. Without the row
    its centroid is the direction of what is left of the sum; the length of the sum, the weight of the row and its
    distance say how near it lies to that. This is exact where k-means has come to rest, so that the row is in the sum
    of its nearest centroid, and if without it the others would stay where they are.

    Parameters
    ----------
    x : ndarray of shape (n_samples, n_features), float32
    weights : ndarray of shape (n_samples,), float64
        Of each row in the fit, or of it and its copies: see :func:`with_copies`; 0 for a row that was not in it.
    centroids : ndarray of shape (n_clusters, n_features), float32
    lengths : ndarray of shape (n_clusters,), float64
        Of the sums that centroids are the directions of, 0 for a centroid that is none and stays as it is.

    Returns
    -------
    labels : ndarray of shape (n_samples,), int32
    similarity : ndarray of shape (n_samples,), float32
    cosines : ndarray of shape (n_samples, n_clusters), float16
        With all centroids. Only that with the nearest is another than :func:`nearest` goes by: never higher, and at
        least the lowest of its row, which is what a row has that was alone in its cluster.
    """
    labels = np.empty(len(x), dtype=np.int32)
    similarity = np.empty(len(x), dtype=np.float32)
    cosines = np.empty((len(x), len(centroids)), dtype=np.float16)
    exact = centroids.astype(np.float64)  # products in float32 follow, in their last bits, what other rows there are
    for start in range(0, len(x), TILE_ROWS):
        part = slice(start, start + TILE_ROWS)
        products = x[part].astype(np.float64) @ exact.T
        np.minimum(products, 1.0, out=products)
        rows, own = np.arange(len(products)), products.argmax(axis=1)
        offset = x[part].astype(np.float64) - centroids[own]  # cosines near 1 would have lost what is looked for
        without = _without(np.einsum("nd,nd->n", offset, offset), weights[part], lengths[own])
        highest, lowest = products[rows, own], products.min(axis=1)
        products[rows, own] = np.where(np.isnan(without), highest, np.clip(without, lowest, highest))
        labels[part], similarity[part], cosines[part] = products.argmax(axis=1), products.max(axis=1), products
    return labels, similarity, cosines


def with_copies(weights: NDArray[np.float64], codes: NDArray[np.int64]) -> NDArray[np.float64]:
    """Sum the weights of each row and of those equal to it. Equal rows have the same code; shape (n,)."""
    total = np.bincount(codes, weights).astype(np.float64)
    return total[codes]


def _without(
    distance_sq: NDArray[np.float64], weights: NDArray[np.float64], lengths: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Compute cosines of rows with what is left of sums without them.
    They are -1 where nothing is left, NaN where nothing is taken away.

    With ``|x| = 1`` and ``S = L c``, ``|S - w x|² = (L - w)² + L w |x - c|²`` and
    ``(S - w x)·x = L - w - L |x - c|² / 2``.
    """
    rest = np.sqrt((lengths - weights) ** 2 + lengths * weights * distance_sq)
    alone = rest <= _ALONE * lengths
    cosine = (lengths - weights - lengths * distance_sq / 2) / np.where(alone, 1.0, rest)
    found: NDArray[np.float64] = np.where((weights == 0) | (lengths == 0), np.nan, np.where(alone, -1.0, cosine))
    return found


def similarity_histogram(similarity: NDArray[np.float32]) -> NDArray[np.int64]:
    """Count similarities in equal bins of [-1, 1]. Counts of different shards simply add up."""
    bins = np.floor((similarity.astype(np.float64) + 1) * (SIMILARITY_BINS / 2)).astype(np.int64)
    return np.bincount(np.clip(bins, 0, SIMILARITY_BINS - 1), minlength=SIMILARITY_BINS)


def similarity_quantile(histogram: NDArray[np.int64], fraction: float) -> float:
    """Find the similarity that at most ``fraction`` of counted rows lie below. It is right to one bin."""
    below = np.cumsum(histogram)
    bin_number = int(np.searchsorted(below, fraction * below[-1], side="right"))
    return bin_number / (SIMILARITY_BINS / 2) - 1
