"""Documents to compare adapters on, and adapters of a small base that change what it predicts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
from registry_helpers import lineage
from training_data import chat, id_of

from compass_ray import records
from compass_ray.models import BaseRef, weights_hash
from compass_ray.registry.store import Registry
from compass_ray.registry.version import AdapterVersion

KINDS: dict[str, dict[str, Any]] = {
    "small": {"r": 2, "target_modules": ["q_proj"]},
    "large": {"r": 7, "target_modules": ["q_proj", "v_proj", "down_proj"]},
    "dora": {"r": 3, "target_modules": ["v_proj", "o_proj"], "use_dora": True},
}
"""Adapters of different ranks on different layers, some of which they share."""


def probe(
    text: str, messages: list[dict[str, str]] | None = None, lang: str = "sw", measures: str = "new_usage"
) -> dict[str, Any]:
    return {
        "measures": measures,
        "target_lang": "sw",
        "lang": lang,
        "doc_id": id_of(text, messages),
        "content_id": id_of(text),
        "cluster": len(text) % 5,
        "block": None,
        "text": text,
        "messages": messages,
        "tools": None,
    }


def table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=records.PROBE)


def mixed_probes(count: int) -> list[dict[str, Any]]:
    """Texts and conversations of many lengths, short enough for 64 tokens of the tiny base."""
    words = ["mkulima", "anauliza", "swali", "kuhusu", "mahindi"]
    rows = []
    for number in range(count):
        text = " ".join([*words[: 1 + number % 5], str(number)])
        talk = chat(text, f"jibu {number}") if number % 3 == 0 else None
        rows.append(probe(text, talk, measures=records.PROBES[number % 2]))
    return rows


def write_adapter(folder: Path, base: Path, kind: str, seed: int) -> Path:
    """The two files of a random adapter."""
    import peft
    import torch
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    settings = peft.LoraConfig(init_lora_weights=False, lora_alpha=16, task_type="CAUSAL_LM", **KINDS[kind])
    model = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(str(base)), settings)
    model.save_pretrained(folder, save_embedding_layers=False)
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_bytes()), "init_lora_weights": True}))
    return folder


def register(registry: Registry, folder: Path, base: Path, number: int) -> AdapterVersion:
    files: dict[str, bytes | Path] = {
        name: folder / name for name in ("adapter_config.json", "adapter_model.safetensors")
    }
    return registry.add(replace(lineage(number, base=base_ref(base))), files)


def base_ref(base: Path) -> BaseRef:
    return BaseRef(base.name, None, weights_hash(base))


def alone(model: Any, tokens: Any, trained: Any) -> float:
    """The loss of one document by itself, as transformers computes it from labels."""
    import torch

    ids = torch.from_numpy(tokens).long()[None]
    labels = torch.where(torch.from_numpy(trained), ids[0], -100)[None]
    with torch.no_grad():
        mean = model(input_ids=ids, labels=labels).loss
    return float(mean) * int(trained[1:].sum())
