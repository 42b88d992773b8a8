"""Strategies: how an owner's budget is spent. One small module each, all with one interface.

A strategy is a rule for quotas, and a scorer by which the documents of one cell compete. Quotas never exceed the
capacities and sum to the budget where that can be; their shape says how far the strategy decides:
(n_clusters, n_languages), (n_languages,), or () for the best of the whole pool.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from compass_ray.sample.config import SampleConfig, StrategyName
from compass_ray.sample.gaps import OwnerMass
from compass_ray.sample.problem import OwnerProblem
from compass_ray.sample.scorer import Scorer
from compass_ray.sample.strategies import (
    deficit,
    dsir,
    everything,
    hybrid,
    importance,
    kl,
    langsim,
    nearest,
    round_robin,
    temperature,
    uniform,
    unimax,
)
from compass_ray.sample.usage_contrast import UsageContrast

Quotas = Callable[[OwnerProblem, OwnerMass, SampleConfig], NDArray[np.int64]]


def _draw(config: SampleConfig) -> Scorer:
    """Documents of a cell are drawn: all with the same chance, or towards usage."""
    return Scorer() if config.temperature is None else UsageContrast(config.temperature)


@dataclass(frozen=True)
class Strategy:
    """A rule for quotas, and what decides inside a cell."""

    quotas: Quotas
    scorer: Callable[[SampleConfig], Scorer] = _draw


STRATEGIES: dict[StrategyName, Strategy] = {
    "kl": Strategy(kl.quotas),
    "deficit": Strategy(deficit.quotas),
    "hybrid": Strategy(hybrid.quotas),
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
