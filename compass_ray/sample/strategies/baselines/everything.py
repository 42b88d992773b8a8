"""``all``: the whole eligible pool; what one trains on without curation, near-duplicates included."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compass_ray.sample.config import SampleConfig
from compass_ray.sample.gaps import Shares
from compass_ray.sample.problem import Problem
from compass_ray.sample.strategies.base import Strategy


def _quotas(problem: Problem, shares: Shares, config: SampleConfig) -> NDArray[np.int64]:
    return np.array(problem.capacity.sum(), dtype=np.int64)


STRATEGY = Strategy(_quotas)
