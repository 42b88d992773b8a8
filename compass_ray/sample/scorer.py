"""By what the documents of one cell compete: the interface of scorers, and the one that treats all alike.

A scorer may first gather evidence from all shards, in as many passes as it asks for. It holds no state itself:
evidence is kept by the sampler, by target language, and travels to the tasks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compass_ray import seeding
from compass_ray.sample.gaps import Shares
from compass_ray.sample.problem import Problem
from compass_ray.sample.shard import Positions, Shard

Keys = NDArray[np.float64]


@dataclass(frozen=True)
class Question:
    """What is asked of the shards: whose selection, and how many candidates it may need at most."""

    problem: Problem
    shares: Shares
    depth: int

    @property
    def target_lang(self) -> str:
        """Whose selection."""
        return self.problem.target_lang


class Scorer:
    """Keys of documents; the highest of a cell are drawn. This one gives every document the same chance."""

    def start(self, question: Question) -> Any:
        """Return what is known before any pass."""
        return None

    def missing(self, question: Question, known: Any) -> bool:
        """Tell whether another pass over the shards has to be made."""
        return False

    def gather(self, shard: Shard, question: Question, known: Any) -> Any:
        """Gather one shard's part of a pass."""
        raise NotImplementedError

    def merge(self, one: Any, other: Any) -> Any:
        """Merge two parts into one. The result is the same in any order and grouping."""
        raise NotImplementedError

    def conclude(self, question: Question, known: Any, part: Any) -> Any:
        """Conclude what is known after a pass whose merged part is ``part``."""
        return part

    def keys(self, shard: Shard, positions: Positions, target_lang: str, known: Any) -> Keys:
        """Compute one key a row, shape (n,). A row of key -inf is never drawn."""
        return noise(shard, positions, target_lang)

    def nearness(self, shard: Shard, positions: Positions, known: Any) -> Keys:
        """Compute how near each row is to usage, without noise, shape (n,). Only scorers that rank by it do."""
        raise NotImplementedError


def noise(shard: Shard, positions: Positions, target_lang: str) -> Keys:
    """Draw Gumbel noise for each document.
    Added to log weights, the highest are a weighted sample without replacement.
    """
    return seeding.gumbel(shard.ids(positions), shard.seed, "draw", target_lang)
