"""What strategies with cluster quotas share: languages, and their caps."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compass_ray.sample.config import SampleConfig
from compass_ray.sample.languages import Allocate, Caps, capped_quotas
from compass_ray.sample.problem import OwnerProblem


def by_cluster_and_language(
    allocate: Allocate, problem: OwnerProblem, weights: NDArray[np.float64], config: SampleConfig
) -> NDArray[np.int64]:
    """Quotas by cluster, shared among languages in proportion to weights within the caps of the config."""
    return capped_quotas(allocate, problem.capacity, weights, caps(problem, config), config.amount or 0)


def caps(problem: OwnerProblem, config: SampleConfig) -> Caps:
    """The caps of the config in the unit of the budget, rounded up so that a language always has room for one."""
    fractions = config.max_language_fraction
    by_language = fractions if isinstance(fractions, dict) else {}
    default = 1.0 if isinstance(fractions, dict) or fractions is None else fractions
    share = np.array([by_language.get(lang, default) for lang in problem.languages])
    in_budget = np.ceil(share * (config.amount or 0) - 1e-9).astype(np.int64)
    return Caps(config.max_cluster_language_fraction or 1.0, in_budget)
