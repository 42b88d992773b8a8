"""``kl``: the quotas that bring current plus selection closest to usage, in KL divergence."""

from __future__ import annotations

import numpy as np

from compass_ray.sample.allocation import kl_quotas
from compass_ray.sample.gaps import Shares
from compass_ray.sample.languages import Allocate
from compass_ray.sample.problem import Problem
from compass_ray.sample.strategies.base import by_cluster


def _allocate(problem: Problem, shares: Shares) -> Allocate:
    """Find the exact integer optimum over clusters."""
    present = problem.current[:-1].astype(np.float64)
    return lambda capacity, budget: kl_quotas(shares.usage, present, capacity, budget)


STRATEGY = by_cluster(_allocate)
