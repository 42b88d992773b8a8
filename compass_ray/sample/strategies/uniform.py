"""One quota for the whole pool: ``random``, the baseline to beat, and the strategies that rank the pool."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compass_ray.sample.config import SampleConfig
from compass_ray.sample.gaps import Shares
from compass_ray.sample.problem import Problem


def quotas(problem: Problem, shares: Shares, config: SampleConfig) -> NDArray[np.int64]:
    """Make one quota of the budget, shape ().

    It goes to the documents with the highest keys, which are noise alone under ``random``.
    """
    return np.array(min(config.amount or 0, int(problem.capacity.sum())), dtype=np.int64)
