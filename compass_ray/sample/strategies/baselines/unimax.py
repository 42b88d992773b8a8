"""``unimax``: the same for every language as far as it goes, without repeating documents (Chung et al., 2023)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compass_ray.sample.config import SampleConfig
from compass_ray.sample.problem import Problem
from compass_ray.sample.strategies.base import by_language


def _weights(problem: Problem, config: SampleConfig) -> NDArray[np.float64]:
    return np.ones(len(problem.languages))


STRATEGY = by_language(_weights)
