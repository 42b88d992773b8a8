"""Which documents fill the quotas: the highest keys of each cell.

A cell is all that one quota asks for: a target language's documents of one cluster and language, of one language, or of
the whole pool. A document's key does not depend on other documents, so the best of a union of shards are the best of
their bests: candidates merge in any order and grouping.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from compass_ray import records

QUOTA = pa.schema([("target_lang", pa.string()), ("cluster", pa.int32()), ("lang", pa.string()), ("quota", pa.int64())])
"""``cluster`` and ``lang`` are null where a quota does not mind; alike in all quotas of a target language."""

Unit = Literal["documents", "tokens"]


def sizes(rows: pa.Table, unit: Unit) -> NDArray[np.int64]:
    """Count each row in the unit of a budget: its tokens, or one. Shape (n,)."""
    found: NDArray[np.int64] = rows["tokens"].to_numpy() if unit == "tokens" else np.ones(rows.num_rows, dtype=np.int64)
    return found


def quota_table(target_lang: str, languages: Sequence[str], quotas: NDArray[np.int64]) -> pa.Table:
    """List the cells with a quota above zero.

    Parameters
    ----------
    quotas : ndarray of shape (n_clusters, n_languages), (n_languages,) or ()
        By cluster and language, by language, or for the whole pool.
    """
    positions = np.nonzero(np.atleast_1d(quotas))
    count = len(positions[0])
    by_cluster, by_language = quotas.ndim == 2, quotas.ndim >= 1
    langs = [languages[column] for column in positions[-1].tolist()] if by_language else [None] * count
    return pa.table(
        {
            "target_lang": pa.array([target_lang] * count, pa.string()),
            "cluster": pa.array(positions[0], pa.int32()) if by_cluster else pa.nulls(count, pa.int32()),
            "lang": pa.array(langs, pa.string()),
            "quota": pa.array(np.atleast_1d(quotas)[positions], pa.int64()),
        },
        schema=QUOTA,
    )


class Cells:
    """The cells of a quota table, numbered in its order; and which of them a row belongs to."""

    def __init__(self, quotas: pa.Table) -> None:
        self.limits: NDArray[np.int64] = quotas["quota"].to_numpy()
        self._target_langs = pc.unique(quotas["target_lang"])
        self._langs = pc.unique(quotas["lang"])
        self._clusters = pc.unique(quotas["cluster"])
        target_lang, cluster, lang = self._codes(quotas)
        count = len(self._target_langs)
        self._any_cluster = np.zeros(count, dtype=bool)
        self._any_lang = np.zeros(count, dtype=bool)
        self._any_cluster[target_lang] = np.asarray(quotas["cluster"].is_null())
        self._any_lang[target_lang] = np.asarray(quotas["lang"].is_null())
        names = self._names(target_lang, cluster, lang)
        self._order = np.argsort(names, kind="stable")
        self._sorted = names[self._order]

    def of(self, rows: pa.Table) -> NDArray[np.int64]:
        """Find the number of each row's cell, shape (n,). It is -1 where no quota asks for the row."""
        if not len(self._sorted):
            return np.full(rows.num_rows, -1, dtype=np.int64)
        target_lang, cluster, lang = self._codes(rows)
        known = target_lang >= 0
        names = self._names(np.where(known, target_lang, 0), cluster, lang)
        place = np.minimum(np.searchsorted(self._sorted, names), len(self._sorted) - 1)
        found = known & (self._sorted[place] == names)
        return np.where(found, self._order[place], -1)

    def _codes(self, rows: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        return (
            _code(rows["target_lang"], self._target_langs),
            _code(rows["cluster"], self._clusters),
            _code(rows["lang"], self._langs),
        )

    def _names(
        self, target_lang: NDArray[np.int64], cluster: NDArray[np.int64], lang: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Give one number to each (target language, cluster, language).
        Clusters and languages count where the target language's quotas mind them; 0 is unknown or any.
        """
        cluster = np.where(self._any_cluster[target_lang], 0, cluster + 1)
        lang = np.where(self._any_lang[target_lang], 0, lang + 1)
        name: NDArray[np.int64] = (target_lang * (len(self._clusters) + 1) + cluster) * (len(self._langs) + 1) + lang
        return name


def _code(column: Any, values: Any) -> NDArray[np.int64]:
    codes = pc.fill_null(pc.index_in(column, value_set=values.drop_null()), -1)
    return np.asarray(codes).astype(np.int64)


def keep_best(rows: pa.Table, quotas: pa.Table, unit: Unit = "documents") -> pa.Table:
    """Keep each cell's rows of highest keys, up to its quota. They are ordered by cell, best first.

    In tokens, a cell's rows are kept in order up to and with the first that passes the quota: a merge with other
    rows may move that boundary forward only, so merging stays exact.

    Parameters
    ----------
    rows : Table of schema CANDIDATE
    quotas : Table of schema QUOTA
    """
    cells = Cells(quotas)
    ranked, cell = _ranked(rows, cells)
    before = rank_in_run(cell)
    if unit == "tokens":
        tokens = rows["tokens"].to_numpy()[ranked]
        before = sum_in_run(cell, tokens) - tokens
        return rows.take(pa.array(ranked[before <= cells.limits[cell]]))
    return rows.take(pa.array(ranked[before < cells.limits[cell]]))


def fill_tokens(rows: pa.Table, quotas: pa.Table) -> pa.Table:
    """Take the rows that quotas in tokens are spent on.

    This goes cell by cell, in key order, until the next row would pass. What a cell leaves over goes to the next cell,
    so that all cells together lose less than one document. A cell may so hold a document more than its quota.
    """
    cells = Cells(quotas)
    ranked, cell = _ranked(rows, cells)
    tokens = rows["tokens"].to_numpy()[ranked]
    ends = np.searchsorted(cell, np.arange(len(cells.limits) + 1))
    kept, carried = [], 0
    for number, limit in enumerate(cells.limits.tolist()):
        part = slice(ends[number], ends[number + 1])
        used = np.cumsum(tokens[part])
        count = int(np.searchsorted(used, limit + carried, side="right"))
        kept.append(ranked[part][:count])
        carried += limit - (int(used[count - 1]) if count else 0)
    return rows.take(pa.array(np.concatenate([np.zeros(0, dtype=np.int64), *kept])))


def _ranked(rows: pa.Table, cells: Cells) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find the rows that belong to a cell: their positions and cells. They come by cell, best first."""
    cell = cells.of(rows)
    ranked = by_key(rows, cell)
    ranked = ranked[cell[ranked] >= 0]
    return ranked, cell[ranked]


def by_key(rows: pa.Table, group: NDArray[np.int64]) -> NDArray[np.int64]:
    """Order the positions of candidates by group, then falling key. Ties go to the lower id."""
    words = records.ids_to_words(records.ids_to_numpy(rows["doc_id"]))
    order: NDArray[np.int64] = np.lexsort((words[:, 1], words[:, 0], -rows["key"].to_numpy(), group))
    return order


def in_rank_order(drawn: pa.Table) -> NDArray[np.int64]:
    """Order the positions of drawn documents by cluster, then tier, falling key and id.
    All are of one target language.
    """
    words = records.ids_to_words(records.ids_to_numpy(drawn["doc_id"]))
    keys = (drawn["tier"].to_numpy(), drawn["cluster"].to_numpy())
    order: NDArray[np.int64] = np.lexsort((words[:, 1], words[:, 0], -drawn["key"].to_numpy(), *keys))
    return order


def ranks(drawn: pa.Table) -> pa.Table:
    """Rank one target language's drawn documents from 1 within their cluster. ``rank`` comes in place of ``tier``."""
    ordered = drawn.take(pa.array(in_rank_order(drawn)))
    position = rank_in_run(ordered["cluster"].to_numpy())
    return ordered.drop_columns(["tier"]).append_column("rank", pa.array(position + 1))


def rank_in_run(sorted_groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Find each element's position within its run of equal, adjacent values."""
    return np.arange(len(sorted_groups)) - _run_start(sorted_groups)


def _run_start(sorted_groups: NDArray[np.int64]) -> NDArray[np.int64]:
    """Find where each element's run begins."""
    if not len(sorted_groups):
        return np.zeros(0, dtype=np.int64)
    starts = np.flatnonzero(np.r_[True, sorted_groups[1:] != sorted_groups[:-1]])
    return np.repeat(starts, np.diff(np.r_[starts, len(sorted_groups)]))


def sum_in_run(sorted_groups: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.int64]:
    """Compute running sums that begin anew with each run."""
    total = np.r_[0, np.cumsum(values)]
    sums: NDArray[np.int64] = total[1:] - total[_run_start(sorted_groups)]
    return sums
