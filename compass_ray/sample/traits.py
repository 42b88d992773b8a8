"""What can be said of a strategy without loading it: what ``sample.strategy`` may name, a row each.

A further strategy is a row here and the module that the row names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Traits:
    """What a strategy decides and needs.

    Attributes
    ----------
    module : str
        It holds a ``STRATEGY``.
    decides : {"cluster", "language", "pool"}
        What gets quotas: clusters and the languages in them, languages, or the pool as one. Language rules, transport
        between clusters and draws towards usage are for quotas by cluster.
    takes_budget : bool
        Whether it draws no more than a budget; otherwise all there is, copies included.
    needs : sequence of str
        Fields of ``sample`` that must be given.
    score : str
        What a document's key is, in words with a place for the number, where it is not kept for every document.
    """

    module: str
    decides: Literal["cluster", "language", "pool"]
    takes_budget: bool = True
    needs: tuple[str, ...] = ()
    score: str = ""


_HERE = "compass_ray.sample.strategies"

TRAITS: dict[str, Traits] = {
    "kl": Traits(f"{_HERE}.kl", "cluster"),
    "deficit": Traits(f"{_HERE}.deficit", "cluster"),
    "importance": Traits(f"{_HERE}.importance", "pool", score="log odds of its cluster plus chance of {:.3f}"),
    "nearest": Traits(f"{_HERE}.nearest", "pool", score="cosine {:.3f} to its nearest usage document"),
    "round_robin": Traits(
        f"{_HERE}.round_robin", "pool", score="key {:.0f}, minus the turn in which a usage document took it"
    ),
    "random": Traits(f"{_HERE}.baselines.random", "pool"),
    "all": Traits(f"{_HERE}.baselines.everything", "pool", takes_budget=False),
    "temperature": Traits(f"{_HERE}.baselines.temperature", "language"),
    "unimax": Traits(f"{_HERE}.baselines.unimax", "language"),
    "langsim": Traits(f"{_HERE}.baselines.langsim", "language", needs=("language_features",)),
    "dsir": Traits(f"{_HERE}.baselines.dsir", "pool", score="log odds of its n-grams plus chance of {:.3f}"),
}

WITH_CLUSTER_QUOTAS = tuple(name for name, traits in TRAITS.items() if traits.decides == "cluster")
