"""The sampler actor: merges histograms, decides quotas, merges candidates, certifies.

It is the only place that sees all shards, and what it sees are counts and a few times ``budget`` keys per
owner. Everything it is sent adds up in any order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from compass_ray import records, seeding
from compass_ray.errors import EmptyInput, InfeasibleBudget
from compass_ray.mass import cluster_weights
from compass_ray.sample import exemplars
from compass_ray.sample.certificate import HeldOut, certify
from compass_ray.sample.config import SampleConfig
from compass_ray.sample.gaps import gap_table, owner_mass
from compass_ray.sample.histogram import SOFT_COUNT_UNIT, merge
from compass_ray.sample.near_duplicates import Sameness
from compass_ray.sample.owner_draw import OwnerDraw
from compass_ray.sample.problem import OwnerProblem, build_problems, near_usage_count, role_counts
from compass_ray.sample.scorer import Question
from compass_ray.sample.shortfall import languages_of, near_usage_notes, shortfall_notes, unused_budget
from compass_ray.sample.strategies import STRATEGIES
from compass_ray.sample.usage_contrast import Direction, to_table


@dataclass(frozen=True)
class Pass:
    """What tasks need to know for one pass over the shards, by owner: small, the same for all of them."""

    questions: dict[str, Question]
    known: dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """What was drawn and passed over, towards what, gaps without labels, histogram, certificates by owner."""

    drawn: pa.Table
    suppressed: pa.Table
    directions: pa.Table
    gaps: pa.Table
    histogram: pa.Table
    certificate: dict[str, Any]


class Sampler:
    """Run as a Ray actor by the sample stage; a plain object otherwise."""

    def __init__(
        self,
        config: SampleConfig,
        distance: NDArray[np.float64],
        seed: int,
        *,
        sameness: Sameness,
        with_current: bool = True,
    ) -> None:
        self._config, self._distance, self._seed, self._with_current = config, distance, seed, with_current
        self._n_clusters, self._sameness = len(distance), sameness
        self._scorer = STRATEGIES[config.strategy].scorer(config)
        self._histogram = records.HISTOGRAM.empty_table()
        self._soft_counts = np.zeros(self._n_clusters, dtype=np.int64)
        self._own_soft_counts: dict[str, NDArray[np.int64]] = {}
        self._nearest: pa.Table | None = None
        self._problems: dict[str, OwnerProblem] = {}  # in documents
        self._draws: dict[str, OwnerDraw] = {}
        self._known: dict[str, Any] = {}
        self._parts: dict[str, Any] = {}

    def add_counts(self, histogram: pa.Table, nearest: pa.Table | None) -> None:
        """Take one shard's histogram and, from some shards, its documents nearest to the centroids."""
        self._histogram = merge([self._histogram, histogram])
        if nearest is not None:
            parts = [nearest] if self._nearest is None else [self._nearest, nearest]
            self._nearest = exemplars.keep_nearest(parts)

    def cluster_prior(self) -> NDArray[np.float64]:
        """How common clusters are, by which usage is shared among them, shape (n_clusters,)."""
        pool, current = (role_counts(self._trained_on(), role, self._n_clusters) for role in ("pool", "current"))
        return cluster_weights(pool, current)

    def _trained_on(self) -> pa.Table:
        """The histogram, without current data if these will not be trained on."""
        if self._with_current:
            return self._histogram
        return self._histogram.filter(pc.not_equal(self._histogram["role"], "current"))

    def add_soft_counts(self, soft_counts: NDArray[np.int64], own: Mapping[str, NDArray[np.int64]]) -> None:
        """Take one shard's usage, shared among clusters."""
        self._soft_counts += soft_counts
        for owner, part in own.items():
            self._own_soft_counts[owner] = self._own_soft_counts.get(owner, 0) + part

    def label_documents(self) -> pa.Table | None:
        """The documents whose text is needed to name clusters."""
        if self._nearest is None:
            return None
        owners = sorted(set(self._histogram.filter(self._histogram["owner"].is_valid())["owner"].to_pylist()))
        return exemplars.wanted_documents(self._nearest, owners)

    def allocate(self) -> None:
        """Solve every owner's problem.

        Raises
        ------
        ConfigError
            If bounds on languages contradict each other for an owner.
        InfeasibleBudget
            Under ``refuse``, if an owner's eligible pool is smaller than the budget; otherwise if near copies of usage
            are all that it holds.
        EmptyInput
            If an owner has no target document outside the held-out part.
        """
        own = {owner: part.astype(np.float64) * SOFT_COUNT_UNIT for owner, part in self._own_soft_counts.items()}
        soft_counts = self._soft_counts.astype(np.float64) * SOFT_COUNT_UNIT
        for problem in build_problems(self._trained_on(), soft_counts, own, self._distance):
            self._config.check_floor(problem.owner)
            if not problem.target[:-1].any():
                raise EmptyInput(
                    f"owner '{problem.owner}': no target document is left outside the held-out part and the outliers; "
                    "add target data or lower target.holdout_fraction"
                )
            near_usage = near_usage_count(self._histogram, problem.owner)
            if near_usage and not problem.capacity.any():
                notes = near_usage_notes(near_usage, 0, problem.owner, self._config)
                raise InfeasibleBudget(f"owner '{problem.owner}': {notes[0]}")
            mass = owner_mass(problem, transports=self._config.transports)
            in_tokens = self._config.unit == "tokens"
            self._problems[problem.owner] = problem
            self._draws[problem.owner] = OwnerDraw(
                problem.in_tokens() if in_tokens else problem,
                mass.in_tokens(problem) if in_tokens else mass,
                self._config,
                self._sameness,
            )

    def requests(self) -> pa.Table:
        """The cells of all owners whose candidates are wanted, and how many; schema QUOTA, empty if none are."""
        return pa.concat_tables([draw.requests() for draw in self._draws.values()])

    def next_pass(self) -> Pass | None:
        """The pass over the shards that has to be made before documents have keys; None if none has."""
        questions = self._questions()
        for owner, question in questions.items():
            if owner not in self._known:
                self._known[owner] = self._scorer.start(question)
        asked = {owner: q for owner, q in questions.items() if self._scorer.missing(q, self._known[owner])}
        self._parts = {}
        return Pass(asked, {owner: self._known[owner] for owner in asked}) if asked else None

    def add_part(self, part: dict[str, Any]) -> None:
        """Take one shard's part of a pass."""
        for owner, value in part.items():
            self._parts[owner] = self._scorer.merge(self._parts[owner], value) if owner in self._parts else value

    def conclude_pass(self) -> None:
        """All shards' parts are there."""
        for owner, part in self._parts.items():
            self._known[owner] = self._scorer.conclude(self._questions()[owner], self._known[owner], part)

    def known(self) -> dict[str, Any]:
        """What gives documents their keys, by owner."""
        return self._known

    def add_candidates(self, candidates: pa.Table) -> None:
        """Take one shard's best documents for the cells that were asked for."""
        for owner in pc.unique(candidates["owner"]).to_pylist():
            self._draws[owner].add(candidates.filter(pc.equal(candidates["owner"], owner)))

    def undecided(self) -> pa.Table:
        """Candidates of all owners among which near-duplicates have to be looked for."""
        return pa.concat_tables([draw.undecided() for draw in self._draws.values()])

    def decide(self, decisions: pa.Table) -> None:
        """Take decisions: owner, position, duplicate_of."""
        for owner in pc.unique(decisions["owner"]).to_pylist():
            mine = decisions.filter(pc.equal(decisions["owner"], owner))
            self._draws[owner].decide(mine["position"].to_numpy(), mine["duplicate_of"])

    def settle(self) -> bool:
        """Whether every owner's draw is complete; otherwise more candidates are wanted.

        Raises
        ------
        InfeasibleBudget
        """
        settled = [draw.settle() for draw in self._draws.values()]  # every one of them, not up to the first
        return all(settled)

    def outcome(self) -> Outcome:
        """What has been drawn, and the certificates.

        Raises
        ------
        InfeasibleBudget
            If what usage asks for is nowhere near, and nothing at all is drawn.
        """
        gaps, certificate, drawn, suppressed = [], {}, [], []
        for owner, draw in self._draws.items():
            rows = draw.drawn()
            gaps.append(self._gaps(owner, rows))
            certificate[owner] = self._certify(owner, rows)
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
            to_table({owner: known for owner, known in self._known.items() if isinstance(known, Direction)}),
            pa.concat_tables(gaps),
            self._histogram,
            certificate,
        )

    def _gaps(self, owner: str, rows: pa.Table) -> pa.Table:
        draw, problem = self._draws[owner], self._problems[owner]
        in_tokens = self._config.unit == "tokens"
        drawn = self._by_cluster(rows, rows["tokens"].to_numpy() if in_tokens else 1)
        quota = draw.quotas.sum(axis=1) if draw.quotas.ndim == 2 else drawn
        balance = draw.balance()
        weighed = {} if balance is None else vars(balance)
        return gap_table(problem.in_tokens() if in_tokens else problem, draw.mass, quota, drawn, weighed)

    def _certify(self, owner: str, rows: pa.Table) -> dict[str, Any]:
        """The certificate counts documents, whatever the budget counts: usage was sampled in documents."""
        draw, problem = self._draws[owner], self._problems[owner]
        body = certify(
            HeldOut(problem.heldout, problem.heldout_effective),
            problem.current,
            np.append(self._by_cluster(rows, 1), 0),
            np.append(problem.cluster_capacity, 0),
            self._rng("certificate", owner),
        )
        targets = int(problem.target.sum())
        tokens = int(pc.sum(rows["tokens"]).as_py() or 0)
        suppressed = draw.suppressed()
        copies = int(pc.sum(suppressed["copy"]).as_py() or 0)
        balance = draw.balance()
        near_usage = near_usage_count(self._histogram, owner)
        body["notes"] += near_usage_notes(near_usage, int(problem.capacity.sum()), owner, self._config)
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
            "target_documents": targets,
            "target_outlier_fraction": round(int(problem.target[-1]) / targets, 6),
            "unreachable_target_mass": round(draw.mass.unreachable, 6),
            "shrinkage_alpha": round(draw.mass.alpha, 6),
        }

    def _by_cluster(self, rows: pa.Table, amount: NDArray[np.int64] | int) -> NDArray[np.int64]:
        counts = np.zeros(self._n_clusters, dtype=np.int64)
        np.add.at(counts, rows["cluster"].to_numpy(), amount)
        return counts

    def _questions(self) -> dict[str, Question]:
        return {owner: Question(draw.problem, draw.mass, draw.depth) for owner, draw in self._draws.items()}

    def _rng(self, purpose: str, owner: str) -> np.random.Generator:
        return np.random.default_rng(seeding.child_seed(self._seed, purpose, owner))
