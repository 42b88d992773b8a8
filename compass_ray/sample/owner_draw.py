"""Drawing for one target language: quotas, the candidates that fill them, and what goes on where these end.

A cell that has no more distinct documents gives its quota back, whereupon quotas are solved again. What near clusters
cannot serve either is filled up with the target language's own rows, if the config says so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from compass_ray import records
from compass_ray.errors import InfeasibleBudget
from compass_ray.sample.allocation import Counts, proportional_quotas
from compass_ray.sample.cell_draw import Cell, CellDraw
from compass_ray.sample.config import SampleConfig
from compass_ray.sample.draw import in_rank_order, quota_table, ranks, sum_in_run
from compass_ray.sample.gaps import OwnerMass
from compass_ray.sample.near_duplicates import Sameness
from compass_ray.sample.nearness import language_tiers
from compass_ray.sample.problem import OwnerProblem
from compass_ray.sample.strategies import STRATEGIES
from compass_ray.sample.strategies.clusters import moves_behind
from compass_ray.sample.transport import Moves

MAX_SOLUTIONS = 10


@dataclass(frozen=True)
class Balance:
    """What clusters ask for and get, in the unit of the budget; arrays of shape (n_clusters,).

    ``asked`` is what a pool without end would give; of it a cluster's own documents serve some, near clusters serve
    ``moved_out``, and ``unmet`` is left. ``moved_in`` is what a cluster serves for others.
    """

    asked: Counts
    moved_in: Counts
    moved_out: Counts
    unmet: Counts


class OwnerDraw:
    """The state of one target language's draw."""

    def __init__(self, problem: OwnerProblem, mass: OwnerMass, config: SampleConfig, sameness: Sameness) -> None:
        self.problem, self.mass = problem, mass
        self.quotas: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self._config, self._sameness = config, sameness
        self._strategy = STRATEGIES[config.strategy]
        self._asked = self._strategy.asked(problem, mass, config)
        self._eligible = problem.capacity
        tiers = language_tiers(problem.owner, problem.languages, config).tolist()
        self._tier = dict(zip(problem.languages, tiers, strict=True))
        self._cells = CellDraw(problem.owner, config.unit, sameness, self._tier)
        self._fill: CellDraw | None = None  # of own-language rows, once quotas are settled
        self._solutions = 0
        self._moved: Moves | None = None  # behind the quotas of the last solution; a linear program
        self._solve(problem)

    @property
    def depth(self) -> int:
        """How many candidates have been asked for in all."""
        return self._cells.depth

    def requests(self) -> pa.Table:
        """List the cells whose candidates are needed, and how many of each; see :meth:`CellDraw.requests`."""
        return self._drawing.requests()

    def add(self, candidates: pa.Table) -> None:
        """Take one shard's candidates."""
        self._drawing.add(candidates)

    def undecided(self) -> pa.Table:
        """List the candidates that have to be compared; see :meth:`CellDraw.undecided`."""
        return self._drawing.undecided()

    def decide(self, position: NDArray[np.int64], duplicate_of: pa.Array) -> None:
        """Take decisions about the rows of :meth:`undecided`: null, or for which row one is passed over."""
        self._drawing.decide(position, duplicate_of)

    def settle(self) -> bool:
        """Say whether all cells have what they should; otherwise more candidates are wanted.

        Raises
        ------
        InfeasibleBudget
            Under ``refuse``, if the distinct documents do not suffice, or no quotas are found that they fill.
        """
        if self._fill is not None:
            return not self._sameness.looked_for or self._fill.exhausted() is not None
        if self._sameness.looked_for:
            exhausted = self._cells.exhausted()
            if exhausted is None or (exhausted and self._solve_without(exhausted)):
                return False
        return not self._begin_to_fill()

    def drawn(self) -> pa.Table:
        """List the drawn documents: schema CANDIDATE, ``asked_by`` and ``rank``.

        ``asked_by`` is the cluster whose usage asks for a document, its own or one near to it; null for rows that fill
        the budget, and where no cluster asks.
        """
        rows = self._cells.drawn()
        rows = rows.append_column("asked_by", self._asked_by(rows))
        if self._fill is not None:
            more = self._fill.drawn()
            last = pa.array(np.full(more.num_rows, np.iinfo(np.int64).max), pa.int64())
            more = more.set_column(more.schema.get_field_index("tier"), "tier", last)  # after all that quotas drew
            rows = pa.concat_tables([rows, more.append_column("asked_by", pa.nulls(more.num_rows, pa.int32()))])
        return ranks(rows)

    def suppressed(self) -> pa.Table:
        """List the candidates that were passed over, schema SUPPRESSED."""
        draws = [self._cells] if self._fill is None else [self._cells, self._fill]
        return pa.concat_tables([draw.suppressed() for draw in draws])

    def balance(self) -> Balance | None:
        """Weigh what clusters ask for against what they get; None for a strategy without cluster quotas."""
        if self._asked is None:
            return None
        quota, moves = self.quotas.sum(axis=1), self._moves()
        moved_in, moved_out = moves.into(len(quota)), moves.out_of(len(quota))
        unmet = np.maximum(0, self._asked - quota) - moved_out
        return Balance(self._asked, moved_in, moved_out, unmet)

    @property
    def _drawing(self) -> CellDraw:
        return self._cells if self._fill is None else self._fill

    def _solve(self, problem: OwnerProblem) -> None:
        self._solutions += 1
        self.problem, self._moved = problem, None
        self.quotas = self._strategy.quotas(problem, self.mass, self._config)
        self._check(int(self.quotas.sum()))
        table = quota_table(problem.owner, problem.languages, self.quotas)
        cells = zip(table["cluster"].to_pylist(), table["lang"].to_pylist(), strict=True)
        self._cells.want(dict(zip(cells, table["quota"].to_pylist(), strict=True)))

    def _solve_without(self, exhausted: dict[Cell, int]) -> bool:
        """Solve again with what cells really hold; False where that has been done often enough.

        Then the quotas stand as what was drawn.
        """
        capacity = self.problem.capacity.copy()
        for cell, amount in exhausted.items():
            _shrink(capacity, cell, self.problem.languages, amount)
        if self._solutions > MAX_SOLUTIONS and self._config.on_shortfall != "refuse":
            self.quotas = np.minimum(self.quotas, capacity) if self.quotas.ndim == 2 else self.quotas
            self._moved = None
            return False
        self._solve(self.problem.with_capacity(capacity))
        return True

    def _check(self, total: int) -> None:
        config, owner = self._config, self.problem.owner
        if config.amount is None or config.on_shortfall != "refuse":
            return
        if total < config.amount:
            available = int(self.problem.capacity.sum())
            what = "eligible (not outliers, and not already in its current or any target data)"
            if self._solutions > 1:
                what = (
                    f"eligible and say nothing again (near-duplicates: similarity {config.near_duplicate_similarity})"
                )
            if available >= config.amount:
                what += f", and the caps on languages leave room for {total}"
            raise InfeasibleBudget(
                f"sample.budget: owner '{owner}' asks for {config.amount} {config.unit} but only {available} of the "
                f"pool are {what}; lower the budget, add pool data, or take what there is with sample.shortfall=accept"
            )
        if self._solutions > MAX_SOLUTIONS:
            raise InfeasibleBudget(
                f"sample.near_duplicates: owner '{owner}': no quotas that the distinct documents fill were found in "
                f"{MAX_SOLUTIONS} attempts; lower the budget, raise sample.near_duplicate_similarity or "
                "sample.max_copies, or take what there is with sample.shortfall=accept"
            )

    def _begin_to_fill(self) -> bool:
        """Ask for own-language rows from wherever they lie, if the budget has room and the config says so."""
        config, owner = self._config, self.problem.owner
        if config.on_shortfall != "own_language" or config.amount is None or owner not in self.problem.languages:
            return False
        rows = self._cells.drawn()
        own = rows.filter(pc.equal(rows["lang"], owner))
        most = int(np.ceil(config.cap_of(owner) * config.amount - 1e-9))
        room = min(config.amount - self._amount(rows), most - self._amount(own))
        left = int(self._eligible[:, self.problem.languages.index(owner)].sum()) - self._amount(own)
        if min(room, left) <= 0:
            return False
        kept = rows.select(records.CANDIDATE.names)
        self._fill = CellDraw(owner, config.unit, self._sameness, self._tier, nearest=True, kept=kept)
        self._fill.want({(None, owner): min(room, left)})
        return True

    def _amount(self, rows: pa.Table) -> int:
        """Documents or tokens."""
        return rows.num_rows if self._config.unit == "documents" else int(pc.sum(rows["tokens"]).as_py() or 0)

    def _moves(self) -> Moves:
        if self._asked is None or not self._config.transports:
            nothing = np.zeros(0, dtype=np.int64)
            return Moves(nothing, nothing, nothing)
        if self._moved is None:
            self._moved = moves_behind(self.quotas.sum(axis=1), self._asked, self.problem, self._config)
        return self._moved

    def _asked_by(self, rows: pa.Table) -> pa.Array:
        """Name the cluster that asks for each row: the first of a cluster are for itself, the next for the nearest."""
        if self._asked is None or not self._config.transports:
            return pa.nulls(rows.num_rows, pa.int32())
        moves, cluster = self._moves(), rows["cluster"].to_numpy()
        order = in_rank_order(rows)
        amount = rows["tokens"].to_numpy() if self._config.unit == "tokens" else np.ones(len(cluster), dtype=np.int64)
        before = np.zeros(len(cluster), dtype=np.int64)
        before[order] = sum_in_run(cluster[order], amount[order]) - amount[order]
        own = np.minimum(self._asked, self.quotas.sum(axis=1))
        asked_by = cluster.astype(np.int32).copy()
        for to in np.unique(moves.to).tolist():
            mine = np.flatnonzero(moves.to == to)
            mine = mine[np.argsort(self.problem.distance[moves.source[mine], to], kind="stable")]
            ends = own[to] + np.cumsum(moves.amount[mine])
            here = np.flatnonzero((cluster == to) & (before >= own[to]))
            number = np.minimum(np.searchsorted(ends, before[here], side="right"), len(mine) - 1)
            asked_by[here] = moves.source[mine][number]
        return pa.array(asked_by, pa.int32())


def _shrink(capacity: NDArray[np.int64], cell: Cell, languages: tuple[str, ...], amount: int) -> None:
    """Lower the capacity of a cell to an amount, in place and in proportion where it spans several."""
    clusters = slice(None) if cell[0] is None else slice(cell[0], cell[0] + 1)
    column = slice(None) if cell[1] is None else slice(languages.index(cell[1]), languages.index(cell[1]) + 1)
    part = capacity[clusters, column]
    shrunk = proportional_quotas(part.ravel().astype(np.float64), part.ravel(), min(amount, int(part.sum())))
    capacity[clusters, column] = shrunk.reshape(part.shape)
