"""``deficit``: quotas proportional to deficits, as the COMPASS paper has it (arXiv 2604.20720)."""

from __future__ import annotations

from compass_ray.sample.allocation import proportional_quotas
from compass_ray.sample.gaps import Shares
from compass_ray.sample.languages import Allocate
from compass_ray.sample.problem import Problem
from compass_ray.sample.strategies.base import by_cluster


def _allocate(problem: Problem, shares: Shares) -> Allocate:
    """Share the budget in proportion to the deficit; to the share of usage where no cluster has one."""
    wanted = shares.deficit if shares.deficit.any() else shares.usage
    return lambda capacity, budget: proportional_quotas(wanted, capacity, budget)


STRATEGY = by_cluster(_allocate)
