"""How good a clustering is, without labels: what the choice of the number of clusters goes by. Array functions.

``x`` has shape (n_samples, n_features), float32 and unit rows; ``centroids`` (n_clusters, n_features).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compass_ray.cluster.kernels import TILE_ROWS
from compass_ray.usage_shares import Observed, estimate_usage


def simplified_silhouette(
    x: NDArray[np.float32], weights: NDArray[np.float64], centroids: NDArray[np.float32]
) -> float:
    """Compute the weighted mean of ``(b - a) / b`` over rows.

    It sets a row's distance to its centroid, a, against that to the next one, b. This is the silhouette with centroids
    in the place of all rows (Hruschka, de Castro & Campello, 2004): ``2·n·K·d`` FLOP instead of ``2·n²·d``.

    Returns
    -------
    float
        In [0, 1]: 0 when every row lies between two centroids, 1 when it lies on one.
    """
    total = 0.0
    for start in range(0, len(x), TILE_ROWS):
        part = slice(start, start + TILE_ROWS)
        two = np.partition(x[part] @ centroids.T, -2, axis=1)[:, -2:].astype(np.float64)
        other, own = np.sqrt(np.maximum(0.0, 2.0 - 2.0 * two)).T
        total += float(weights[part] @ ((other - own) / np.where(other == 0, 1.0, other)))
    return total / float(weights.sum())


def usage_gains(
    clusters: NDArray[np.int32],
    shares: NDArray[np.float64],
    target_langs: NDArray[np.int32],
    copies: NDArray[np.int64],
    folds: NDArray[np.int32],
    pool: NDArray[np.int64],
    current: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Compute how much better than the pool other usage foretells usage, in bits.

    Foretold is where each usage document lies; the other usage is of the same target language. For a document in
    cluster c: ``log2 p̃(c) / p_pool(c)``, where p̃ is the share that the selection would go by
    (:mod:`compass_ray.usage_shares`), from the target language's documents of the other folds. Too few clusters and
    usage looks like the pool; too many and a document's cluster holds no other usage. Usage of other target languages
    stays out: it may hold translations of the same documents, which would speak for ever finer clusters. A cluster that
    the pool does not reach gains nothing: no selection could serve it.

    Parameters
    ----------
    clusters, target languages, copies, folds : ndarray of shape (n_target,), int
        Of each usage document: its cluster, the number of its target language, how often its target language has it,
        and its fold. The codebook is fitted once, to all folds, so a cluster is that of
        :func:`~compass_ray.cluster.kernels.nearest_leave_one_out`.
    shares : ndarray of shape (n_target, n_clusters), float64
        How each usage document is shared among clusters: :func:`compass_ray.usage_shares.soft_counts`.
    pool : ndarray of shape (n_clusters,), int64
        Pool documents.
    current : ndarray of shape (n_target_langs, n_clusters), int64
        Current documents of each target language.

    Returns
    -------
    ndarray of shape (n_target,), float64
    """
    share = pool / max(1, pool.sum())
    gains = np.zeros(len(clusters))
    for target_lang in np.unique(target_langs):
        mine = target_langs == target_lang
        for fold in np.unique(folds[mine]):
            known = mine & (folds != fold)
            counts = np.bincount(clusters[known], minlength=len(pool))
            own = np.bincount(clusters[known], copies[known] * shares[known, clusters[known]], minlength=len(pool))
            squares = np.bincount(clusters[known], copies[known], minlength=len(pool))
            observed = Observed(counts, squares, shares[known].sum(axis=0), own)
            estimate, _ = estimate_usage(observed, current[target_lang])
            asked = np.flatnonzero(mine & (folds == fold))
            there = clusters[asked]
            reached = share[there] > 0
            gains[asked[reached]] = np.log2(estimate[there[reached]] / share[there[reached]])
    return gains
