"""Candidates of some cells: how many are asked for, and which of them are passed over.

Documents that say again what a better one says are passed over, so more candidates are asked for than the quotas need,
and a cell that comes out short is asked for twice as many. Decisions look at better candidates alone, never at how deep
the lists were cut, so the outcome is that of sorting the whole pool.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from compass_ray import records
from compass_ray.sample.draw import QUOTA, Cells, Unit, by_key, fill_tokens, keep_best, sizes
from compass_ray.sample.near_duplicates import Sameness, group_codes

_MERGE_ROWS = 1 << 18
_SPARE = {"documents": 64, "tokens": 64 * 256}

_DECIDED = pa.schema([*records.CANDIDATE, pa.field("duplicate_of", records.ID)])

Cell = tuple[int | None, str | None]
"""Cluster and language; None where the strategy does not mind."""


class CellDraw:
    """The state of a draw from cells: at most two and a half budgets of candidates, more where texts repeat.

    Parameters
    ----------
    target_lang : str
        The target language.
    unit : {"documents", "tokens"}
    sameness : Sameness
    tier : mapping of language to int
        Rows of lower tiers are looked at first, whatever their keys.
    nearest : bool
        Whether candidates come nearest to usage first, without noise.
    kept : Table of schema CANDIDATE
        What has been drawn already: it is not drawn again, and nothing that says the same is.
    """

    def __init__(
        self,
        target_lang: str,
        unit: Unit,
        sameness: Sameness,
        tier: Mapping[str, int],
        *,
        nearest: bool = False,
        kept: pa.Table | None = None,
    ) -> None:
        self._target_lang, self._unit, self._sameness, self._tier, self._nearest = (
            target_lang,
            unit,
            sameness,
            tier,
            nearest,
        )
        self._kept = records.CANDIDATE.empty_table() if kept is None else kept
        self._wanted: dict[Cell, int] = {}
        self._depth: dict[Cell, int] = {}  # how many candidates of a cell have been asked for
        self._short: set[Cell] = set()  # cells to be asked for twice as many
        self._touched: set[Cell] = set()  # cells whose decisions are not final
        self._rows = _DECIDED.empty_table()  # candidates; ``duplicate_of`` is null where one is accepted
        self._new: list[pa.Table] = []  # candidates that are not merged yet

    def want(self, wanted: dict[Cell, int]) -> None:
        """Set the quotas of cells, in documents or tokens."""
        before, self._wanted = self._wanted, wanted
        changed = before.keys() | wanted.keys()
        self._touched |= {cell for cell in changed if before.get(cell, 0) != wanted.get(cell, 0)}

    def requests(self) -> pa.Table:
        """List the cells whose candidates are needed, and how many of each; empty if none are.

        Schema QUOTA, and ``nearest``.
        """
        asked = {cell: self._deep(quota) for cell, quota in self._wanted.items()}
        asked = {cell: depth for cell, depth in asked.items() if depth > self._depth.get(cell, 0)}
        asked |= {cell: 2 * self._depth[cell] for cell in self._short}
        self._short = set()
        self._depth |= asked
        self._touched |= asked.keys()
        table = self._table(asked)
        self._rows = self._rows.filter(pa.array(Cells(table).of(self._rows) < 0))  # they come again, and others
        return table.append_column("nearest", pa.array([self._nearest] * table.num_rows, pa.bool_()))

    @property
    def depth(self) -> int:
        """How many candidates have been asked for in all."""
        return sum(self._depth.values())

    def add(self, candidates: pa.Table) -> None:
        """Take one shard's candidates."""
        self._new.append(candidates.append_column("duplicate_of", pa.nulls(candidates.num_rows, records.ID)))
        if sum(table.num_rows for table in self._new) > _MERGE_ROWS:
            self._merge()

    def undecided(self) -> pa.Table:
        """List the candidates that have to be compared, and beside them what has been drawn already.

        Schema CANDIDATE and ``position``, ``order`` in which they are looked at, ``cell`` with its ``room`` (rows
        beyond that make no difference), and ``kept``. Empty if nothing is to be compared.
        """
        self._merge()
        cells = Cells(self._table(self._wanted))
        cell = cells.of(self._rows)
        fresh = ~self._is_kept(self._rows)
        group = group_codes(self._rows, self._sameness)
        touched = Cells(self._table(dict.fromkeys(self._touched, 1))).of(self._rows) >= 0
        self._touched = set()
        compared = np.isin(group, group[touched]) & self._sameness.looked_for
        position = np.flatnonzero((cell >= 0) & fresh & compared)
        rows = self._rows.drop_columns(["duplicate_of"]).take(pa.array(position))
        room = cells.limits[cell[position]]
        if self._unit == "tokens":
            room = room + _SPARE["tokens"]  # a cell may get what others leave over
        kept = self._kept if rows.num_rows else self._kept.slice(0, 0)
        count, more = rows.num_rows, kept.num_rows
        columns = {
            "position": np.r_[position, self._rows.num_rows + np.arange(more)],
            "order": np.r_[more + self._order(rows), self._order(kept)],
            "cell": np.r_[cell[position], np.full(more, -1)],
            "room": np.r_[room, np.full(more, np.iinfo(np.int64).max)],
        }
        rows = pa.concat_tables([rows, kept])
        for name, values in columns.items():
            rows = rows.append_column(name, pa.array(values, pa.int64()))
        return rows.append_column("kept", pa.array(np.arange(count + more) >= count))

    def decide(self, position: NDArray[np.int64], duplicate_of: pa.Array) -> None:
        """Take decisions about the rows of :meth:`undecided`: null, or for which row one is passed over."""
        column = np.array([*self._rows["duplicate_of"].to_pylist(), None], dtype=object)
        column[np.minimum(position, self._rows.num_rows)] = duplicate_of.to_pylist()
        place = self._rows.schema.get_field_index("duplicate_of")
        self._rows = self._rows.set_column(place, "duplicate_of", pa.array(column[:-1].tolist(), records.ID))

    def exhausted(self) -> dict[Cell, int] | None:
        """Find cells that cannot be filled, and how much of each can; None while more candidates are wanted."""
        cells = Cells(self._table(self._wanted))
        found, accepted = self._amounts(self._rows, cells), self._amounts(self.accepted(), cells)
        names = list(self._wanted)
        short = np.flatnonzero(accepted < cells.limits).tolist()
        self._short = {names[i] for i in short if found[i] >= self._depth[names[i]]}
        return None if self._short else {names[i]: int(accepted[i]) for i in short}

    def accepted(self) -> pa.Table:
        """List the candidates neither passed over nor drawn already, schema CANDIDATE."""
        rows = self._rows.filter(self._rows["duplicate_of"].is_null()).drop_columns(["duplicate_of"])
        return rows.filter(pa.array(~self._is_kept(rows)))

    def drawn(self) -> pa.Table:
        """Select the rows that fill the quotas, schema CANDIDATE and ``tier``."""
        rows, quotas = self.accepted(), self._table(self._wanted)
        drawn = fill_tokens(rows, quotas) if self._unit == "tokens" else keep_best(rows, quotas)
        return drawn.append_column("tier", pa.array(self._tiers(drawn), pa.int64()))

    def suppressed(self) -> pa.Table:
        """List the candidates that were passed over, schema SUPPRESSED."""
        rows = self._rows.filter(self._rows["duplicate_of"].is_valid())
        known = pa.concat_tables([self._rows.select(["doc_id", "lang"]), self._kept.select(["doc_id", "lang"])])
        place = pc.index_in(rows["duplicate_of"].combine_chunks(), value_set=known["doc_id"].combine_chunks())
        copy = pc.not_equal(rows["lang"], known["lang"].take(place))
        return rows.append_column("copy", copy).cast(records.SUPPRESSED)

    def _merge(self) -> None:
        """Keep the best of all shards."""
        rows = pa.concat_tables([self._rows, *self._new])
        self._rows, self._new = keep_best(rows, self._table(self._depth), self._unit), []

    def _is_kept(self, rows: pa.Table) -> NDArray[np.bool_]:
        kept: NDArray[np.bool_] = np.asarray(
            pc.is_in(rows["doc_id"], value_set=self._kept["doc_id"].combine_chunks()), dtype=bool
        )
        return kept

    def _tiers(self, rows: pa.Table) -> NDArray[np.int64]:
        return np.array([self._tier.get(lang, 0) for lang in rows["lang"].to_pylist()], dtype=np.int64)

    def _order(self, rows: pa.Table) -> NDArray[np.int64]:
        """Find each row's place by tier, then as candidates are drawn, shape (n,)."""
        order = np.empty(rows.num_rows, dtype=np.int64)
        order[by_key(rows, self._tiers(rows))] = np.arange(rows.num_rows)
        return order

    def _amounts(self, rows: pa.Table, cells: Cells) -> NDArray[np.int64]:
        """Count the documents or tokens of each cell."""
        cell = cells.of(rows)
        inside = cell >= 0
        sums = np.zeros(len(cells.limits), dtype=np.int64)
        np.add.at(sums, cell[inside], sizes(rows, self._unit)[inside])
        return sums

    def _deep(self, quota: int) -> int:
        """Compute how many candidates a quota asks for. Some may be passed over, and what is kept comes again."""
        quota += self._kept.num_rows
        spare = self._sameness.looked_for or self._unit == "tokens"  # a cell may get what others leave over
        return quota + quota // 4 + _SPARE[self._unit] if spare else quota

    def _table(self, cells: dict[Cell, int]) -> pa.Table:
        clusters, langs = [cell[0] for cell in cells], [cell[1] for cell in cells]
        target_lang = [self._target_lang] * len(cells)
        columns = {"target_lang": target_lang, "cluster": clusters, "lang": langs, "quota": list(cells.values())}
        return pa.table(columns, schema=QUOTA)
