"""Documents that say again what a better candidate says are passed over.

In one language a document repeats another if their cosine lies above one threshold. In two languages they are copies
of one meaning if the cosine without what their languages add (:mod:`compass_ray.centering`) lies above another, lower
threshold, and a few copies are let through. Greedy in the order in which candidates
are drawn, so what becomes of a document depends on better ones alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from compass_ray import records
from compass_ray.centering import LanguageMeans
from compass_ray.sample.draw import Unit, sizes

TILE_ROWS = 256
_BORDERLINE = 1e-5
"""A product's last bits change with the height of its matrix; this near to a limit it is computed on its own."""


@dataclass(frozen=True)
class Sameness:
    """When documents say the same, and how often that may be drawn.

    Attributes
    ----------
    near_duplicate : float
        Cosine above which documents of one language are near-duplicates; ``inf`` looks for none.
    copy : float
        Cosine, without language means, above which documents of different languages are copies of one meaning; ``inf``
        looks for none.
    max_copies : int
        Documents of one meaning that are drawn at most.
    """

    near_duplicate: float
    copy: float = np.inf
    max_copies: int = 1

    @property
    def looked_for(self) -> bool:
        """Whether any documents are compared."""
        return min(self.near_duplicate, self.copy) < np.inf

    @property
    def across(self) -> bool:
        """Whether all candidates of a selection are compared, and not those of a cluster and language alone."""
        return self.copy < np.inf


@dataclass(frozen=True)
class Places:
    """Where the rows of a group would go; arrays of shape (n,).

    Attributes
    ----------
    lang : int
        Number of the language.
    cell, room, size : int64
        The cell that a row belongs to, how much that may hold, and how much of it the row takes.
    kept : bool
        Rows that have been drawn already: they are accepted whatever they say.
    """

    lang: NDArray[np.integer]
    cell: NDArray[np.int64]
    room: NDArray[np.int64]
    size: NDArray[np.int64]
    kept: NDArray[np.bool_]


def group_codes(rows: pa.Table, sameness: Sameness) -> NDArray[np.int64]:
    """Give each row the number of its group. Documents are compared within groups.

    Parameters
    ----------
    rows : Table of schema CANDIDATE
    """
    codes = np.zeros(rows.num_rows, dtype=np.int64)
    for name in ["target_lang"] if sameness.across else ["target_lang", "cluster", "lang"]:
        values = rows[name].combine_chunks().dictionary_encode()
        codes = codes * (len(values.dictionary) + 1) + values.indices.to_numpy()
    return codes


def duplicates(
    rows: pa.Table, x: NDArray[np.float32], means: LanguageMeans, sameness: Sameness, unit: Unit
) -> pa.Array:
    """Find what each candidate says again.

    Parameters
    ----------
    rows : Table
        Schema CANDIDATE with ``order``, ``cell``, ``room`` and ``kept``; whole groups, in any order.
    x : ndarray of shape (n, d), float32
        Their unit vectors.
    means : LanguageMeans
        Subtracted before languages are compared.
    sameness : Sameness

    Returns
    -------
    Array of ids, in the order of ``rows``
        The accepted document for which this one is passed over; null where there is none.
    """
    ids = records.ids_to_numpy(rows["doc_id"])
    lang = rows["lang"].combine_chunks().dictionary_encode().indices.to_numpy()
    order, cell, room = (rows[name].to_numpy() for name in ("order", "cell", "room"))
    kept = np.asarray(rows["kept"])
    size = sizes(rows, unit)
    group = group_codes(rows, sameness)
    ranked = np.lexsort((order, group))
    centred = means.subtracted(x, rows["lang"].to_pylist()) if sameness.across else x
    found: list[bytes | None] = [None] * len(cell)
    for members in np.split(ranked, np.flatnonzero(np.diff(group[ranked])) + 1):
        places = Places(lang[members], cell[members], room[members], size[members], kept[members])
        for row, of in enumerate(keep_distinct(x[members], centred[members], places, sameness)):
            if of >= 0:
                found[members[row]] = ids[members[of]].tobytes()
    return pa.array(found, records.ID)


def keep_distinct(
    x: NDArray[np.float32], centred: NDArray[np.float32], places: Places, sameness: Sameness
) -> NDArray[np.int64]:
    """Pass over rows that say again what accepted rows before them say; rows come best first.

    A row is passed over if an accepted row of its language lies above ``near_duplicate``, or if one of another language
    lies above ``copy`` whose meaning has been accepted ``max_copies`` times. An accepted row joins the meaning of the
    row of another language that it is most like, or begins one. Once a cell has no room for a row, its later rows
    cannot be drawn, so they suppress nobody and are not looked at. The first n answers are those for the first n rows.

    Parameters
    ----------
    x, centred : ndarray of shape (n, d), float32
        Unit rows, as they are and without the means of their languages.
    places : Places
    sameness : Sameness

    Returns
    -------
    ndarray of shape (n,), int64
        The accepted row for which a row is passed over, -1 where there is none. Cost ``2·n·a·d`` FLOP for a accepted
        rows, twice that where languages are compared; memory ``(a + TILE_ROWS)·d``.
    """
    duplicate_of = np.full(len(x), -1, dtype=np.int64)
    said = _Said(x, centred, places, sameness)
    spaces = (x, centred) if sameness.across else (x,)
    rows = iter(range(len(x)))
    while tile := list(islice(said.with_room(rows), TILE_ROWS)):
        earlier = [rows @ accepted.T for rows, accepted in ((v[tile], v[said.rows]) for v in spaces)]
        inside = [rows @ rows.T for rows in (v[tile] for v in spaces)]
        fresh: list[int] = []  # accepted ones of the tile
        for number, row in enumerate(tile):
            if places.cell[row] in said.full:
                continue
            similarity = [
                np.r_[before[number], now[number, fresh]] for before, now in zip(earlier, inside, strict=True)
            ]
            passed_over_for, joins = said.judge(row, similarity[0], similarity[-1])
            duplicate_of[row] = passed_over_for
            if passed_over_for < 0 and said.accept(row, joins):
                fresh.append(number)
    return duplicate_of


class _Said:
    """What accepted rows say, and which cells are full."""

    def __init__(
        self, x: NDArray[np.float32], centred: NDArray[np.float32], places: Places, sameness: Sameness
    ) -> None:
        self._x, self._centred, self._places, self._sameness = x, centred, places, sameness
        self._accepted = np.empty(len(x), dtype=np.int64)
        self._langs = np.empty(len(x), dtype=np.int64)
        self._count = 0
        self._meaning: list[int] = []  # of each accepted row
        self._copies: list[int] = []  # accepted rows of each meaning
        self._used: dict[int, int] = {}
        self.full: set[int] = set()

    @property
    def rows(self) -> NDArray[np.int64]:
        """The accepted rows, in order."""
        return self._accepted[: self._count]

    def with_room(self, rows: Iterator[int]) -> Iterator[int]:
        """Leave out rows whose cells are full."""
        return (row for row in rows if self._places.cell[row] not in self.full)

    def judge(self, row: int, as_is: NDArray[np.float32], centred: NDArray[np.float32]) -> tuple[int, int]:
        """Find the accepted row for which this one is passed over, or else the meaning that it joins; -1 for none.

        Similarities are with the accepted rows, in their order: those of one language count as they are.
        """
        kept = self._places.kept[row]
        same = self._langs[: self._count] == self._places.lang[row]
        limits = np.where(same, self._sameness.near_duplicate, self._sameness.copy)
        similarity = np.where(same, as_is, centred)
        joins, best = -1, -np.inf
        for index in np.flatnonzero(similarity > limits - _BORDERLINE).tolist():
            other = int(self._accepted[index])
            space = self._x if same[index] else self._centred
            cosine = float(np.dot(space[row].astype(np.float64), space[other].astype(np.float64)))
            if cosine <= limits[index]:
                continue
            meaning = self._meaning[index]
            if not kept and (same[index] or self._copies[meaning] >= self._sameness.max_copies):
                return other, -1
            if cosine > best and not same[index]:
                joins, best = meaning, cosine
        return -1, joins

    def accept(self, row: int, joins: int) -> bool:
        """Take a row, unless its cell has no room for it: then the cell is full."""
        cell = int(self._places.cell[row])
        self._used[cell] = self._used.get(cell, 0) + int(self._places.size[row])
        if self._used[cell] > self._places.room[row]:
            self.full.add(cell)
            return False
        if joins < 0:
            joins = len(self._copies)
            self._copies.append(0)
        self._copies[joins] += 1
        self._meaning.append(joins)
        self._accepted[self._count], self._langs[self._count] = row, self._places.lang[row]
        self._count += 1
        return True
