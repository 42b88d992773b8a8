"""``random``: every eligible document with the same chance; the baseline to beat."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compass_ray.sample.allocation import hypergeometric_quotas
from compass_ray.sample.config import SampleConfig
from compass_ray.sample.gaps import OwnerMass
from compass_ray.sample.problem import OwnerProblem


def quotas(problem: OwnerProblem, mass: OwnerMass, config: SampleConfig, rng: np.random.Generator) -> NDArray[np.int64]:
    """One multivariate hypergeometric draw over all cells: the counts of a uniform sample."""
    drawn = hypergeometric_quotas(problem.capacity.ravel(), config.budget or 0, rng, draws=1)
    cells: NDArray[np.int64] = drawn[0].reshape(problem.capacity.shape)
    return cells
