"""``deficit``: quotas proportional to deficits, as the COMPASS paper has it (arXiv 2604.20720)."""

from __future__ import annotations

from compass_ray.sample.allocation import proportional_quotas
from compass_ray.sample.gaps import OwnerMass
from compass_ray.sample.languages import Allocate
from compass_ray.sample.problem import OwnerProblem


def allocate(problem: OwnerProblem, mass: OwnerMass) -> Allocate:
    """Proportional to the deficit; to the target mass where no cluster has one."""
    wanted = mass.deficit if mass.deficit.any() else mass.target
    return lambda capacity, budget: proportional_quotas(wanted, capacity, budget)
