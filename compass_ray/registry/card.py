"""The model card of an adapter version."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from compass_ray.languages import language_name
from compass_ray.registry.lineage import Lineage
from compass_ray.registry.scores import HEADINGS, HELDOUT, score_lines

_ADAPTER = "LoRA weights alone, to be put on the untouched base model with `PeftModel.from_pretrained`."
_MERGED = "The base model with a LoRA adapter merged into its weights."
_MEASURED = (
    "Base → adapter. Held-out usage is what is asked in this language; nothing trains on it. The trained mixture holds "
    "all languages that were trained on, other languages are the mixtures of other adapters; their documents were held "
    "out of all trainings."
)


def model_card(lineage: Lineage, *, merged: bool = False) -> str:
    """Write ``README.md`` of a version, or of the merged model. It has the front matter that PEFT and the hub read.

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
        ("chat template", lineage.config.get("chat_template") or "none: trained on plain text"),
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
    parts += _scores(lineage)
    return "\n\n".join(parts) + "\n"


def _scores(lineage: Lineage) -> Iterator[str]:
    if not lineage.scores:
        return
    yield "## Scores"
    rest = dict(lineage.scores)
    if isinstance(rest.get(HELDOUT), list):
        yield _table(HEADINGS, [line.cells() for line in score_lines(rest.pop(HELDOUT))])
        yield _MEASURED
    if rest:
        yield _table(("score", "value"), list(_flat(rest)))


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the leaves of nested dicts by dotted name."""
    for name, value in sorted(values.items()):
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, f"{value:.4g}" if isinstance(value, float) else str(value)


def _table(heading: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [heading, ["---"] * len(heading), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines)
