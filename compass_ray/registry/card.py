"""The model card of an adapter version."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import yaml

from compass_ray.languages import language_name
from compass_ray.registry.lineage import Lineage

_ADAPTER = "LoRA weights alone, to be put on the untouched base model with `PeftModel.from_pretrained`."
_MERGED = "The base model with a LoRA adapter merged into its weights."


def model_card(lineage: Lineage, *, merged: bool = False) -> str:
    """``README.md`` of a version, or of the merged model, with the front matter that PEFT and the hub read.

    A function of the training alone: it holds no time and no place.
    """
    front = {
        "library_name": "transformers" if merged else "peft",
        "base_model": lineage.base.name,
        "language": lineage.lang,
        "pipeline_tag": "text-generation",
        "tags": ["merge" if merged else "lora", "compass-ray"],
    }
    base = lineage.base
    facts = [
        ("base model", base.name),
        ("base revision", base.revision or "not from a hub"),
        ("base weights", base.weights_hash),
        ("version", lineage.version),
        ("parent", lineage.parent or "none: a fresh adapter"),
        ("selection", lineage.selection or "none"),
        ("compass_ray", lineage.code_version),
    ]
    name = language_name(lineage.lang)
    parts = [
        f"---\n{yaml.safe_dump(front, allow_unicode=True, sort_keys=False)}---",
        f"# {base.name} for {name}" if merged else f"# {name} adapter for {base.name}",
        _MERGED if merged else _ADAPTER,
        _table(("", ""), facts),
    ]
    if lineage.documents:
        parts += ["## Documents", _table(("part", "documents"), list(_flat(lineage.documents)))]
    if lineage.scores:
        parts += ["## Scores", _table(("score", "value"), list(_flat(lineage.scores)))]
    return "\n\n".join(parts) + "\n"


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Leaves of nested dicts by dotted name."""
    for name, value in sorted(values.items()):
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, f"{value:.4g}" if isinstance(value, float) else str(value)


def _table(heading: tuple[str, str], rows: list[tuple[str, str]]) -> str:
    lines = [heading, ("---", "---"), *rows]
    return "\n".join(f"| {name} | {value.replace('|', chr(92) + '|')} |" for name, value in lines)
