"""``deficit``: quotas proportional to deficits, as the COMPASS paper has it (arXiv 2604.20720)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compass_ray.sample.allocation import proportional_quotas
from compass_ray.sample.config import SampleConfig
from compass_ray.sample.gaps import OwnerMass
from compass_ray.sample.problem import OwnerProblem
from compass_ray.sample.strategies.clusters import by_cluster_and_language
from compass_ray.sample.strategies.languages import capacity_weights


def quotas(problem: OwnerProblem, mass: OwnerMass, config: SampleConfig) -> NDArray[np.int64]:
    """Proportional to the deficit; to the target mass where no cluster has one."""
    wanted = mass.deficit if mass.deficit.any() else mass.target
    weights = capacity_weights(problem.capacity, config)
    return by_cluster_and_language(
        lambda capacity, budget: proportional_quotas(wanted, capacity, budget), problem, weights, config
    )
