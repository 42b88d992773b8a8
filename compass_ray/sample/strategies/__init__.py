"""Strategies: how a target language's budget is spent. A module each, all with one interface (``base.py``).

Which there are stands in ``sample/traits.py``.
"""

from __future__ import annotations

from pkgutil import resolve_name

from compass_ray.sample.strategies.base import Strategy
from compass_ray.sample.traits import TRAITS


def strategy_of(name: str) -> Strategy:
    """Load a strategy by the name that ``sample.strategy`` has."""
    found: Strategy = resolve_name(f"{TRAITS[name].module}:STRATEGY")
    return found
