"""Documents that lie where the owner asks, inside a cluster, are likelier to be drawn."""

from __future__ import annotations

from typing import Any

import numpy as np

from compass_ray import shards
from compass_ray.sample.scorer import Keys, Question, Scorer, noise
from compass_ray.sample.shard import Positions, Shard
from compass_ray.vectors import unit_rows


class UsageSimilarity(Scorer):
    """Weight ``exp(similarity / τ)`` with the owner's mean usage in the cluster; 1 in clusters without usage.

    What is gathered is the sum of the owner's usage vectors by cluster in fixed point, shape (n_clusters, d).

    Parameters
    ----------
    temperature : float
        τ: small values take the nearest documents, large ones any.
    """

    def __init__(self, temperature: float) -> None:
        self._temperature = temperature

    def missing(self, question: Question, known: Any) -> bool:
        """One pass."""
        return known is None

    def gather(self, shard: Shard, question: Question, known: Any) -> Any:
        """Sums of the shard's usage vectors."""
        positions = shard.usage(question.owner)
        rows = shard.vectors(positions).astype(np.float64)
        sums = np.zeros((len(question.mass.target), rows.shape[1]))
        np.add.at(sums, shard.clusters(positions), rows)
        return shards.to_fixed(sums * shards.VECTOR_SUM_SCALE)

    def merge(self, one: Any, other: Any) -> Any:
        """Integers add up in any order."""
        return one + other

    def keys(self, shard: Shard, positions: Positions, owner: str, known: Any) -> Keys:
        """Gumbel noise, and the similarity over τ."""
        keys = noise(shard, positions, owner)
        sums = shards.from_fixed(known)
        cluster = shard.clusters(positions)
        asked = np.flatnonzero((sums != 0).any(axis=1)[cluster])
        centers = unit_rows(sums)[cluster[asked]].astype(np.float64)
        similarity = np.einsum("ij,ij->i", shard.vectors(positions[asked]).astype(np.float64), centers)
        keys[asked] += similarity / self._temperature
        return keys
