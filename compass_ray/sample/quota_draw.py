"""Drawing what quotas ask for: the quotas, and the candidates that fill them.

A cell that has no more distinct documents gives its quota back, whereupon quotas are solved again.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from compass_ray.errors import InfeasibleBudget
from compass_ray.sample.allocation import Counts, proportional_quotas
from compass_ray.sample.cell_draw import Cell, CellDraw
from compass_ray.sample.config import SampleConfig
from compass_ray.sample.draw import in_rank_order, quota_table, sizes, sum_in_run
from compass_ray.sample.near_duplicates import Sameness
from compass_ray.sample.problem import Problem
from compass_ray.sample.strategies.clusters import moves_behind
from compass_ray.sample.transport import Moves

MAX_SOLUTIONS = 10

Solve = Callable[[Problem], NDArray[np.int64]]
"""Quotas for what there is; see :class:`compass_ray.sample.strategies.Strategy`."""


class QuotaDraw:
    """The state of a draw by quotas.

    Parameters
    ----------
    problem : Problem
        Its capacity is what may be drawn.
    solve : callable
    wanted : ndarray of shape (n_clusters,), int64, or None
        What clusters ask for, in the unit of the budget; None without cluster quotas.
    among : ndarray of shape (n_languages,), bool
        The languages that are drawn from.
    cells : CellDraw
    config : SampleConfig
    sameness : Sameness
    """

    def __init__(
        self,
        problem: Problem,
        solve: Solve,
        wanted: Counts | None,
        among: NDArray[np.bool_],
        cells: CellDraw,
        config: SampleConfig,
        sameness: Sameness,
    ) -> None:
        self.cells, self.among = cells, among
        self.quotas: NDArray[np.int64] = np.zeros(0, dtype=np.int64)
        self._solver, self._wanted, self._config, self._sameness = solve, wanted, config, sameness
        self._solutions = 0
        self._moved: Moves | None = None  # behind the quotas of the last solution; a linear program
        self._solve(problem)

    def settle(self) -> bool:
        """Say whether all cells have what they should; otherwise more candidates are wanted.

        Raises
        ------
        InfeasibleBudget
            Under ``refuse``, if the distinct documents do not suffice, or no quotas are found that they fill.
        """
        if not self._sameness.looked_for:
            return True
        exhausted = self.cells.exhausted()
        return exhausted is not None and not (exhausted and self._solve_without(exhausted))

    def drawn(self) -> pa.Table:
        """List the drawn documents: schema CANDIDATE, ``tier`` and ``asked_by``.

        ``asked_by`` is the cluster whose usage asks for a document, its own or one near to it; null where none asks.
        """
        rows = self.cells.drawn()
        return rows.append_column("asked_by", self._asked_by(rows))

    @property
    def served(self) -> Counts:
        """What clusters get of what they ask for from their own documents, shape (n_clusters,)."""
        if self._wanted is None:
            raise ValueError("a strategy without cluster quotas serves no clusters")
        served: Counts = np.minimum(self._wanted, self.quotas.sum(axis=1))
        return served

    @property
    def moves(self) -> Moves:
        """What is drawn from one cluster for another."""
        if self._wanted is None or not self._config.transports:
            nothing = np.zeros(0, dtype=np.int64)
            return Moves(nothing, nothing, nothing)
        if self._moved is None:
            self._moved = moves_behind(self.quotas.sum(axis=1), self._wanted, self.problem, self._config)
        return self._moved

    def _solve(self, problem: Problem) -> None:
        self._solutions += 1
        self.problem, self._moved = problem, None
        self.quotas = self._solver(problem)
        self._check(int(self.quotas.sum()))
        table = quota_table(problem.target_lang, problem.languages, self.quotas)
        cells = zip(table["cluster"].to_pylist(), table["lang"].to_pylist(), strict=True)
        self.cells.want(dict(zip(cells, table["quota"].to_pylist(), strict=True)))

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
        config, target_lang = self._config, self.problem.target_lang
        if config.amount is None or config.on_shortfall != "refuse":
            return
        if total < config.amount:
            available = int(self.problem.capacity.sum())
            what = "eligible (not outliers, not in its current or any usage, and no near copies of its usage)"
            if self._solutions > 1:
                what = (
                    f"eligible and say nothing again (near-duplicates: similarity {config.near_duplicate_similarity})"
                )
            if available >= config.amount:
                what += f", and the caps on languages leave room for {total}"
            raise InfeasibleBudget(
                f"sample.budget: target language '{target_lang}' asks for {config.amount} {config.unit} but only "
                f"{available} of the pool are {what}; lower the budget, add pool data, or take what there is with "
                "sample.shortfall=accept"
            )
        if self._solutions > MAX_SOLUTIONS:
            raise InfeasibleBudget(
                f"sample.near_duplicates: target language '{target_lang}': no quotas that the distinct documents fill "
                f"were found in {MAX_SOLUTIONS} attempts; lower the budget, raise sample.near_duplicate_similarity or "
                "sample.max_copies, or take what there is with sample.shortfall=accept"
            )

    def _asked_by(self, rows: pa.Table) -> pa.Array:
        """Name the cluster that asks for each row: the first of a cluster are for itself, the next for the nearest."""
        if self._wanted is None or not self._config.transports:
            return pa.nulls(rows.num_rows, pa.int32())
        moves, cluster = self.moves, rows["cluster"].to_numpy()
        order = in_rank_order(rows)
        amount = sizes(rows, self._config.unit)
        before = np.zeros(len(cluster), dtype=np.int64)
        before[order] = sum_in_run(cluster[order], amount[order]) - amount[order]
        own = self.served
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
