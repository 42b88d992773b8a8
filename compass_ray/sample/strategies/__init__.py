"""Strategies: who decides the quotas. One small module each, all with one signature.

A strategy gets the owner's problem with its masses and returns quotas of shape
(n_clusters, n_languages) that never exceed the capacities and, except for ``all``, sum to the budget.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from compass_ray.sample.config import SampleConfig
from compass_ray.sample.gaps import OwnerMass
from compass_ray.sample.problem import OwnerProblem
from compass_ray.sample.strategies import deficit, everything, kl, uniform

Strategy = Callable[[OwnerProblem, OwnerMass, SampleConfig, np.random.Generator], NDArray[np.int64]]

STRATEGIES: dict[str, Strategy] = {
    "kl": kl.quotas,
    "deficit": deficit.quotas,
    "random": uniform.quotas,
    "all": everything.quotas,
}
