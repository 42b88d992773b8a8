"""The sampler actor: merges histograms, decides quotas, merges candidates, certifies.

It is the only place that sees all shards, and what it sees are counts and at most ``budget`` keys per
owner (twice that between merges). Everything it is sent adds up in any order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from compass_ray import records, seeding
from compass_ray.errors import EmptyInput, InfeasibleBudget
from compass_ray.sample import exemplars
from compass_ray.sample.certificate import certify
from compass_ray.sample.config import SampleConfig
from compass_ray.sample.draw import QUOTA, keep_best, quota_table, ranks
from compass_ray.sample.gaps import gap_table, owner_mass
from compass_ray.sample.histogram import merge
from compass_ray.sample.problem import OwnerProblem, build_problems
from compass_ray.sample.strategies import STRATEGIES

_MERGE_ROWS = 1 << 18


@dataclass(frozen=True)
class Allocation:
    """What the histograms decide: gaps without labels, quotas of cells, certificates by owner."""

    histogram: pa.Table
    gaps: pa.Table
    quotas: pa.Table
    certificate: dict[str, Any]


class Sampler:
    """Run as a Ray actor by the sample stage; a plain object otherwise."""

    def __init__(self, config: SampleConfig, n_clusters: int, seed: int, *, with_current: bool = True) -> None:
        self._config, self._n_clusters, self._seed, self._with_current = config, n_clusters, seed, with_current
        self._histogram = records.HISTOGRAM.empty_table()
        self._nearest: pa.Table | None = None
        self._quotas = QUOTA.empty_table()
        self._drawn = records.CANDIDATE.empty_table()
        self._unmerged = 0

    def add_counts(self, histogram: pa.Table, nearest: pa.Table | None) -> None:
        """Take one shard's histogram and, from some shards, its documents nearest to the centroids."""
        self._histogram = merge([self._histogram, histogram])
        if nearest is not None:
            parts = [nearest] if self._nearest is None else [self._nearest, nearest]
            self._nearest = exemplars.keep_nearest(parts)

    def label_documents(self) -> pa.Table | None:
        """The documents whose text is needed to name clusters."""
        if self._nearest is None:
            return None
        owners = sorted(set(self._histogram.filter(self._histogram["owner"].is_valid())["owner"].to_pylist()))
        return exemplars.wanted_documents(self._nearest, owners)

    def allocate(self) -> Allocation:
        """Solve every owner's problem.

        Raises
        ------
        InfeasibleBudget
            If an owner's eligible pool is smaller than the budget.
        EmptyInput
            If an owner has no target document outside the held-out part.
        """
        gaps, quotas, certificate = [], [], {}
        trained_on = self._histogram
        if not self._with_current:
            trained_on = trained_on.filter(pc.not_equal(trained_on["role"], "current"))
        for problem in build_problems(trained_on, self._n_clusters):
            owner_gaps, owner_quotas, owner_certificate = self._solve(problem)
            gaps.append(owner_gaps)
            quotas.append(quota_table(problem.owner, problem.languages, owner_quotas))
            certificate[problem.owner] = owner_certificate
        self._quotas = pa.concat_tables(quotas)
        return Allocation(self._histogram, pa.concat_tables(gaps), self._quotas, certificate)

    def _solve(self, problem: OwnerProblem) -> tuple[pa.Table, Any, dict[str, Any]]:
        self._check(problem)
        mass = owner_mass(problem, self._rng("interval", problem.owner))
        strategy = STRATEGIES[self._config.strategy]
        quotas = strategy(problem, mass, self._config, self._rng("quotas", problem.owner))
        body = certify(
            problem.heldout,
            problem.current,
            np.append(quotas.sum(axis=1), 0),
            np.append(problem.cluster_capacity, 0),
            self._rng("certificate", problem.owner),
        )
        targets = int(problem.target.sum())
        body |= {
            "strategy": self._config.strategy,
            "target_documents": targets,
            "target_outlier_fraction": round(int(problem.target[-1]) / targets, 6),
            "unreachable_target_mass": round(mass.unreachable, 6),
            "shrinkage_alpha": round(mass.alpha, 6),
        }
        return gap_table(problem, mass, quotas), quotas, body

    def _check(self, problem: OwnerProblem) -> None:
        if not problem.target[:-1].any():
            raise EmptyInput(
                f"owner '{problem.owner}': no target document is left outside the held-out part and the outliers; "
                "add target data or lower target.holdout_fraction"
            )
        eligible = int(problem.capacity.sum())
        if self._config.budget is not None and eligible < self._config.budget:
            raise InfeasibleBudget(
                f"sample.budget: owner '{problem.owner}' asks for {self._config.budget} documents but only {eligible} "
                "of the pool are eligible (not outliers, and not already in its current or any target data); "
                "lower the budget, add pool data, or use strategy 'all'"
            )

    def add_candidates(self, candidates: pa.Table) -> None:
        """Take one shard's best documents for every cell."""
        self._drawn = pa.concat_tables([self._drawn, candidates])
        self._unmerged += candidates.num_rows
        if self._unmerged > _MERGE_ROWS:
            self._drawn, self._unmerged = keep_best(self._drawn, self._quotas), 0

    def draw(self) -> pa.Table:
        """The drawn documents with their ranks: schema CANDIDATE plus ``rank``."""
        return ranks(keep_best(self._drawn, self._quotas))

    def _rng(self, purpose: str, owner: str) -> np.random.Generator:
        return np.random.default_rng(seeding.child_seed(self._seed, purpose, owner))
