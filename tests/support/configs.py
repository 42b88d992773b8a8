"""A small config that is valid, and the models that a config is made of."""

from __future__ import annotations

import copy
from typing import Any, get_args

from compass_ray.configbase import Config

GOOD: dict[str, Any] = {
    "output": "out",
    "sources": {
        "web": {"role": "pool", "path": "pool/*.jsonl", "columns": {"text": "text", "lang": "lang"}},
        "asked": {"role": "usage", "path": "usage.csv", "lang": "swh_Latn"},
    },
    "sample": {"budget": 100},
}


def good(**sections: Any) -> dict[str, Any]:
    return {**copy.deepcopy(GOOD), **sections}


def models(model: type[Config], seen: set[type[Config]] | None = None) -> set[type[Config]]:
    """A config model and all that its fields hold."""
    found = set() if seen is None else seen

    def follow(kind: Any) -> None:
        if isinstance(kind, type) and issubclass(kind, Config) and kind not in found:
            models(kind, found)
        for argument in get_args(kind):
            follow(argument)

    found.add(model)
    for info in model.model_fields.values():
        follow(info.annotation)
    return found
