"""Near-duplicates among candidates: a document is passed over if a better one of its group says nearly the same.

A group is an owner's cluster, or a language of it. Greedy in the order of keys, so what becomes of a document depends
on better ones alone.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from compass_ray import records
from compass_ray.sample.draw import Unit, by_key

Scope = Literal["off", "within_language", "across_languages"]

TILE_ROWS = 256
_BORDERLINE = 1e-5
"""A product's last bits change with the height of its matrix; this near to the limit it is computed on its own."""


def group_codes(rows: pa.Table, scope: Scope) -> NDArray[np.int64]:
    """A number for each row's group: its cluster, and within languages its language; owners are apart.

    Parameters
    ----------
    rows : Table of schema CANDIDATE
    """
    names = ["owner", "cluster"] + (["lang"] if scope == "within_language" else [])
    codes = np.zeros(rows.num_rows, dtype=np.int64)
    for name in names:
        values = rows[name].combine_chunks().dictionary_encode()
        codes = codes * (len(values.dictionary) + 1) + values.indices.to_numpy()
    return codes


def duplicates(rows: pa.Table, x: NDArray[np.float32], scope: Scope, limit: float, unit: Unit) -> pa.Array:
    """What each candidate nearly repeats.

    Parameters
    ----------
    rows : Table
        Schema CANDIDATE with ``cell`` and ``room``, whole groups, in any order.
    x : ndarray of shape (n, d), float32
        Their unit vectors.
    limit : float
        Cosine above which two documents are near-duplicates.

    Returns
    -------
    Array of ids, in the order of ``rows``
        The best accepted document that this one nearly repeats; null where there is none.
    """
    ids = records.ids_to_numpy(rows["doc_id"])
    cell, room = (rows[name].to_numpy() for name in ("cell", "room"))
    size = rows["tokens"].to_numpy() if unit == "tokens" else np.ones(len(cell), dtype=np.int64)
    group = group_codes(rows, scope)
    order = by_key(rows, group)
    edges = np.flatnonzero(np.diff(group[order])) + 1
    found: list[bytes | None] = [None] * len(cell)
    for members in np.split(order, edges):
        for row, of in enumerate(keep_distinct(x[members], limit, cell[members], room[members], size[members])):
            if of >= 0:
                found[members[row]] = ids[members[of]].tobytes()
    return pa.array(found, records.ID)


def keep_distinct(
    x: NDArray[np.float32], limit: float, cell: NDArray[np.int64], room: NDArray[np.int64], size: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Greedy suppression within one group whose rows come best first.

    A row is accepted unless an accepted row before it has a cosine above ``limit``. Once a cell has no room for a row,
    its later rows cannot be drawn, so they suppress nobody and are not looked at. The first n answers are those for
    the first n rows alone.

    Parameters
    ----------
    x : ndarray of shape (n, d), float32
        Unit rows.
    limit : float
    cell, room, size : ndarray of shape (n,), int64
        The cell that a row belongs to, how much that may hold, and how much of it the row takes.

    Returns
    -------
    ndarray of shape (n,), int64
        The first accepted row that a row nearly repeats, -1 where there is none. Cost ``2·n·a·d`` FLOP for a accepted
        rows, memory ``(a + TILE_ROWS)·d``.
    """
    duplicate_of = np.full(len(x), -1, dtype=np.int64)
    accepted: list[int] = []
    used: dict[int, int] = {}
    closed: set[int] = set()
    for start in range(0, len(x), TILE_ROWS):
        tile = x[start : start + TILE_ROWS]
        before = len(accepted)
        earlier = tile @ x[accepted].T
        inside = tile @ tile.T
        for row in range(len(tile)):
            position = start + row
            where = int(cell[position])
            if where in closed:
                continue
            fresh = accepted[before:]
            similarity = np.concatenate([earlier[row], inside[row, np.array(fresh, dtype=np.int64) - start]])
            of = _first_above(x, position, accepted, similarity, limit)
            if of >= 0:
                duplicate_of[position] = of
                continue
            used[where] = used.get(where, 0) + int(size[position])
            if used[where] > room[position]:
                closed.add(where)
            else:
                accepted.append(position)
    return duplicate_of


def _first_above(
    x: NDArray[np.float32], position: int, accepted: list[int], similarity: NDArray[np.float32], limit: float
) -> int:
    for index in np.flatnonzero(similarity > limit - _BORDERLINE).tolist():
        other = accepted[index]
        if similarity[index] > limit + _BORDERLINE:
            return other
        if float(np.dot(x[position].astype(np.float64), x[other].astype(np.float64))) > limit:
            return other
    return -1
