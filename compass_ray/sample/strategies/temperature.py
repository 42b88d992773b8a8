"""``temperature``: languages by size to a power, as multilingual models are pre-trained (Arivazhagan et al., 2019)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compass_ray.sample.allocation import proportional_quotas
from compass_ray.sample.config import SampleConfig
from compass_ray.sample.gaps import OwnerMass
from compass_ray.sample.problem import OwnerProblem


def quotas(problem: OwnerProblem, mass: OwnerMass, config: SampleConfig) -> NDArray[np.int64]:
    """``capacity ** language_temperature`` over languages, shape (n_languages,); usage has no say."""
    capacity = problem.capacity.sum(axis=0)
    return proportional_quotas(
        np.where(capacity > 0, capacity.astype(np.float64) ** config.language_temperature, 0.0),
        capacity,
        min(config.amount or 0, int(capacity.sum())),
    )
