"""What strategies with quotas by language share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compass_ray.sample.allocation import proportional_quotas
from compass_ray.sample.config import SampleConfig
from compass_ray.sample.problem import OwnerProblem


def by_language(weights: NDArray[np.float64], problem: OwnerProblem, config: SampleConfig) -> NDArray[np.int64]:
    """The budget, or all there is, in proportion to the weights of languages, shape (n_languages,)."""
    capacity = problem.capacity.sum(axis=0)
    return proportional_quotas(weights, capacity, min(config.amount or 0, int(capacity.sum())))


def capacity_weights(capacity: NDArray[np.int64], config: SampleConfig) -> NDArray[np.float64]:
    """``capacity ** language_temperature``, zero where there is no document; of the shape of ``capacity``."""
    weights: NDArray[np.float64] = np.where(
        capacity > 0, capacity.astype(np.float64) ** config.language_temperature, 0.0
    )
    return weights
