"""The sampler: merges histograms, decides quotas, merges candidates, certifies.

It is the only place that sees all shards, and what it sees are counts and a few times ``budget`` keys per
target language. What comes from shards adds up in any order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from compass_ray import records, seeding
from compass_ray.errors import EmptyInput, InfeasibleBudget
from compass_ray.sample import exemplars
from compass_ray.sample.certificate import HeldOut, certify
from compass_ray.sample.config import SampleConfig
from compass_ray.sample.gaps import gap_table, shares_of
from compass_ray.sample.histogram import SOFT_COUNT_UNIT, merge
from compass_ray.sample.history import History
from compass_ray.sample.near_duplicates import Sameness
from compass_ray.sample.problem import Problem, build_problems, near_usage_count, role_counts
from compass_ray.sample.scorer import Question
from compass_ray.sample.shortfall import languages_of, near_usage_notes, shortfall_notes, unused_budget
from compass_ray.sample.strategies import strategy_of
from compass_ray.sample.target_draw import TargetDraw
from compass_ray.sample.usage_contrast import Direction, to_table
from compass_ray.usage_shares import cluster_weights

SoftCounts = Mapping[str, NDArray[np.int64]]
"""By target language; shapes (n_clusters,), in units of ``SOFT_COUNT_UNIT``."""


@dataclass(frozen=True)
class Pass:
    """What tasks need to know for one pass over the shards, by target language: small, the same for all of them."""

    questions: dict[str, Question]
    known: dict[str, Any]


class Passes(Protocol):
    """Asks all shards for something, once each; their answers come in any order.

    Tasks answer on a cluster (:class:`compass_ray.sample.stage.RayPasses`), a list of shards in tests.
    """

    def counts(self) -> Iterator[tuple[pa.Table, pa.Table | None]]:
        """Yield each shard's histogram and, from some shards, its documents nearest to the centroids."""

    def soft_counts(self, prior: NDArray[np.float64]) -> Iterator[tuple[NDArray[np.int64], SoftCounts]]:
        """Yield each shard's usage, shared among clusters: of all target languages and of each."""

    def evidence(self, asked: Pass) -> Iterator[dict[str, Any]]:
        """Yield each shard's part of what the scorer gathers, by target language."""

    def candidates(self, requests: pa.Table, known: Mapping[str, Any]) -> Iterator[pa.Table]:
        """Yield each shard's best documents for the cells that are asked for; schema CANDIDATE."""

    def decisions(self, undecided: pa.Table) -> Iterator[pa.Table]:
        """Yield decisions about candidates: target language, position, duplicate_of."""

    def names(self, wanted: pa.Table | None) -> Mapping[tuple[str, int], exemplars.ClusterName]:
        """Name clusters by the texts of the wanted documents."""


@dataclass(frozen=True)
class Outcome:
    """What was drawn and passed over, towards what, the gaps, histogram, and certificates by target language."""

    drawn: pa.Table
    suppressed: pa.Table
    directions: pa.Table
    gaps: pa.Table
    histogram: pa.Table
    certificate: dict[str, Any]


class Sampler:
    """Decides what is drawn. The sample stage runs it as a Ray actor; it is a plain object otherwise."""

    def __init__(
        self,
        config: SampleConfig,
        distance: NDArray[np.float64],
        seed: int,
        *,
        sameness: Sameness,
        history: History | None = None,
    ) -> None:
        self._config, self._distance, self._seed = config, distance, seed
        self._n_clusters, self._sameness, self._history = len(distance), sameness, history
        self._scorer = strategy_of(config.strategy).scorer(config)
        self._histogram = records.HISTOGRAM.empty_table()
        self._soft_counts = np.zeros(self._n_clusters, dtype=np.int64)
        self._own_soft_counts: dict[str, NDArray[np.int64]] = {}
        self._nearest: pa.Table | None = None
        self._problems: dict[str, Problem] = {}  # in documents
        self._draws: dict[str, TargetDraw] = {}
        self._known: dict[str, Any] = {}
        self._parts: dict[str, Any] = {}

    def run(self, passes: Passes) -> Outcome:
        """Do all of the sampling: count, share usage, allocate, draw until nothing is missing, certify.

        Raises
        ------
        InfeasibleBudget, EmptyInput, ConfigError
        """
        for histogram, nearest in passes.counts():
            self.add_counts(histogram, nearest)
        self._add_history()
        for soft_counts, own in passes.soft_counts(self.cluster_prior()):
            self.add_soft_counts(soft_counts, own)
        self._add_former_usage()
        self.allocate()
        settled = False
        while not settled:
            requests = self.requests()
            self._gather_evidence(passes)
            if requests.num_rows:  # quotas that changed may need no more candidates than there are
                for candidates in passes.candidates(requests, self._known):
                    self.add_candidates(candidates)
            if (undecided := self.undecided()).num_rows:
                for decisions in passes.decisions(undecided):
                    self.decide(decisions)
            settled = self.settle()
        return self.outcome(passes.names(self.label_documents()))

    def _gather_evidence(self, passes: Passes) -> None:
        """Pass over the shards as often as the scorer asks for, before documents have keys."""
        while (asked := self.next_pass()) is not None:
            for part in passes.evidence(asked):
                self.add_part(part)
            self.conclude_pass()

    def add_counts(self, histogram: pa.Table, nearest: pa.Table | None) -> None:
        """Take one shard's histogram and, from some shards, its documents nearest to the centroids."""
        self._histogram = merge([self._histogram, histogram])
        if nearest is not None:
            parts = [nearest] if self._nearest is None else [self._nearest, nearest]
            self._nearest = exemplars.keep_nearest(parts)

    def _add_history(self) -> None:
        """Count what adapters that are updated were made for and trained on."""
        if self._history is not None:
            self._histogram = merge([self._histogram, self._history.rows(self._histogram)])

    def _add_former_usage(self) -> None:
        """Add former usage to the soft counts, each document to its cluster: how near it lies to others is not kept."""
        if self._history is None:
            return
        documents, squares = (
            self._history.former_counts(self._histogram, self._n_clusters, measure)
            for measure in ("documents", "squares")
        )
        for target_lang, counts in documents.items():
            own = {target_lang: np.rint(squares[target_lang] / SOFT_COUNT_UNIT).astype(np.int64)}
            self.add_soft_counts(np.rint(counts / SOFT_COUNT_UNIT).astype(np.int64), own)

    def cluster_prior(self) -> NDArray[np.float64]:
        """Compute how common clusters are, shape (n_clusters,). By that usage is shared among them."""
        pool, current = (role_counts(self._trained_on(), role, self._n_clusters) for role in ("pool", "current"))
        return cluster_weights(pool, current)

    def _trained_on(self) -> pa.Table:
        """Return the histogram, without current data if none will be trained on."""
        if self._config.with_current:
            return self._histogram
        return self._histogram.filter(pc.not_equal(self._histogram["role"], "current"))

    def add_soft_counts(self, soft_counts: NDArray[np.int64], own: SoftCounts) -> None:
        """Take one shard's usage, shared among clusters."""
        self._soft_counts += soft_counts
        for target_lang, part in own.items():
            self._own_soft_counts[target_lang] = self._own_soft_counts.get(target_lang, 0) + part

    def label_documents(self) -> pa.Table | None:
        """Find the documents whose text is needed to name clusters."""
        if self._nearest is None:
            return None
        target_langs = sorted(
            set(self._histogram.filter(self._histogram["target_lang"].is_valid())["target_lang"].to_pylist())
        )
        return exemplars.wanted_documents(self._nearest, target_langs)

    def allocate(self) -> None:
        """Solve every target language's problem.

        Raises
        ------
        ConfigError
            If bounds on languages contradict each other for a target language.
        InfeasibleBudget
            Under ``refuse``, if a target language's eligible pool is smaller than the budget; otherwise if near copies
            of usage are all that it holds.
        EmptyInput
            If a target language has no usage document outside the held-out part.
        """
        own = {
            target_lang: part.astype(np.float64) * SOFT_COUNT_UNIT
            for target_lang, part in self._own_soft_counts.items()
        }
        soft_counts = self._soft_counts.astype(np.float64) * SOFT_COUNT_UNIT
        for problem in build_problems(self._trained_on(), soft_counts, own, self._distance):
            if self._history is not None and problem.target_lang not in self._history.trained:
                continue  # others' usage tells what usage is like; their adapters stay
            self._config.check_floor(problem.target_lang)
            if not self._new_usage(problem):
                raise EmptyInput(
                    f"target language '{problem.target_lang}': no usage document is left outside the held-out part "
                    "and the outliers; add usage or lower holdout_fraction"
                )
            near_usage = near_usage_count(self._histogram, problem.target_lang)
            if near_usage and not problem.capacity.any():
                notes = near_usage_notes(near_usage, 0, problem.target_lang, self._config)
                raise InfeasibleBudget(f"target language '{problem.target_lang}': {notes[0]}")
            shares = shares_of(problem, transports=self._config.transports)
            in_tokens = self._config.unit == "tokens"
            self._problems[problem.target_lang] = problem
            self._draws[problem.target_lang] = TargetDraw(
                problem.in_tokens() if in_tokens else problem,
                shares.in_tokens(problem) if in_tokens else shares,
                self._config,
                self._sameness,
            )

    def _new_usage(self, problem: Problem) -> bool:
        """Tell whether there is usage to draw towards; former usage has left counts alone."""
        if self._history is None:
            return bool(problem.usage[:-1].any())
        mine = pc.and_(
            pc.equal(self._histogram["role"], "usage"), pc.less(self._histogram["cluster"], self._n_clusters)
        )
        return problem.target_lang in self._histogram.filter(mine)["target_lang"].to_pylist()

    def requests(self) -> pa.Table:
        """List the cells that want candidates, of all target languages, and how many.

        The table has schema QUOTA, and is empty if none do.
        """
        return pa.concat_tables([draw.requests() for draw in self._draws.values()])

    def next_pass(self) -> Pass | None:
        """Plan the pass over shards that is needed before documents have keys. None if none is."""
        questions = self._questions()
        for target_lang, question in questions.items():
            if target_lang not in self._known:
                self._known[target_lang] = self._scorer.start(question)
        asked = {
            target_lang: q for target_lang, q in questions.items() if self._scorer.missing(q, self._known[target_lang])
        }
        self._parts = {}
        return Pass(asked, {target_lang: self._known[target_lang] for target_lang in asked}) if asked else None

    def add_part(self, part: dict[str, Any]) -> None:
        """Take one shard's part of a pass."""
        for target_lang, value in part.items():
            self._parts[target_lang] = (
                self._scorer.merge(self._parts[target_lang], value) if target_lang in self._parts else value
            )

    def conclude_pass(self) -> None:
        """Conclude what is known, now that all shards' parts are there."""
        for target_lang, part in self._parts.items():
            self._known[target_lang] = self._scorer.conclude(
                self._questions()[target_lang], self._known[target_lang], part
            )

    def add_candidates(self, candidates: pa.Table) -> None:
        """Take one shard's best documents for the cells that were asked for."""
        for target_lang in pc.unique(candidates["target_lang"]).to_pylist():
            self._draws[target_lang].add(candidates.filter(pc.equal(candidates["target_lang"], target_lang)))

    def undecided(self) -> pa.Table:
        """List the candidates among which near-duplicates have to be looked for. They are of all target languages."""
        return pa.concat_tables([draw.undecided() for draw in self._draws.values()])

    def decide(self, decisions: pa.Table) -> None:
        """Take decisions: target language, position, duplicate_of."""
        for target_lang in pc.unique(decisions["target_lang"]).to_pylist():
            mine = decisions.filter(pc.equal(decisions["target_lang"], target_lang))
            self._draws[target_lang].decide(mine["position"].to_numpy(), mine["duplicate_of"])

    def settle(self) -> bool:
        """Tell whether every target language's draw is complete; otherwise more candidates are wanted.

        Raises
        ------
        InfeasibleBudget
        """
        settled = [draw.settle() for draw in self._draws.values()]  # every one of them, not up to the first
        return all(settled)

    def outcome(self, names: Mapping[tuple[str, int], exemplars.ClusterName]) -> Outcome:
        """Collect what has been drawn, and the certificates; ``names`` are those of clusters.

        Raises
        ------
        InfeasibleBudget
            If what usage asks for is nowhere near, and nothing at all is drawn.
        """
        gaps, certificate, drawn, suppressed = [], {}, [], []
        for target_lang, draw in self._draws.items():
            rows = draw.drawn()
            gaps.append(self._gaps(target_lang, rows))
            certificate[target_lang] = self._certify(target_lang, rows)
            drawn.append(rows)
            suppressed.append(draw.suppressed())
        if self._config.transports and not any(rows.num_rows for rows in drawn):
            raise InfeasibleBudget(
                f"sample.shortfall: the pool holds nothing of what usage asks for, neither in its clusters nor in near "
                f"ones (sample.transport_reach: {self._config.transport_reach:g}), so that nothing is drawn for "
                f"{', '.join(self._draws)}; widen the pool, or draw from farther clusters with sample.shortfall=nearest"
            )
        return Outcome(
            pa.concat_tables(drawn),
            pa.concat_tables(suppressed),
            to_table(
                {target_lang: known for target_lang, known in self._known.items() if isinstance(known, Direction)}
            ),
            exemplars.with_names(pa.concat_tables(gaps), names),
            self._histogram,
            certificate,
        )

    def _gaps(self, target_lang: str, rows: pa.Table) -> pa.Table:
        draw, problem = self._draws[target_lang], self._problems[target_lang]
        in_tokens = self._config.unit == "tokens"
        drawn = self._by_cluster(rows, rows["tokens"].to_numpy() if in_tokens else 1)
        quota = draw.quotas.sum(axis=1) if draw.quotas.ndim == 2 else drawn
        balance = draw.balance()
        weighed = {} if balance is None else vars(balance)
        return gap_table(problem.in_tokens() if in_tokens else problem, draw.shares, quota, drawn, weighed)

    def _certify(self, target_lang: str, rows: pa.Table) -> dict[str, Any]:
        """Make the certificate. It counts documents, whatever the budget counts: usage was sampled in documents."""
        draw, problem = self._draws[target_lang], self._problems[target_lang]
        body = certify(
            HeldOut(problem.heldout, problem.heldout_effective),
            problem.current,
            np.append(self._by_cluster(rows, 1), 0),
            np.append(problem.cluster_capacity, 0),
            self._rng("certificate", target_lang),
        )
        usage = int(problem.usage.sum())
        tokens = int(pc.sum(rows["tokens"]).as_py() or 0)
        suppressed = draw.suppressed()
        copies = int(pc.sum(suppressed["copy"]).as_py() or 0)
        balance = draw.balance()
        near_usage = near_usage_count(self._histogram, target_lang)
        body["notes"] += near_usage_notes(near_usage, int(problem.capacity.sum()), target_lang, self._config)
        body["notes"] += shortfall_notes(draw, rows, self._config)
        return body | {
            "strategy": self._config.strategy,
            "selected_tokens": tokens,
            "unused_budget": unused_budget(rows, self._config),
            "languages": languages_of(rows),
            "near_usage": near_usage,
            "near_duplicates": suppressed.num_rows - copies,
            "copies": copies,
            "unmet": None if balance is None else int(balance.unmet.sum()),
            "usage_documents": usage,
            "usage_outlier_fraction": round(int(problem.usage[-1]) / usage, 6),
            "unreachable_usage": round(draw.shares.unreachable, 6),
            "shrinkage_alpha": round(draw.shares.alpha, 6),
        }

    def _by_cluster(self, rows: pa.Table, amount: NDArray[np.int64] | int) -> NDArray[np.int64]:
        counts = np.zeros(self._n_clusters, dtype=np.int64)
        np.add.at(counts, rows["cluster"].to_numpy(), amount)
        return counts

    def _questions(self) -> dict[str, Question]:
        return {
            target_lang: Question(draw.problem, draw.shares, draw.depth) for target_lang, draw in self._draws.items()
        }

    def _rng(self, purpose: str, target_lang: str) -> np.random.Generator:
        return np.random.default_rng(seeding.child_seed(self._seed, purpose, target_lang))
