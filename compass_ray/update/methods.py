"""Ways to update an adapter: what each begins from, and what keeps it from forgetting. A row each."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Method:
    """A way to go on from a champion.

    Attributes
    ----------
    from_base : bool
        Whether training begins with a new adapter, and goes over old and new documents alike.
    penalized : bool
        Whether weights that mattered to the champion are held (elastic weight consolidation).
    replays : bool
        Whether documents of the champion's history are trained on beside new ones.
    weighs_alike : bool
        Whether a replayed token counts as a new one; otherwise replay has a weight of its own.
    """

    from_base: bool = False
    penalized: bool = False
    replays: bool = False
    weighs_alike: bool = False


METHODS: dict[str, Method] = {
    "naive": Method(),
    "fresh": Method(from_base=True),
    "replay": Method(replays=True, weighs_alike=True),
    "ewc": Method(penalized=True),
    "ecda": Method(penalized=True, replays=True),
}
