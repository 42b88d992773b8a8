"""Which documents fill the quotas: keyed Gumbel top-q per (owner, cluster, language) cell.

A document's key does not depend on anything but the document, the seed and the owner, so the top-q of a
union of shards is the top-q of their top-q's: candidates merge in any order and grouping.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from compass_ray import records, seeding
from compass_ray.sample.histogram import eligible_mask

QUOTA = pa.schema([("owner", pa.string()), ("cluster", pa.int32()), ("lang", pa.string()), ("quota", pa.int64())])

_CELL = ("owner", "cluster", "lang")


def quota_table(owner: str, languages: Sequence[str], quotas: NDArray[np.int64]) -> pa.Table:
    """The cells with a quota above zero; ``quotas`` has shape (n_clusters, n_languages)."""
    clusters, columns = np.nonzero(quotas)
    return pa.table(
        {
            "owner": [owner] * len(clusters),
            "cluster": clusters.astype(np.int32),
            "lang": [languages[column] for column in columns.tolist()],
            "quota": quotas[clusters, columns],
        },
        schema=QUOTA,
    )


def candidates(assignments: pa.Table, shard: int, quotas: pa.Table, seed: int) -> pa.Table:
    """The best documents of one shard for every cell: never more than a cell's quota.

    Parameters
    ----------
    assignments : Table of schema ASSIGNMENT
    quotas : Table of schema QUOTA

    Returns
    -------
    Table of schema CANDIDATE
    """
    parts = [records.CANDIDATE.empty_table()]
    for owner in sorted(set(quotas["owner"].to_pylist())):
        rows = assignments.filter(pa.array(eligible_mask(assignments, owner)))
        keys = seeding.gumbel(records.ids_to_numpy(rows["doc_id"]), seed, "draw", owner)
        parts.append(
            pa.table(
                {
                    "owner": pa.array([owner] * rows.num_rows, pa.string()),
                    "cluster": rows["cluster"],
                    "lang": rows["lang"],
                    "key": keys,
                    "doc_id": rows["doc_id"],
                    "similarity": rows["similarity"],
                    "shard": pa.array(np.full(rows.num_rows, shard, dtype=np.int32)),
                },
                schema=records.CANDIDATE,
            )
        )
    return keep_best(pa.concat_tables(parts), quotas)


def keep_best(rows: pa.Table, quotas: pa.Table) -> pa.Table:
    """The rows with the highest keys in each cell, up to its quota; ordered by cell, best first.

    Parameters
    ----------
    rows : Table of schema CANDIDATE
    quotas : Table of schema QUOTA
    """
    limits = dict(zip(_cells(quotas), quotas["quota"].to_pylist(), strict=True))
    order = {cell: index for index, cell in enumerate(sorted(limits))}
    cell = np.array([order.get(name, -1) for name in _cells(rows)], dtype=np.int64)
    inside = np.flatnonzero(cell >= 0)
    words = records.ids_to_numpy(rows["doc_id"]).view(">u8").reshape(-1, 2)
    key = rows["key"].to_numpy()
    ranked = inside[np.lexsort((words[inside, 1], words[inside, 0], -key[inside], cell[inside]))]
    limit = np.array([limits[name] for name in sorted(limits)], dtype=np.int64)
    kept = ranked[_rank_in_run(cell[ranked]) < limit[cell[ranked]]]
    return rows.take(pa.array(kept))


def ranks(drawn: pa.Table) -> pa.Table:
    """Number the drawn documents from 1 within owner and cluster, highest key first, as column ``rank``."""
    ids = drawn["doc_id"].cast(pa.binary())
    ordered = drawn.append_column("_id", ids).sort_by(
        [("owner", "ascending"), ("cluster", "ascending"), ("key", "descending"), ("_id", "ascending")]
    )
    runs = list(zip(ordered["owner"].to_pylist(), ordered["cluster"].to_pylist(), strict=True))
    numbers = {run: number for number, run in enumerate(dict.fromkeys(runs))}
    position = _rank_in_run(np.array([numbers[run] for run in runs], dtype=np.int64))
    return ordered.drop_columns(["_id"]).append_column("rank", pa.array(position + 1))


def _cells(table: pa.Table) -> list[tuple[str, int, str]]:
    return list(zip(*(table[name].to_pylist() for name in _CELL), strict=True))


def _rank_in_run(sorted_groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Position of each element within its run of equal, adjacent values."""
    if not len(sorted_groups):
        return np.zeros(0, dtype=np.int64)
    starts = np.flatnonzero(np.r_[True, sorted_groups[1:] != sorted_groups[:-1]])
    lengths = np.diff(np.r_[starts, len(sorted_groups)])
    return np.arange(len(sorted_groups)) - np.repeat(starts, lengths)
