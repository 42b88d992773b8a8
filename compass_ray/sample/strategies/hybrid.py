"""``hybrid``: clusters as in ``kl``, languages by capacity and by similarity to the owner's (as in ``langsim``)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compass_ray.sample.config import SampleConfig
from compass_ray.sample.gaps import OwnerMass
from compass_ray.sample.problem import OwnerProblem
from compass_ray.sample.strategies.clusters import by_cluster_and_language
from compass_ray.sample.strategies.kl import closest
from compass_ray.sample.strategies.langsim import language_weights
from compass_ray.sample.strategies.languages import capacity_weights


def quotas(problem: OwnerProblem, mass: OwnerMass, config: SampleConfig) -> NDArray[np.int64]:
    """Exact integer optimum over clusters; inside, nearer languages have more of the quota."""
    weights = capacity_weights(problem.capacity, config) * language_weights(problem, config)
    return by_cluster_and_language(closest(problem, mass), problem, weights, config)
