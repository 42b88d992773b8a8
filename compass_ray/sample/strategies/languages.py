"""What strategies with quotas by language share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compass_ray.sample.allocation import proportional_quotas
from compass_ray.sample.config import SampleConfig
from compass_ray.sample.problem import Problem

TEMPERATURE = 0.5
"""The power of capacity by which languages share, as multilingual models are pre-trained."""


def by_language(weights: NDArray[np.float64], problem: Problem, config: SampleConfig) -> NDArray[np.int64]:
    """Split the budget, or all there is, in proportion to languages' weights. Shape (n_languages,)."""
    capacity = problem.capacity.sum(axis=0)
    return proportional_quotas(weights, capacity, min(config.amount or 0, int(capacity.sum())))


def capacity_weights(capacity: NDArray[np.int64], temperature: float = TEMPERATURE) -> NDArray[np.float64]:
    """``capacity ** temperature``, zero where there is no document; of the shape of ``capacity``."""
    weights: NDArray[np.float64] = np.where(capacity > 0, capacity.astype(np.float64) ** temperature, 0.0)
    return weights
