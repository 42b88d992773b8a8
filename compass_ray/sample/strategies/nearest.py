"""``nearest``: the pool documents most similar to any single usage document."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from compass_ray import records, seeding
from compass_ray.sample.config import SampleConfig
from compass_ray.sample.neighbours import Method, best_similarity
from compass_ray.sample.scorer import Keys, Question, Scorer
from compass_ray.sample.shard import Positions, Shard
from compass_ray.sample.strategies.base import best_of_pool

MAX_USAGE = 10_000
"""Usage documents that are compared with: a keyed sample where there are more, so that tasks stay small."""

Usage = tuple[NDArray[np.uint8], NDArray[np.float32]]
"""Ids (m, 16) and unit vectors (m, d), by the order of the sample."""


class Nearest(Scorer):
    """Cosine with the nearest usage document. Cost: ``2·n·m·d`` FLOP over the pool."""

    def __init__(self, method: Method) -> None:
        self._method = method

    def missing(self, question: Question, known: Any) -> bool:
        """Tell whether the one pass, for the usage vectors, is still to be made."""
        return known is None

    def gather(self, shard: Shard, question: Question, known: Any) -> Any:
        """Read the shard's usage."""
        return usage_of(shard, question.target_lang)

    def merge(self, one: Any, other: Any) -> Any:
        """Keep at most MAX_USAGE of both."""
        return merge_usage(one, other)

    def keys(self, shard: Shard, positions: Positions, target_lang: str, known: Any) -> Keys:
        """Compute similarities; equal ones go to the lower id."""
        return best_similarity(shard.vectors(positions), known[1], self._method).astype(np.float64)


def usage_of(shard: Shard, target_lang: str) -> Usage:
    """Read a shard's usage documents of a target language."""
    positions = shard.usage(target_lang)
    return shard.ids(positions), shard.vectors(positions)


def merge_usage(one: Usage, other: Usage) -> Usage:
    """Keep the documents of lowest hash of both. The sample does not depend on the order of merging."""
    ids, vectors = np.concatenate([one[0], other[0]]), np.concatenate([one[1], other[1]])
    words = records.ids_to_words(ids)
    order = np.lexsort((words[:, 1], words[:, 0], seeding.uniform(ids, 0, "usage-sample")))[:MAX_USAGE]
    return ids[order], vectors[order]


def _scorer(config: SampleConfig) -> Scorer:
    return Nearest(config.neighbours)


STRATEGY = best_of_pool(_scorer)
