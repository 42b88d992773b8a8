"""``kl``: the quotas that bring current plus selection closest to usage, in KL divergence."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compass_ray.sample.allocation import kl_quotas, split_by_language
from compass_ray.sample.config import SampleConfig
from compass_ray.sample.gaps import OwnerMass
from compass_ray.sample.problem import OwnerProblem


def quotas(problem: OwnerProblem, mass: OwnerMass, config: SampleConfig, rng: np.random.Generator) -> NDArray[np.int64]:
    """Exact integer optimum over clusters, then languages inside each cluster."""
    present = problem.current[:-1].astype(np.float64)
    by_cluster = kl_quotas(mass.target, present, problem.cluster_capacity, config.budget or 0)
    return split_by_language(by_cluster, problem.capacity, config.language_temperature)
