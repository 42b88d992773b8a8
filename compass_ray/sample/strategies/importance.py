"""``importance``: documents weighted by how much likelier their cluster is in usage than in the pool.

Clustered importance sampling (Grangier et al., 2024, arXiv 2410.03735); what is trained on already has no say.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from compass_ray.sample.config import SampleConfig
from compass_ray.sample.scorer import Keys, Question, Scorer, noise
from compass_ray.sample.shard import Positions, Shard
from compass_ray.sample.strategies.base import best_of_pool


class ClusterImportance(Scorer):
    """Weighted sample without replacement: log p_usage(cluster) / p_pool(cluster), and Gumbel noise."""

    def start(self, question: Question) -> Any:
        """Compute log weights by cluster, shape (n_clusters,)."""
        pool = question.problem.cluster_capacity
        with np.errstate(divide="ignore", invalid="ignore"):
            weights = np.log(question.shares.usage) - np.log(pool / pool.sum())
        return np.where(pool > 0, weights, -np.inf)

    def keys(self, shard: Shard, positions: Positions, target_lang: str, known: Any) -> Keys:
        """Add noise to the log weight of each document's cluster."""
        weights: Keys = known[shard.clusters(positions)]
        return weights + noise(shard, positions, target_lang)


def _scorer(config: SampleConfig) -> Scorer:
    return ClusterImportance()


STRATEGY = best_of_pool(_scorer)
