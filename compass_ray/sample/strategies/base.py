"""What a strategy is: a rule for quotas, and what decides inside a cell.

Quotas never exceed the capacities and sum to the budget where that can be; their shape says how far the strategy
decides: (n_clusters, n_languages), (n_languages,), or () for the best of the whole pool.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compass_ray.sample.allocation import Counts, proportional_quotas
from compass_ray.sample.config import SampleConfig
from compass_ray.sample.gaps import Shares
from compass_ray.sample.languages import Allocate
from compass_ray.sample.problem import Problem
from compass_ray.sample.scorer import Scorer
from compass_ray.sample.strategies.clusters import asked, by_cluster_and_language
from compass_ray.sample.usage_contrast import UsageContrast

Quotas = Callable[[Problem, Shares, SampleConfig], NDArray[np.int64]]
MakeScorer = Callable[[SampleConfig], Scorer]


def _alike(config: SampleConfig) -> Scorer:
    """Draw all documents of a cell with the same chance."""
    return Scorer()


def _towards_usage(config: SampleConfig) -> Scorer:
    """Draw documents of a cell by their odds to be of usage."""
    return UsageContrast(config.temperature, nearness=config.on_shortfall == "own_language")


@dataclass(frozen=True)
class Strategy:
    """A rule for quotas, and what decides inside a cell."""

    quotas: Quotas
    scorer: MakeScorer = _alike
    allocate: Callable[[Problem, Shares], Allocate] | None = None  # of those with cluster quotas

    def asked(self, problem: Problem, shares: Shares, config: SampleConfig) -> Counts | None:
        """Compute what each cluster would get from a pool without end.

        Shape (n_clusters,); None without cluster quotas.
        """
        return None if self.allocate is None else asked(self.allocate(problem, shares), problem, config)


def by_cluster(allocate: Callable[[Problem, Shares], Allocate]) -> Strategy:
    """Make a strategy that gives clusters quotas; languages share these by the rules of the config."""

    def quotas(problem: Problem, shares: Shares, config: SampleConfig) -> NDArray[np.int64]:
        return by_cluster_and_language(allocate(problem, shares), problem, config)

    return Strategy(quotas, _towards_usage, allocate)


def by_language(weights: Callable[[Problem, SampleConfig], NDArray[np.float64]]) -> Strategy:
    """Make a strategy that splits the budget in proportion to weights of shape (n_languages,); usage has no say."""

    def quotas(problem: Problem, shares: Shares, config: SampleConfig) -> NDArray[np.int64]:
        capacity = problem.capacity.sum(axis=0)
        budget = min(config.amount or 0, int(capacity.sum()))
        return proportional_quotas(weights(problem, config), capacity, budget)

    return Strategy(quotas)


def best_of_pool(scorer: MakeScorer = _alike) -> Strategy:
    """Make a strategy that draws the documents with the highest keys of the whole pool."""

    def quotas(problem: Problem, shares: Shares, config: SampleConfig) -> NDArray[np.int64]:
        return np.array(min(config.amount or 0, int(problem.capacity.sum())), dtype=np.int64)

    return Strategy(quotas, scorer)
