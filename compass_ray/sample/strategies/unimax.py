"""``unimax``: the same for every language as far as it goes, without repeating documents (Chung et al., 2023)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compass_ray.sample.allocation import proportional_quotas
from compass_ray.sample.config import SampleConfig
from compass_ray.sample.gaps import OwnerMass
from compass_ray.sample.problem import OwnerProblem


def quotas(problem: OwnerProblem, mass: OwnerMass, config: SampleConfig) -> NDArray[np.int64]:
    """Equal over languages with one epoch as the ceiling, shape (n_languages,); usage has no say."""
    capacity = problem.capacity.sum(axis=0)
    return proportional_quotas(np.ones(len(capacity)), capacity, min(config.amount or 0, int(capacity.sum())))
