"""Outlier thresholds: how far from its centroid a document of a language may lie.

Usage and current data set the threshold of a language that has enough of them. Another language is held against its
own pool: encoders do not place all languages equally near to centroids, so the threshold of others would call most of
such a language outlying. Cost: counts of similarities, ``8·SIMILARITY_BINS`` bytes a language and kind on the driver.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from compass_ray.cluster import kernels
from compass_ray.cluster.config import ClusterConfig

Group = tuple[bool, str]
"""Whether rows are of the pool, and their language."""
Counts = dict[Group, tuple[NDArray[np.intp], NDArray[np.int64]]]
"""Bins of similarity that are not empty, and how many rows lie in each."""


def count_similarities(embeddings: pa.Table, similarity: NDArray[np.float32]) -> Counts:
    """Count the similarities of one shard's rows by language, apart for the pool."""
    langs = np.array(embeddings["lang"].to_pylist(), dtype=np.str_)
    pooled = np.array(embeddings["role"].to_pylist(), dtype=np.str_) == "pool"
    counts: Counts = {}
    for lang in np.unique(langs):
        for pool in (False, True):
            inside = (langs == lang) & (pooled == pool)
            if inside.any():
                histogram = kernels.similarity_histogram(similarity[inside])
                bins = np.flatnonzero(histogram)
                counts[pool, str(lang)] = (bins, histogram[bins])
    return counts


def thresholds(parts: Iterable[Counts], config: ClusterConfig) -> tuple[dict[str, float], float]:
    """Find the lowest similarity of documents that are no outliers, by language.

    The second value is that of all other languages. A language has the quantile of its usage and current rows, else of
    its pool rows, whichever is first to have ``outlier_min_rows``. Without either it has the quantile of usage and
    current rows of all languages.
    """
    totals: dict[Group, NDArray[np.int64]] = {}
    for counts in parts:
        for group, (bins, rows) in counts.items():
            total = totals.setdefault(group, np.zeros(kernels.SIMILARITY_BINS, dtype=np.int64))
            total[bins] += rows
    tail = 1 - config.outlier_quantile
    own: dict[str, float] = {}
    for (_, lang), total in sorted(totals.items(), key=lambda item: item[0]):  # usage and current before the pool
        if lang not in own and total.sum() >= config.outlier_min_rows:
            own[lang] = kernels.similarity_quantile(total, tail)
    used = [total for (pool, _), total in totals.items() if not pool]
    return own, kernels.similarity_quantile(np.sum(used, axis=0), tail) if used else -1.0
