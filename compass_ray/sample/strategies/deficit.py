"""``deficit``: quotas proportional to deficits, as the COMPASS paper has it (arXiv 2604.20720)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compass_ray.sample.allocation import proportional_quotas, split_by_language
from compass_ray.sample.config import SampleConfig
from compass_ray.sample.gaps import OwnerMass
from compass_ray.sample.problem import OwnerProblem


def quotas(problem: OwnerProblem, mass: OwnerMass, config: SampleConfig, rng: np.random.Generator) -> NDArray[np.int64]:
    """Proportional to the deficit; to the target mass where no cluster has one."""
    weights = mass.deficit if mass.deficit.any() else mass.target
    by_cluster = proportional_quotas(weights, problem.cluster_capacity, config.budget or 0)
    return split_by_language(by_cluster, problem.capacity, config.language_temperature)
