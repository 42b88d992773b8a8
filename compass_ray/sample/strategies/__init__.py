"""Strategies: how a target language's budget is spent. One small module each, all with one interface.

A strategy is a rule for quotas, and a scorer by which the documents of one cell compete. Quotas never exceed the
capacities and sum to the budget where that can be; their shape says how far the strategy decides:
(n_clusters, n_languages), (n_languages,), or () for the best of the whole pool.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compass_ray.sample.allocation import Counts
from compass_ray.sample.config import SampleConfig, StrategyName
from compass_ray.sample.gaps import Shares
from compass_ray.sample.languages import Allocate
from compass_ray.sample.problem import Problem
from compass_ray.sample.scorer import Scorer
from compass_ray.sample.strategies import (
    deficit,
    dsir,
    everything,
    importance,
    kl,
    langsim,
    nearest,
    round_robin,
    temperature,
    uniform,
    unimax,
)
from compass_ray.sample.strategies.clusters import asked, by_cluster_and_language
from compass_ray.sample.usage_contrast import UsageContrast

Quotas = Callable[[Problem, Shares, SampleConfig], NDArray[np.int64]]


def _draw(config: SampleConfig) -> Scorer:
    """Documents of a cell are drawn towards usage under cluster quotas, else all with the same chance."""
    if not config.has_cluster_quotas:
        return Scorer()
    return UsageContrast(config.temperature, nearness=config.on_shortfall == "own_language")


@dataclass(frozen=True)
class Strategy:
    """A rule for quotas, and what decides inside a cell."""

    quotas: Quotas
    scorer: Callable[[SampleConfig], Scorer] = _draw
    allocate: Callable[[Problem, Shares], Allocate] | None = None  # of those with cluster quotas

    def asked(self, problem: Problem, shares: Shares, config: SampleConfig) -> Counts | None:
        """Compute what each cluster would get from a pool without end.

        Shape (n_clusters,); None without cluster quotas.
        """
        return None if self.allocate is None else asked(self.allocate(problem, shares), problem, config)


def _by_cluster(allocate: Callable[[Problem, Shares], Allocate]) -> Strategy:
    def quotas(problem: Problem, shares: Shares, config: SampleConfig) -> NDArray[np.int64]:
        return by_cluster_and_language(allocate(problem, shares), problem, config)

    return Strategy(quotas, allocate=allocate)


STRATEGIES: dict[StrategyName, Strategy] = {
    "kl": _by_cluster(kl.allocate),
    "deficit": _by_cluster(deficit.allocate),
    "random": Strategy(uniform.quotas),
    "all": Strategy(everything.quotas),
    "temperature": Strategy(temperature.quotas),
    "unimax": Strategy(unimax.quotas),
    "langsim": Strategy(langsim.quotas),
    "importance": Strategy(uniform.quotas, importance.scorer),
    "nearest": Strategy(uniform.quotas, nearest.scorer),
    "round_robin": Strategy(uniform.quotas, round_robin.scorer),
    "dsir": Strategy(uniform.quotas, dsir.scorer),
}
