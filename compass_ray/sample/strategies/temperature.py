"""``temperature``: languages by size to a power, as multilingual models are pre-trained (Arivazhagan et al., 2019)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compass_ray.sample.config import SampleConfig
from compass_ray.sample.gaps import Shares
from compass_ray.sample.problem import Problem
from compass_ray.sample.strategies.languages import by_language, capacity_weights


def quotas(problem: Problem, shares: Shares, config: SampleConfig) -> NDArray[np.int64]:
    """Split the budget by the square root of languages' capacity. Shape (n_languages,); usage has no say."""
    return by_language(capacity_weights(problem.capacity.sum(axis=0)), problem, config)
