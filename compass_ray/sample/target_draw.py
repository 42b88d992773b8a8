"""Drawing for one target language: whose rows come first, what quotas ask for, and what goes on where these end.

Draws follow one another, and each keeps away from what those before it have drawn. With ``own_language``, the target
language's own rows come first: those that quotas ask for, then any, nearest to usage first. Other languages serve what
is then left of the quotas, as far as own rows, trained on several times, do not fill the budget: up to four epochs of
the same text are worth nearly as much as new text (Muennighoff et al., 2023), and text of another language is not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from compass_ray import records
from compass_ray.sample.allocation import Counts, proportional_quotas
from compass_ray.sample.cell_draw import CellDraw
from compass_ray.sample.config import SampleConfig
from compass_ray.sample.draw import ranks, sizes
from compass_ray.sample.gaps import Shares
from compass_ray.sample.near_duplicates import Sameness
from compass_ray.sample.nearness import language_tiers
from compass_ray.sample.problem import Problem
from compass_ray.sample.quota_draw import QuotaDraw
from compass_ray.sample.strategies import strategy_of
from compass_ray.sample.strategies.clusters import servable, served_quotas

_LAST = np.iinfo(np.int64).max


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


class FillDraw:
    """Drawing one language's rows wherever they lie, nearest to usage first."""

    def __init__(self, cells: CellDraw, lang: str, amount: int, sameness: Sameness) -> None:
        self.cells = cells
        self._sameness = sameness
        cells.want({(None, lang): amount})

    def settle(self) -> bool:
        """Say whether there are enough candidates, or no more."""
        return not self._sameness.looked_for or self.cells.exhausted() is not None

    def drawn(self) -> pa.Table:
        """List the drawn documents: schema CANDIDATE, ``tier`` and ``asked_by``, which is null."""
        rows = self.cells.drawn()
        last = pa.array(np.full(rows.num_rows, _LAST), pa.int64())  # after all that quotas drew
        rows = rows.set_column(rows.schema.get_field_index("tier"), "tier", last)
        return rows.append_column("asked_by", pa.nulls(rows.num_rows, pa.int32()))


Draw = QuotaDraw | FillDraw


class TargetDraw:
    """The state of one target language's draws."""

    def __init__(self, problem: Problem, shares: Shares, config: SampleConfig, sameness: Sameness) -> None:
        self.shares = shares
        self._problem, self._config, self._sameness = problem, config, sameness
        self._strategy = strategy_of(config.strategy)
        self._asked = self._strategy.asked(problem, shares, config)
        tiers = language_tiers(problem.target_lang, problem.languages, config).tolist()
        self._tier = dict(zip(problem.languages, tiers, strict=True))
        self._draws: list[Draw] = []  # the last is going on
        self._next: list[Callable[[], Draw | None]] = self._plan()
        self._begin()

    def _plan(self) -> list[Callable[[], Draw | None]]:
        """Plan the draws, one after another. Each is None where it has nothing to draw."""
        config, own, others = self._config, self._problem.own, ~self._problem.own
        if config.on_shortfall != "own_language" or not own.any():
            return [partial(self._by_quotas, own | others)]
        if not config.own_before_others:
            return [partial(self._by_quotas, own | others), self._fill]
        aside = self._set_aside()
        plan: list[Callable[[], Draw | None]] = [partial(self._by_quotas, own, aside), partial(self._fill, aside)]
        plan.append(partial(self._after_own, others, aside))
        return [*plan, self._fill] if aside else plan

    def _begin(self) -> bool:
        """Begin the next draw that has something to draw; False where there is none."""
        while self._next:
            draw = self._next.pop(0)()
            if draw is not None:
                self._draws.append(draw)
                return True
        return False

    @property
    def problem(self) -> Problem:
        """The problem, with the capacity that is known by now to be distinct."""
        capacity = self._problem.capacity.copy()
        for draw in self._quota_draws:
            capacity[:, draw.among] = draw.problem.capacity[:, draw.among]
        return self._problem.with_capacity(capacity)

    @property
    def quotas(self) -> NDArray[np.int64]:
        """What quotas ask for in all; the shape says how far the strategy decides."""
        total: NDArray[np.int64] = np.sum([draw.quotas for draw in self._quota_draws], axis=0)
        return total

    @property
    def depth(self) -> int:
        """How many candidates have been asked for in all."""
        return sum(draw.cells.depth for draw in self._draws)

    def requests(self) -> pa.Table:
        """List the cells whose candidates are needed, and how many of each; see :meth:`CellDraw.requests`."""
        return self._cells.requests()

    def add(self, candidates: pa.Table) -> None:
        """Take one shard's candidates."""
        self._cells.add(candidates)

    def undecided(self) -> pa.Table:
        """List the candidates that have to be compared; see :meth:`CellDraw.undecided`."""
        return self._cells.undecided()

    def decide(self, position: NDArray[np.int64], duplicate_of: pa.Array) -> None:
        """Take decisions about the rows of :meth:`undecided`: null, or for which row one is passed over."""
        self._cells.decide(position, duplicate_of)

    def settle(self) -> bool:
        """Say whether all draws have what they should; otherwise more candidates are wanted.

        Raises
        ------
        InfeasibleBudget
            Under ``refuse``, if the distinct documents do not suffice, or no quotas are found that they fill.
        """
        return self._draws[-1].settle() and not self._begin()

    def drawn(self) -> pa.Table:
        """List the drawn documents: schema CANDIDATE, ``asked_by`` and ``rank``.

        ``asked_by`` is the cluster whose usage asks for a document, its own or one near to it; null for rows that fill
        the budget, and where no cluster asks.
        """
        return ranks(pa.concat_tables([draw.drawn() for draw in self._draws]))

    def suppressed(self) -> pa.Table:
        """List the candidates that were passed over, schema SUPPRESSED: each once, with what was found first."""
        rows = pa.concat_tables([draw.cells.suppressed() for draw in self._draws])
        ids = rows["doc_id"].combine_chunks()
        first = pc.equal(pc.index_in(ids, value_set=ids), pa.array(np.arange(len(ids)), pa.int32()))
        return rows.filter(pc.and_(first, pc.invert(pc.is_in(ids, value_set=self._drawn_so_far()["doc_id"]))))

    def balance(self) -> Balance | None:
        """Weigh what clusters ask for against what they get; None for a strategy without cluster quotas."""
        if self._asked is None:
            return None
        count = len(self._asked)
        served, moved_in, moved_out = np.zeros((3, count), dtype=np.int64)
        for draw in self._quota_draws:
            served += draw.served
            moved_in += draw.moves.into(count)
            moved_out += draw.moves.out_of(count)
        return Balance(self._asked, moved_in, moved_out, self._asked - served - moved_out)

    @property
    def _cells(self) -> CellDraw:
        return self._draws[-1].cells

    @property
    def _quota_draws(self) -> list[QuotaDraw]:
        return [draw for draw in self._draws if isinstance(draw, QuotaDraw)]

    @property
    def repeats(self) -> int:
        """How much of the budget own-language rows fill by being trained on again, in its unit; 0 where it is full."""
        config = self._config
        if not config.own_before_others or config.amount is None:
            return 0
        own = self._own_amount(self._drawn_so_far())
        again = min(config.own_language_epochs * own, self._most_own) - own
        return max(0, min(again, self._room))

    def _after_own(self, others: NDArray[np.bool_], aside: int) -> QuotaDraw | None:
        """Draw from other languages what is set aside for them, or what repeated own rows leave of the budget."""
        room = self._room
        return self._by_quotas(others, room=max(min(aside, room), room - self.repeats))

    def _by_quotas(self, among: NDArray[np.bool_], aside: int = 0, room: int | None = None) -> QuotaDraw | None:
        """Draw what clusters still ask for from rows of some languages.

        Parameters
        ----------
        among : ndarray of shape (n_languages,), bool
        aside : int
            How much of the budget is kept for languages not among these.
        room : int or None
            How much may be drawn; unless given, what is left of the budget.
        """
        problem = self._problem.with_capacity(np.where(among, self._problem.capacity, 0))
        wanted = self._wanted(problem, room)
        if self._draws and (wanted is None or not wanted.any()):
            return None

        def solve(problem: Problem) -> NDArray[np.int64]:
            if wanted is None or not self._config.transports:
                return self._strategy.quotas(problem, self.shares, self._config)
            return served_quotas(wanted, problem, self._config, aside)

        return QuotaDraw(problem, solve, wanted, among, self._new_cells(), self._config, self._sameness)

    def _fill(self, aside: int = 0) -> FillDraw | None:
        """Draw own-language rows from wherever they lie, if the budget has room."""
        if self._config.amount is None:
            return None
        own = self._own_amount(self._drawn_so_far())
        left = int(self._problem.capacity[:, self._problem.own].sum()) - own
        amount = min(self._room - aside, self._most_own - own, left)
        if amount <= 0:
            return None
        return FillDraw(self._new_cells(nearest=True), self._problem.target_lang, amount, self._sameness)

    @property
    def _most_own(self) -> int:
        """The cap on the target language in the unit of the budget, rounded up."""
        config = self._config
        return int(np.ceil(config.cap_of(self._problem.target_lang) * (config.amount or 0) - 1e-9))

    def _wanted(self, problem: Problem, room: int | None) -> Counts | None:
        """Compute what clusters still ask for.

        Where that is more than there is room for, it is of what they can be given.
        """
        balance = self.balance()
        if balance is None or self._config.amount is None:
            return None
        left = balance.unmet
        room = self._room if room is None else room
        if room < left.sum():
            left = servable(left, problem, self._config)
        return proportional_quotas(left.astype(np.float64), left, min(room, int(left.sum())))

    def _set_aside(self) -> int:
        """Compute what other languages should have at least. It is no more than the pool holds of them."""
        amount, target_lang = self._config.amount or 0, self._problem.target_lang
        held = self._problem.capacity.sum(axis=0)
        floors = [int(self._config.floor_of(lang, target_lang) * amount + 1e-9) for lang in self._problem.languages]
        return int(np.minimum(floors, held)[~self._problem.own].sum())

    def _new_cells(self, *, nearest: bool = False) -> CellDraw:
        target_lang, unit, kept = self._problem.target_lang, self._config.unit, self._drawn_so_far()
        return CellDraw(target_lang, unit, self._sameness, self._tier, nearest=nearest, kept=kept)

    def _drawn_so_far(self) -> pa.Table:
        empty = records.CANDIDATE.empty_table()
        return pa.concat_tables([empty, *(draw.cells.drawn().select(empty.column_names) for draw in self._draws)])

    def _amount(self, rows: pa.Table) -> int:
        """Count the rows in documents or tokens."""
        return int(sizes(rows, self._config.unit).sum())

    def _own_amount(self, rows: pa.Table) -> int:
        return self._amount(rows.filter(pc.equal(rows["lang"], self._problem.target_lang)))

    @property
    def _room(self) -> int:
        """What is left of the budget, in its unit."""
        return (self._config.amount or 0) - self._amount(self._drawn_so_far())
