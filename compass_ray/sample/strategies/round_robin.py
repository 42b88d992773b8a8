"""``round_robin``: each usage document in turn takes its nearest pool document that nobody has taken.

Over ``embed.model: base`` this is RDS+ (Ivison et al., 2025, arXiv 2503.01807): every question is served alike, however
crowded the pool is around it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compass_ray.sample.config import SampleConfig
from compass_ray.sample.neighbours import Method, Neighbours, merge_nearest, nearest_rows, round_robin
from compass_ray.sample.scorer import Keys, Question, Scorer
from compass_ray.sample.shard import Positions, Shard
from compass_ray.sample.strategies.base import best_of_pool
from compass_ray.sample.strategies.nearest import Usage, merge_usage, usage_of


@dataclass(frozen=True)
class Turns:
    """What is known of one target language."""

    usage: Usage
    per_usage: int = 0  # how many neighbours of each usage document have been gathered
    order: NDArray[np.uint8] | None = None  # ids (n, 16) in the order in which they were taken
    exhausted: bool = False  # the lists hold all the pool


class RoundRobin(Scorer):
    """Keys are turns. The first pass gathers usage, later ones as many neighbours as the turns need."""

    def __init__(self, method: Method) -> None:
        self._method = method

    def missing(self, question: Question, known: Any) -> bool:
        """Tell whether another pass may bring turns that are missing.
        Every candidate that is asked for is to have its turn.
        """
        return known is None or not (
            known.exhausted or (known.order is not None and len(known.order) >= question.depth)
        )

    def gather(self, shard: Shard, question: Question, known: Any) -> Any:
        """Gather usage first, then each usage document's nearest in this shard."""
        if known is None:
            return usage_of(shard, question.target_lang)
        positions = shard.pool(question.target_lang)
        k = _wanted(question, known)
        rows = shard.vectors(positions)
        return nearest_rows(known.usage[1], rows, shard.ids(positions), k, self._method), k

    def merge(self, one: Any, other: Any) -> Any:
        """Merge two parts of one pass, which are alike."""
        if isinstance(one[0], Neighbours):
            return merge_nearest([one[0], other[0]], one[1]), one[1]
        return merge_usage(one, other)

    def conclude(self, question: Question, known: Any, part: Any) -> Any:
        """Take turns over what has been gathered."""
        if known is None:
            return Turns(part)
        neighbours, k = part
        order = round_robin(neighbours, question.depth)
        return replace(known, per_usage=k, order=order, exhausted=k >= question.problem.cluster_capacity.sum())

    def keys(self, shard: Shard, positions: Positions, target_lang: str, known: Any) -> Keys:
        """Compute minus the turn, from 0; -inf for documents that nobody took."""
        turns = {document.tobytes(): turn for turn, document in enumerate(known.order)}
        return np.array([-turns.get(document.tobytes(), np.inf) for document in shard.ids(positions)], dtype=np.float64)


def _wanted(question: Question, known: Turns) -> int:
    """Compute how many neighbours to gather for each usage document.
    First that is twice an even share of the turns, then twice what did not suffice.
    """
    share = -(-question.depth // max(1, len(known.usage[0])))
    return min(int(question.problem.cluster_capacity.sum()), max(2 * known.per_usage, 2 * share, 16))


def _scorer(config: SampleConfig) -> Scorer:
    return RoundRobin(config.neighbours)


STRATEGY = best_of_pool(_scorer)
