"""How many clusters: one sample clustered with each number of a range, and the number that usage speaks for.

No task shares a sum with another: the choice has the same bits for any number of workers. k-means++ draws centers one
after another, so the first K centers of the largest number are the centers of K: each seed is seeded once. Cost:
``2·n·K·d`` FLOP an iteration for each number and seed; a worker holds the sample, ``4·d`` bytes a row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from compass_ray import records, seeding
from compass_ray.cluster import kernels
from compass_ray.cluster.fit import Broadcast, RowGroup, draw_centers, lloyd
from compass_ray.cluster.sampling import Sample
from compass_ray.cluster.scores import simplified_silhouette, usage_gains
from compass_ray.errors import TooFewSamples
from compass_ray.usage_shares import cluster_weights, soft_counts

SEEDS = 4
"""Clusterings of each number: one alone says more of its seed than of the number (measured:
``benchmarks/results/2026-11-28-selection.md``)."""
MIN_ROWS = 5
"""Rows of the sample for each cluster, on average: fewer, and the number is not tried."""
_FOLDS = 5
_ITERATIONS, _TOL = 50, 1e-3


@dataclass(frozen=True)
class SweepRow:
    """What one number of clusters is like; means over seeds."""

    n_clusters: int
    inertia: float
    silhouette: float
    stability: float  # adjusted Rand index of two seeds (Hubert & Arabie, 1985)
    usage_gain: float | None  # bits a usage document; None without any
    usage_gain_error: float | None  # standard error of the mean over documents


def starts(sample: Sample, n_clusters: int, seed: int) -> NDArray[np.float32]:
    """Draw centers of one seed, shape (at most ``n_clusters``, d).
    They are fewer if the sample has fewer distinct rows.
    """
    return draw_centers(_single_group(sample), n_clusters, sample.rows.x.shape[1], seed)


def _single_group(sample: Sample) -> Broadcast:
    """Make what calls the one row group of this process."""
    group = RowGroup([sample.rows])
    return lambda method, *args: [getattr(group, method)(*args)]


def usable(clusters: Sequence[int], found: int, rows: int) -> list[int]:
    """Keep the numbers that the sample can bear.

    Raises
    ------
    TooFewSamples
        If it bears none.
    """
    bearable = [number for number in clusters if number <= found and number * MIN_ROWS <= rows]
    if not bearable:
        raise TooFewSamples(
            f"cluster.n_clusters: auto tries {min(clusters)} clusters or more and wants {MIN_ROWS} rows for each, but "
            f"only {rows} rows ({found} distinct) were found; set n_clusters, lower cluster.sweep.clusters or add data"
        )
    return bearable


def sweep_row(sample: Sample, centers: Sequence[NDArray[np.float32]], n_clusters: int, seed: int) -> SweepRow:
    """Cluster with one number from each seed's first centers, and score."""
    from sklearn.metrics import adjusted_rand_score

    x, weights = sample.rows.x, sample.rows.weights
    broadcast = _single_group(sample)
    is_usage = sample.roles == "usage"
    names, target_langs = np.unique(sample.target_langs[is_usage], return_inverse=True)
    contents = records.codes_of(records.numpy_to_ids(sample.contents[is_usage]))
    left_out = kernels.with_copies(weights[is_usage], contents)
    _, same, counted = np.unique(contents * len(names) + target_langs, return_inverse=True, return_counts=True)
    trained_on = [(sample.roles == "current") & (sample.target_langs == name) for name in names]
    folds = (seeding.uniform(sample.rows.ids[is_usage], seed, "fold") * _FOLDS).astype(np.int32)
    labels, inertias, silhouettes, gains = [], [], [], []
    for start in centers:
        fit = lloyd(broadcast, start[:n_clusters], max_iterations=_ITERATIONS, tol=_TOL)
        found, similarity = kernels.nearest(x, fit.centroids)
        pool, all_current = (_documents(sample, sample.roles == r, found, n_clusters) for r in ("pool", "current"))
        of_target_lang = [_documents(sample, mine, found, n_clusters) for mine in trained_on]
        current = np.array(of_target_lang, dtype=np.int64).reshape(-1, n_clusters)
        labels.append(found)
        inertias.append(kernels.weighted_inertia(similarity, weights))
        silhouettes.append(simplified_silhouette(x, weights, fit.centroids))
        asked, _, cosines = kernels.nearest_leave_one_out(x[is_usage], left_out, fit.centroids, fit.lengths)
        shares = soft_counts(cosines, cluster_weights(pool, all_current))
        gains.append(usage_gains(asked, shares, target_langs.astype(np.int32), counted[same], folds, pool, current))
    agreement = [adjusted_rand_score(one, other) for one, other in combinations(labels, 2)]
    by_document = np.mean(gains, axis=0)
    some = len(by_document) > 1
    return SweepRow(
        n_clusters,
        float(np.mean(inertias)),
        float(np.mean(silhouettes)),
        float(np.mean(agreement)),
        float(by_document.mean()) if some else None,
        float(by_document.std(ddof=1) / len(by_document) ** 0.5) if some else None,
    )


def _documents(
    sample: Sample, mine: NDArray[np.bool_], labels: NDArray[np.int32], n_clusters: int
) -> NDArray[np.int64]:
    """Count by cluster the documents that some sampled rows stand for, shape (n_clusters,)."""
    counts = np.bincount(labels[mine], weights=1 / sample.inclusion[mine], minlength=n_clusters)
    return np.rint(counts).astype(np.int64)


def choose(rows: Sequence[SweepRow]) -> tuple[int, str]:
    """Choose the number of clusters, and say why in one line.

    With usage the smallest number whose gain lies within one standard error of the best (the rule of Breiman et al.,
    1984, for the size of a tree): what more clusters add could be chance. Without usage the best product of silhouette
    and stability. Ties go to fewer clusters.
    """
    ordered = sorted(rows, key=lambda row: row.n_clusters)
    with_gain = [(row, row.usage_gain) for row in ordered if row.usage_gain is not None]
    if not with_gain:
        best = max(ordered, key=lambda row: row.silhouette * row.stability)
        return best.n_clusters, (
            f"{best.n_clusters} clusters: best silhouette × stability ({best.silhouette:.2f} × {best.stability:.2f}); "
            "there is no usage to go by"
        )
    best, gain = max(with_gain, key=lambda pair: pair[1])
    error = best.usage_gain_error or 0.0
    chosen = next(row for row, its_gain in with_gain if its_gain >= gain - error)
    return chosen.n_clusters, (
        f"{chosen.n_clusters} clusters: smallest within one standard error of the best usage gain "
        f"({gain:.2f} ± {error:.2f} bits at {best.n_clusters})"
    )


def to_table(rows: Sequence[SweepRow]) -> pa.Table:
    """Put the sweep in a table, by number of clusters."""
    columns: dict[str, list[Any]] = {}
    for row in sorted(rows, key=lambda row: row.n_clusters):
        for name, value in asdict(row).items():
            columns.setdefault(name, []).append(value)
    types = {"n_clusters": pa.int32()}
    return pa.table({name: pa.array(values, types.get(name, pa.float64())) for name, values in columns.items()})
