"""Which pool rows nearly repeat usage: they say the same words, or lie as near to it as near-duplicates do.

All usage counts, held out or not: were rows near to held-out usage alone refused, the certificate would measure on
usage that the selection keeps away from. Pure array functions over blocks of usage; what is found does not depend on
how usage is cut into blocks, nor on the rows that are compared beside one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from compass_ray import records
from compass_ray.sample.usage_contrast import products
from compass_ray.vectors import from_column, unit_rows
from compass_ray.words import Hashes, word_hashes

TILE_ROWS = 256

_AXES, _FEW = 63, 256
"""How many axes usage is looked at along before it is compared, and how many of its rows they are found by."""

_SLACK = 1e-5
"""More than rounding takes from a squared length."""

Positions = NDArray[np.intp]


@dataclass(frozen=True)
class Compared:
    """Documents as they are compared, by id and each once.

    Attributes
    ----------
    ids : ndarray of shape (n, 16), uint8
    words : ndarray of shape (n,), uint64
        The hash of all words, where there is any.
    has_words : ndarray of shape (n,), bool
    vectors : ndarray of shape (n, d), float16
        As the encoder gave them; zero where that was nothing finite.
    """

    ids: NDArray[np.uint8]
    words: Hashes
    has_words: NDArray[np.bool_]
    vectors: NDArray[np.float16]

    @classmethod
    def of(cls, documents: pa.Table, embeddings: pa.Table) -> Compared:
        """Reduce documents to what they are compared by.

        Parameters
        ----------
        documents : Table
            Columns doc_id and text.
        embeddings : Table
            Columns doc_id and vector, which may be null: of these documents, and perhaps of others.
        """
        numbers = records.ids_to_words(records.ids_to_numpy(documents["doc_id"]))
        _, first = np.unique(numbers, axis=0, return_index=True)
        documents = documents.take(pa.array(first))
        words, has_words = np.zeros(len(first), dtype=np.uint64), np.zeros(len(first), dtype=bool)
        hashes, rows = word_hashes(documents["text"].to_pylist())
        words[rows], has_words[rows] = hashes, True
        zero = pa.scalar([0.0] * embeddings["vector"].type.list_size, embeddings["vector"].type)
        place = pc.index_in(documents["doc_id"], value_set=embeddings["doc_id"].combine_chunks())
        vectors = from_column(embeddings["vector"].take(place).fill_null(zero))
        return cls(records.ids_to_numpy(documents["doc_id"]), words, has_words, vectors)

    def units(self) -> NDArray[np.float32]:
        """Compute unit vectors, shape (n, d). They are zero where there is no direction, so that no cosine is high."""
        units = unit_rows(self.vectors)
        units[~self.vectors.any(axis=1)] = 0
        return units


@dataclass(frozen=True)
class Usage:
    """A block of usage documents, by id.

    Attributes
    ----------
    rows : Compared
    target_lang : ndarray of shape (n,), int64
        The target language of each as a number.
    axes : ndarray of shape (at most _AXES, d), float32
        Directions along which they lie most, at right angles to one another.
    """

    rows: Compared
    target_lang: NDArray[np.int64]
    axes: NDArray[np.float32]

    @classmethod
    def of(cls, documents: pa.Table, embeddings: pa.Table, target_langs: Sequence[str]) -> Usage:
        """Reduce usage to what it is compared by; ``documents`` has a column target language too."""
        rows = Compared.of(documents, embeddings)
        place = pc.index_in(records.numpy_to_ids(rows.ids), value_set=documents["doc_id"].combine_chunks())
        number = pc.index_in(documents["target_lang"].take(place), value_set=pa.array(target_langs, pa.string()))
        return cls(rows, number.to_numpy().astype(np.int64), _main_axes(rows))

    @classmethod
    def joined(cls, parts: Sequence[Usage]) -> Usage:
        """Make one block of several that have no id in common."""
        rows = [part.rows for part in parts]
        ids = np.concatenate([one.ids for one in rows])
        order = np.lexsort(records.ids_to_words(ids).T[::-1])
        columns = ([getattr(one, name) for one in rows] for name in ("words", "has_words", "vectors"))
        together = Compared(ids[order], *(np.concatenate(column)[order] for column in columns))
        return cls(together, np.concatenate([part.target_lang for part in parts])[order], _main_axes(together))


class _Pairs(NamedTuple):
    """Pool rows and usage that they are near to; arrays of shape (n_pairs,)."""

    pool: Positions
    target_lang: NDArray[np.int64]
    same_words: NDArray[np.bool_]
    usage: NDArray[np.uint8]  # (n_pairs, 16), ids

    def lowest(self) -> _Pairs:
        """Keep one pair for each pool row and target language.
        It is of the same words if there is one, then of the lowest id.
        """
        high, low = records.ids_to_words(self.usage).T
        order = np.lexsort((low, high, ~self.same_words, self.target_lang, self.pool))
        pool, target_lang = self.pool[order], self.target_lang[order]
        first = np.ones(len(order), dtype=bool)
        first[1:] = (pool[1:] != pool[:-1]) | (target_lang[1:] != target_lang[:-1])
        rows = order[first]
        return _Pairs(self.pool[rows], self.target_lang[rows], self.same_words[rows], self.usage[rows])


def near_usage(
    pool: Compared, blocks: Iterable[Usage], target_langs: Sequence[str], similarity: float | None
) -> pa.Table:
    """Find the pool rows that nearly repeat usage of each target language.

    Parameters
    ----------
    pool : Compared
    blocks : iterable of Usage
        All usage in blocks, of which one is looked at at a time.
    target_langs : sequence of str
        The target languages that the numbers mean.
    similarity : float, optional
        The cosine from which on a row is too near; without it words alone are compared.

    Returns
    -------
    Table of schema NEAR_USAGE
        Each pool row at most once for a target language. Cost: ``128·n·m`` FLOP for n pool and m usage documents, and
        ``2·m·d`` for each pool row that may be near to any, as far as the main axes of usage can tell; memory ``4·d``
        bytes a pool row and a row of the largest block, and TILE_ROWS products with each of the latter.
    """
    units = pool.units() if similarity is not None else None
    found = _joined([])
    for block in blocks:
        parts = [found, _same_words(pool, block)]
        if units is not None and similarity is not None:
            parts.append(_similar(units, block, similarity))
        found = _joined(parts).lowest()
    columns = [
        records.numpy_to_ids(pool.ids[found.pool]),
        pa.array([target_langs[number] for number in found.target_lang.tolist()], pa.string()),
        records.numpy_to_ids(found.usage),
        pa.array(found.same_words),
    ]
    return pa.table(columns, schema=records.NEAR_USAGE)


def _joined(parts: Sequence[_Pairs]) -> _Pairs:
    return _Pairs(
        np.concatenate([np.zeros(0, np.intp), *(part.pool for part in parts)]),
        np.concatenate([np.zeros(0, np.int64), *(part.target_lang for part in parts)]),
        np.concatenate([np.zeros(0, np.bool_), *(part.same_words for part in parts)]),
        np.concatenate([np.zeros((0, 16), np.uint8), *(part.usage for part in parts)]),
    )


def _same_words(pool: Compared, usage: Usage) -> _Pairs:
    """Find pool rows that say the words of a usage document.
    Each comes with the first of a target language that does.
    """
    rows = np.flatnonzero(usage.rows.has_words)
    keys = np.stack([usage.rows.words[rows], usage.target_lang[rows].astype(np.uint64)], axis=1)
    keys, first = np.unique(keys, axis=0, return_index=True)  # rows are by id, so the first is the lowest
    rows, known = rows[first], keys[:, 0]
    asked = np.flatnonzero(pool.has_words)
    begins, ends = (np.searchsorted(known, pool.words[asked], side) for side in ("left", "right"))
    counts = ends - begins
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    rows = rows[np.repeat(begins, counts) + within]
    same = np.ones(len(rows), dtype=bool)
    return _Pairs(np.repeat(asked, counts), usage.target_lang[rows], same, usage.rows.ids[rows])


def _similar(units: NDArray[np.float32], usage: Usage, similarity: float) -> _Pairs:
    """Find pool rows that lie near to a usage document.
    Each comes with the first of a target language that it lies near to.
    """
    known = usage.rows.units()
    error = known.shape[1] * 2.0**-23  # of a product in float32, at most: nearer to the limit it is computed again
    bounds, known_bounds = _bounds(units, usage.axes), _bounds(known, usage.axes)
    found = [_joined([])]
    for start in range(0, len(units), TILE_ROWS):
        highest = (bounds[start : start + TILE_ROWS] @ known_bounds.T).max(axis=1, initial=-1)
        rows = start + np.flatnonzero(highest >= similarity - error)
        for row, cosines in zip(rows.tolist(), units[rows] @ known.T, strict=True):
            near = np.flatnonzero(cosines >= similarity - error)
            unsure = cosines[near] < similarity + error
            exact = products(known[near[unsure]], units[row].astype(np.float64))
            unsure[unsure] = exact < similarity
            near = near[~unsure]
            target_lang, first = np.unique(usage.target_lang[near], return_index=True)
            place = np.full(len(target_lang), row, dtype=np.intp)
            found.append(
                _Pairs(place, target_lang, np.zeros(len(target_lang), dtype=bool), usage.rows.ids[near[first]])
            )
    return _joined(found)


def _main_axes(rows: Compared) -> NDArray[np.float32]:
    few = unit_rows(rows.vectors[:: max(1, len(rows.vectors) // _FEW)])
    axes: NDArray[np.float32] = np.linalg.svd(few, full_matrices=False)[2][:_AXES]
    return axes


def _bounds(units: NDArray[np.float32], axes: NDArray[np.float32]) -> NDArray[np.float32]:
    """Make short rows that bound products from above, shape (n, n_axes + 1).

    Their products are never below those of the rows they stand for. They hold what lies along some axes, and how much
    lies across them: that two rows have in common across the axes at most what the product of these lengths is (Cauchy,
    Schwarz).
    """
    along = units @ axes.T
    across = np.einsum("ij,ij->i", units, units) - np.einsum("ij,ij->i", along, along)
    return np.column_stack([along, np.sqrt(np.maximum(across, 0) + _SLACK)])
