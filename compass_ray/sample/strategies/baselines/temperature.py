"""``temperature``: languages by size to a power, as multilingual models are pre-trained (Arivazhagan et al., 2019)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compass_ray.sample.config import SampleConfig
from compass_ray.sample.languages import capacity_weights
from compass_ray.sample.problem import Problem
from compass_ray.sample.strategies.base import by_language


def _weights(problem: Problem, config: SampleConfig) -> NDArray[np.float64]:
    """Weigh languages by the square root of their capacity."""
    return capacity_weights(problem.capacity.sum(axis=0))


STRATEGY = by_language(_weights)
