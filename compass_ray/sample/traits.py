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
        Below ``compass_ray.sample.strategies``; it holds a ``STRATEGY``.
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


TRAITS: dict[str, Traits] = {
    "kl": Traits("kl", "cluster"),
    "deficit": Traits("deficit", "cluster"),
    "importance": Traits("importance", "pool", score="log odds of its cluster plus chance of {:.3f}"),
    "nearest": Traits("nearest", "pool", score="cosine {:.3f} to its nearest usage document"),
    "round_robin": Traits("round_robin", "pool", score="key {:.0f}, minus the turn in which a usage document took it"),
    "random": Traits("baselines.random", "pool"),
    "all": Traits("baselines.everything", "pool", takes_budget=False),
    "temperature": Traits("baselines.temperature", "language"),
    "unimax": Traits("baselines.unimax", "language"),
    "langsim": Traits("baselines.langsim", "language", needs=("language_features",)),
    "dsir": Traits("baselines.dsir", "pool", score="log odds of its n-grams plus chance of {:.3f}"),
}

WITH_CLUSTER_QUOTAS = tuple(name for name, traits in TRAITS.items() if traits.decides == "cluster")


def known_strategy(name: str) -> str:
    """Return the name of a strategy that there is.

    Raises
    ------
    ValueError
        If there is none of that name.
    """
    if name not in TRAITS:
        *some, last = (f"'{one}'" for one in TRAITS)
        raise ValueError(f"expected {', '.join(some)} or {last}")
    return name
