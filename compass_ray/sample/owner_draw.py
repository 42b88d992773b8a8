"""Drawing for one owner: quotas, how deep candidates are asked for, which of them are passed over.

Documents that nearly repeat a better one are passed over, so more candidates are asked for than the quotas need: a
cell that comes out short is asked for twice as many, and a cell that has no more gives its quota back, whereupon quotas
are solved again. Decisions look at better candidates alone, never at how deep the lists were cut, so the outcome is
that of sorting the whole pool.
"""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from compass_ray import records
from compass_ray.errors import InfeasibleBudget
from compass_ray.sample.allocation import proportional_quotas
from compass_ray.sample.config import SampleConfig
from compass_ray.sample.draw import QUOTA, Cells, fill_tokens, keep_best, quota_table, ranks
from compass_ray.sample.gaps import OwnerMass
from compass_ray.sample.near_duplicates import group_codes
from compass_ray.sample.problem import OwnerProblem
from compass_ray.sample.strategies import STRATEGIES

MAX_SOLUTIONS = 10
_MERGE_ROWS = 1 << 18
_SPARE = {"documents": 64, "tokens": 64 * 256}

Cell = tuple[int | None, str | None]
"""Cluster and language; None where the strategy does not mind."""


class OwnerDraw:
    """The state of one owner's draw: at most two and a half budgets of candidates, more where texts repeat."""

    def __init__(self, problem: OwnerProblem, mass: OwnerMass, config: SampleConfig) -> None:
        self.problem, self.mass = problem, mass
        self.suppresses = config.near_duplicates != "off" and config.strategy != "all"
        self.quotas: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self._config = config
        self._wanted: dict[Cell, int] = {}
        self._depth: dict[Cell, int] = {}  # how many candidates of a cell have been asked for
        self._short: set[Cell] = set()  # cells to be asked for twice as many
        self._touched: set[Cell] = set()  # cells whose decisions are not final
        self._rows = records.SUPPRESSED.empty_table()  # candidates; ``duplicate_of`` is null where one is accepted
        self._new: list[pa.Table] = []  # candidates that are not merged yet
        self._solutions = 0
        self._solve(problem)

    def requests(self) -> pa.Table:
        """The cells whose candidates are needed, and how many of each; schema QUOTA, empty if none are."""
        asked = {cell: self._deep(quota) for cell, quota in self._wanted.items()}
        asked = {cell: depth for cell, depth in asked.items() if depth > self._depth.get(cell, 0)}
        asked |= {cell: 2 * self._depth[cell] for cell in self._short}
        self._short = set()
        self._depth |= asked
        self._touched |= asked.keys()
        table = self._table(asked)
        self._rows = self._rows.filter(pa.array(Cells(table).of(self._rows) < 0))  # they come again, and others
        return table

    @property
    def depth(self) -> int:
        """How many candidates have been asked for in all."""
        return sum(self._depth.values())

    def add(self, candidates: pa.Table) -> None:
        """Take one shard's candidates."""
        self._new.append(candidates.append_column("duplicate_of", pa.nulls(candidates.num_rows, records.ID)))
        if sum(table.num_rows for table in self._new) > _MERGE_ROWS:
            self._merge()

    def _merge(self) -> None:
        """Keep the best of all shards."""
        rows = pa.concat_tables([self._rows, *self._new])
        self._rows, self._new = keep_best(rows, self._table(self._depth), self._config.unit), []

    def undecided(self) -> pa.Table:
        """Candidates among which near-duplicates have to be looked for.

        Schema CANDIDATE, ``position``, and ``cell`` with its ``room``: rows beyond that make no difference. Empty if
        near-duplicates are not suppressed.
        """
        self._merge()
        cells = Cells(self._table(self._wanted))
        cell = cells.of(self._rows)
        group = group_codes(self._rows, self._config.near_duplicates)
        touched = Cells(self._table(dict.fromkeys(self._touched, 1))).of(self._rows) >= 0
        self._touched = set()
        position = np.flatnonzero((cell >= 0) & np.isin(group, group[touched]) & self.suppresses)
        rows = self._rows.drop_columns(["duplicate_of"]).take(pa.array(position))
        room = cells.limits[cell[position]]
        if self._config.unit == "tokens":
            room = room + _SPARE["tokens"]  # a cell may get what others leave over
        for name, values in (("position", position), ("cell", cell[position]), ("room", room)):
            rows = rows.append_column(name, pa.array(values, pa.int64()))
        return rows

    def decide(self, position: NDArray[np.int64], duplicate_of: pa.Array) -> None:
        """Take decisions about the rows of :meth:`undecided`: null, or what a row nearly repeats."""
        column = np.array(self._rows["duplicate_of"].to_pylist(), dtype=object)
        column[position] = duplicate_of.to_pylist()
        place = self._rows.schema.get_field_index("duplicate_of")
        self._rows = self._rows.set_column(place, "duplicate_of", pa.array(column.tolist(), records.ID))

    def settle(self) -> bool:
        """Whether all cells have what they should; otherwise more candidates are wanted.

        Raises
        ------
        InfeasibleBudget
            If the distinct documents do not suffice, or no quotas are found that they fill.
        """
        if not self.suppresses:
            return True
        table = self._table(self._wanted)
        cells = Cells(table)
        found = self._amounts(self._rows, cells)
        accepted = self._amounts(self._accepted(), cells)
        names = list(self._wanted)
        short = np.flatnonzero(accepted < cells.limits).tolist()
        self._short = {names[i] for i in short if found[i] >= self._depth[names[i]]}
        if self._short:
            return False
        if short:
            capacity = self.problem.capacity.copy()
            for i in short:
                _shrink(capacity, names[i], self.problem.languages, int(accepted[i]))
            self._solve(self.problem.with_capacity(capacity))
        return not short

    def drawn(self) -> pa.Table:
        """The drawn documents with their ranks: schema CANDIDATE plus ``rank``."""
        rows, quotas = self._accepted(), self._table(self._wanted)
        return ranks(fill_tokens(rows, quotas) if self._config.unit == "tokens" else keep_best(rows, quotas))

    def suppressed(self) -> pa.Table:
        """Candidates that were passed over, schema SUPPRESSED."""
        return self._rows.filter(self._rows["duplicate_of"].is_valid())

    def _accepted(self) -> pa.Table:
        return self._rows.filter(self._rows["duplicate_of"].is_null()).drop_columns(["duplicate_of"])

    def _amounts(self, rows: pa.Table, cells: Cells) -> NDArray[np.int64]:
        """Documents or tokens of each cell."""
        cell = cells.of(rows)
        inside = cell >= 0
        amount = rows["tokens"].to_numpy() if self._config.unit == "tokens" else np.ones(len(cell), dtype=np.int64)
        sums = np.zeros(len(cells.limits), dtype=np.int64)
        np.add.at(sums, cell[inside], amount[inside])
        return sums

    def _solve(self, problem: OwnerProblem) -> None:
        self._solutions += 1
        self.problem = problem
        self.quotas = STRATEGIES[self._config.strategy].quotas(problem, self.mass, self._config)
        self._check(int(self.quotas.sum()))
        before = self._wanted
        table = quota_table(problem.owner, problem.languages, self.quotas)
        names = zip(table["cluster"].to_pylist(), table["lang"].to_pylist(), strict=True)
        self._wanted = dict(zip(names, table["quota"].to_pylist(), strict=True))
        self._touched |= {
            cell for cell in before.keys() | self._wanted.keys() if before.get(cell, 0) != self._wanted.get(cell, 0)
        }

    def _check(self, total: int) -> None:
        config, owner = self._config, self.problem.owner
        if config.amount is not None and total < config.amount and config.shortfall == "refuse":
            available = int(self.problem.capacity.sum())
            what = "eligible (not outliers, and not already in its current or any target data)"
            if self._solutions > 1:
                what = f"eligible and no near-duplicate of another (similarity {config.near_duplicate_similarity})"
            if available >= config.amount:
                what += f", and the caps on languages leave room for {total}"
            raise InfeasibleBudget(
                f"sample.budget: owner '{owner}' asks for {config.amount} {config.unit} but only {available} of the "
                f"pool are {what}; lower the budget, add pool data, or take what there is with sample.shortfall=accept"
            )
        if self._solutions > MAX_SOLUTIONS:
            raise InfeasibleBudget(
                f"sample.near_duplicates: owner '{owner}': no quotas that the distinct documents fill were found in "
                f"{MAX_SOLUTIONS} attempts; lower the budget, or raise sample.near_duplicate_similarity"
            )

    def _deep(self, quota: int) -> int:
        """How many candidates a quota asks for."""
        spare = self.suppresses or self._config.unit == "tokens"  # a cell may get what others leave over
        return quota + quota // 4 + _SPARE[self._config.unit] if spare else quota

    def _table(self, cells: dict[Cell, int]) -> pa.Table:
        clusters, langs = [cell[0] for cell in cells], [cell[1] for cell in cells]
        owner = [self.problem.owner] * len(cells)
        columns = {"owner": owner, "cluster": clusters, "lang": langs, "quota": list(cells.values())}
        return pa.table(columns, schema=QUOTA)


def _shrink(capacity: NDArray[np.int64], cell: Cell, languages: tuple[str, ...], amount: int) -> None:
    """Lower the capacity of a cell to an amount, in place and in proportion where it spans several."""
    clusters = slice(None) if cell[0] is None else slice(cell[0], cell[0] + 1)
    column = slice(None) if cell[1] is None else slice(languages.index(cell[1]), languages.index(cell[1]) + 1)
    part = capacity[clusters, column]
    shrunk = proportional_quotas(part.ravel().astype(np.float64), part.ravel(), min(amount, int(part.sum())))
    capacity[clusters, column] = shrunk.reshape(part.shape)
