"""The selection problem of one owner, as arrays; built from a merged histogram."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


@dataclass(frozen=True)
class OwnerProblem:
    """Counts of documents that decide an owner's quotas.

    K is the number of clusters, L the number of pool languages; index K of the (K + 1,) arrays is
    the outlier bin.
    """

    owner: str
    languages: tuple[str, ...]
    target: NDArray[np.int64]  # (K + 1,), without the held-out part
    heldout: NDArray[np.int64]  # (K + 1,)
    current: NDArray[np.int64]  # (K + 1,)
    capacity: NDArray[np.int64]  # (K, L), eligible pool documents
    other_targets: NDArray[np.int64]  # (K,), target documents of all other owners, without the held-out part

    @property
    def cluster_capacity(self) -> NDArray[np.int64]:
        """Eligible pool documents by cluster, shape (K,)."""
        by_cluster: NDArray[np.int64] = self.capacity.sum(axis=1)
        return by_cluster


def build_problems(histogram: pa.Table, n_clusters: int) -> list[OwnerProblem]:
    """One problem for each owner with target documents, in alphabetical order.

    Parameters
    ----------
    histogram : Table of schema HISTOGRAM
        Merged over all shards.
    """
    targets = _where(histogram, role="target")
    heldout = _where(histogram, role="heldout")
    owners = sorted({*targets["owner"].to_pylist(), *heldout["owner"].to_pylist()})
    pool = _where(histogram, role="pool")
    languages = tuple(sorted(set(pool["lang"].to_pylist())))
    pool_counts = _by_language(pool, n_clusters, languages)
    by_owner = {owner: _counts(_where(targets, owner=owner), n_clusters) for owner in owners}
    all_targets = _counts(targets, n_clusters)
    return [
        OwnerProblem(
            owner=owner,
            languages=languages,
            target=by_owner[owner],
            heldout=_counts(_where(heldout, owner=owner), n_clusters),
            current=_counts(_where(histogram, role="current", owner=owner), n_clusters),
            capacity=pool_counts
            - _by_language(_where(histogram, role="ineligible", owner=owner), n_clusters, languages),
            other_targets=(all_targets - by_owner[owner])[:n_clusters],
        )
        for owner in owners
    ]


def _where(table: pa.Table, **values: str) -> pa.Table:
    for name, value in values.items():
        table = table.filter(pc.equal(table[name], value))
    return table


def _counts(table: pa.Table, n_clusters: int) -> NDArray[np.int64]:
    counts = np.zeros(n_clusters + 1, dtype=np.int64)
    np.add.at(counts, table["cluster"].to_numpy(), table["documents"].to_numpy())
    return counts


def _by_language(table: pa.Table, n_clusters: int, languages: tuple[str, ...]) -> NDArray[np.int64]:
    counts = np.zeros((n_clusters + 1, len(languages)), dtype=np.int64)
    position = {lang: index for index, lang in enumerate(languages)}
    columns = [position[lang] for lang in table["lang"].to_pylist()]
    np.add.at(counts, (table["cluster"].to_numpy(), columns), table["documents"].to_numpy())
    return counts[:n_clusters]  # outliers are never drawn
