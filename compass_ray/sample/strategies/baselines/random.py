"""``random``: the whole pool with the same chance; the baseline to beat."""

from compass_ray.sample.strategies.base import best_of_pool

STRATEGY = best_of_pool()
