"""``random``: the whole pool with the same chance; the baseline to beat."""

from __future__ import annotations

from compass_ray.sample.config import SampleConfig
from compass_ray.sample.scorer import Scorer
from compass_ray.sample.strategies.base import best_of_pool


def _chance(config: SampleConfig) -> Scorer:
    return Scorer()


STRATEGY = best_of_pool(_chance)
