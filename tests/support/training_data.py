"""Artifacts of ingest, of usage and of training data as tasks write them, without Ray."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa

from compass_ray import records
from compass_ray.adapt import data, split, usage
from compass_ray.adapt.config import AdaptConfig
from compass_ray.adapt.tokenizer import TokenizerSource
from compass_ray.artifacts import Artifact, artifact
from compass_ray.holdout import Holdout

HOLDOUT = Holdout(seed=7, fraction=0.5)
ASKED = [f"swali la mkulima namba {number} kuhusu mahindi" for number in range(12)]


def id_of(*parts: object) -> bytes:
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).digest()


def document(
    role: str, target_lang: str | None, text: str, messages: list[dict[str, str]] | None = None
) -> dict[str, Any]:
    lang = target_lang or "en"
    content = id_of(text, messages)
    return {
        "doc_id": id_of(role, target_lang, content),
        "content_id": id_of(text),
        "role": role,
        "target_lang": target_lang,
        "lang": lang,
        "text": text,
        "messages": messages,
        "reject": None,
    }


def chat(question: str, answer: str | None) -> list[dict[str, str]]:
    turns = [{"role": "user", "content": question}]
    return turns + ([{"role": "assistant", "content": answer}] if answer else [])


def made(folder: Path, stage: str, shards: dict[str, pa.Table]) -> Artifact:
    target = artifact(str(folder), stage, {"made": "by a test", "stage": stage})
    target.commit([target.write(key, table) for key, table in shards.items()])
    return target


def written(folder: Path, asked: list[str], *, repeated: bool = True, answered: bool = False) -> dict[str, Any]:
    """Ingested documents of two languages, and what is gathered of them beside their held-out usage.

    With ``repeated`` the current data of both languages hold all that was asked.
    """
    rows = [
        document("usage", "sw", text, chat(text, f"jibu la {text}") if answered and number % 2 else None)
        for number, text in enumerate(asked)
    ]
    rows += [document("usage", "ta", f"தமிழ் கேள்வி {number}") for number in range(6)]
    for lang in ("sw", "ta"):
        rows += [document("current", lang, f"shared text number {number}") for number in range(40)]
        rows += [document("current", lang, f"of {lang} alone, number {number}") for number in range(30)]
        rows += [document("current", lang, text) for text in (asked if repeated else ())]
    documents = made(folder, "ingest", {"00000": pa.Table.from_pylist(rows, schema=records.INGESTED)})
    held = artifact(str(folder), "usage", {"made": "by a test"})
    held.commit([usage._usage_shard("00000", documents, HOLDOUT, held)])
    gathered = artifact(str(folder), "gather", {"made": "by a test"})
    gathered.commit([data._gather_shard("00000", documents, None, True, held, None, frozenset(), gathered)])
    return {"documents": documents, "usage": held, "gathered": gathered}


def tokenized(
    gathered: Artifact, base: Path, *languages: str, usage: Artifact | None = None, **fields: Any
) -> Artifact:
    """The artifact that :func:`data.tokenize` makes, without Ray."""
    config = AdaptConfig(base=str(base), **{"max_length": 64, "heldout_fraction": 0.2, **fields})
    source = TokenizerSource(config, None)
    drawing = 0, config.heldout_fraction, config.heldout_documents
    held = data._union(split.heldout_contents(lang, gathered, *drawing) for lang in data.languages_of(gathered))
    target = artifact(gathered.url.rsplit("/cache/", 1)[0], "tokenize", {"languages": languages, **fields})
    target.commit(
        receipt
        for lang in languages
        for receipt in data._tokenize_language(lang, gathered, usage, held, source, 0, target)
    )
    return target
