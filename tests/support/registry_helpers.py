"""Small adapters without a model, and writers for processes of their own; imports neither pytest nor torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save

from compass_ray.errors import AliasMoved
from compass_ray.models import BaseRef
from compass_ray.registry.lineage import Lineage
from compass_ray.registry.store import Registry

BASE = BaseRef("acme/tiny", "c0ffee", "0123456789abcdef0123456789abcdef")
CREATED = "2026-01-02T03:04:05+00:00"


def version_name(number: int) -> str:
    return f"{number:04x}" * 4


def lineage(number: int = 1, lang: str = "sw", base: BaseRef = BASE, **changes: Any) -> Lineage:
    return Lineage(base, lang, version_name(number), **{"created": CREATED, "code_version": "0.1.0", **changes})


def adapter_files(number: int = 1, **config: Any) -> dict[str, bytes | Path]:
    """The two files of an adapter whose weights depend on the number."""
    module = "base_model.model.model.layers.0.self_attn.q_proj"
    tensors = {
        f"{module}.lora_A.weight": np.full((8, 4), number, np.float32),
        f"{module}.lora_B.weight": np.full((4, 8), number, np.float32),
    }
    body = {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": ["q_proj"], **config}
    return {"adapter_config.json": json.dumps(body).encode(), "adapter_model.safetensors": save(tensors)}


def add(registry: Registry, *numbers: int, **changes: Any) -> None:
    for number in numbers:
        registry.add(lineage(number, **changes), adapter_files(number))


def write_and_promote(url: str, number: int) -> tuple[list[int], int]:
    """Add a version, make it candidate, and promote it however often others come first.

    Returns
    -------
    tuple of list and int
        The generations that this writer's two moves made, and the races it lost.
    """
    registry = Registry(url)
    add(registry, number)
    candidate = registry.set_candidate(BASE.key, "sw", version_name(number))
    lost = 0
    while True:
        try:
            champion = registry.promote(f"{BASE.key}/sw@{version_name(number)}")
        except AliasMoved:
            lost += 1
        else:
            return [candidate.generation, champion.generation], lost
