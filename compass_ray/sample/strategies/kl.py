"""``kl``: the quotas that bring current plus selection closest to usage, in KL divergence."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compass_ray.sample.allocation import kl_quotas
from compass_ray.sample.config import SampleConfig
from compass_ray.sample.gaps import OwnerMass
from compass_ray.sample.languages import Allocate
from compass_ray.sample.problem import OwnerProblem
from compass_ray.sample.strategies.clusters import by_cluster_and_language
from compass_ray.sample.strategies.languages import capacity_weights


def quotas(problem: OwnerProblem, mass: OwnerMass, config: SampleConfig) -> NDArray[np.int64]:
    """Exact integer optimum over clusters, then languages inside each cluster."""
    return by_cluster_and_language(closest(problem, mass), problem, capacity_weights(problem.capacity, config), config)


def closest(problem: OwnerProblem, mass: OwnerMass) -> Allocate:
    """Cluster quotas by KL divergence."""
    present = problem.current[:-1].astype(np.float64)
    return lambda capacity, budget: kl_quotas(mass.target, present, capacity, budget)
