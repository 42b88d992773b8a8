"""``unimax``: the same for every language as far as it goes, without repeating documents (Chung et al., 2023)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compass_ray.sample.config import SampleConfig
from compass_ray.sample.gaps import Shares
from compass_ray.sample.problem import Problem
from compass_ray.sample.strategies.languages import by_language


def quotas(problem: Problem, shares: Shares, config: SampleConfig) -> NDArray[np.int64]:
    """Equal over languages with one epoch as the ceiling, shape (n_languages,); usage has no say."""
    return by_language(np.ones(len(problem.languages)), problem, config)
