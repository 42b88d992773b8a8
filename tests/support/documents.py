"""Rows as ingest makes documents of them, without a file."""

from __future__ import annotations

from typing import Any

from compass_ray import records
from compass_ray.ingest.config import SourceConfig
from compass_ray.ingest.documents import to_documents
from compass_ray.ingest.readers import MISSING, Fault, RawBatch

PINNED = [
    (
        {"text": "Habari ya  asubuhi"},
        {"lang": "sw"},
        "5237f10bbc65d4e6c9fc5080425b3c62",
        "320fc793b8f313c4a863591309bc140d",
    ),
    (
        {"text": " café\r\nnoir\u3000x "},
        {"lang": "fr", "role": "usage"},
        "6c48eefe5cdfcae3eadf56d9aaa4a3f9",
        "7dbbf9fd132f89d6d4767ebcedf9dd26",
    ),
    (
        {"text": "नमस्ते दुनिया क़"},
        {"lang": "hin_Deva", "role": "current", "target_lang": "de"},
        "cb6a58153344e79cc903c83f7baa3285",
        "72d4e5382c463dcb925ef1b850b595bc",
    ),
    (
        {"p": "How  deep?", "c": 'Very "deep"\n\u2028é.'},
        {"columns": {"prompt": "p", "completion": "c"}, "lang": "en"},
        "206a73f9e2f77278dfa34b031004d036",
        "2cb17d8beb0fad2e3f2de6e5c4139e62",
    ),
    (
        {
            "m": [
                {"role": "system", "content": "S"},
                {"role": "user", "content": "가 b\t c"},
                {"role": "assistant", "content": "A\\"},
            ]
        },
        {"columns": {"messages": "m"}, "lang": "zh-TW", "role": "usage"},
        "e99ec28f6f45d5a7cf7adad31d702c02",
        "1a00c4f72e589b1d67985e042cec3b26",
    ),
]
"""Rows with the document id and content id that they have had since the first artifact was written."""


def documents(
    rows: list[dict[str, Any]],
    *,
    view: Any = "prompt",
    uri: str = "f.jsonl",
    faults: tuple[Fault, ...] = (),
    n_shards: int = 4,
    **source: Any,
) -> list[dict[str, Any]]:
    """The rows as documents of a pool in English, unless told otherwise."""
    given_lang = any(name in source for name in ("lang", "lang_pattern")) or "lang" in source.get("columns", {})
    config = SourceConfig(**{"role": "pool", "path": "x", **({} if given_lang else {"lang": "en"}), **source})
    columns = {name: [row.get(name, MISSING) for row in rows] for name in config.wanted_columns}
    batch = RawBatch(rows=[10 * index for index in range(len(rows))], columns=columns, faults=list(faults))
    table = to_documents(batch, "src", config, uri, view, n_shards)
    assert table.schema.names == [*records.INGESTED.names, "shard"]
    found: list[dict[str, Any]] = sorted(table.to_pylist(), key=lambda row: (row["row"] is None, row["row"]))
    assert len(found) == len(rows) + len(faults)
    return found


def only(rows: list[dict[str, Any]], **given: Any) -> dict[str, Any]:
    [document] = documents(rows, **given)
    return document


def said(document: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The messages of a document, each with the fields that it has."""
    messages: list[dict[str, Any]] | None = document["messages"]
    if messages is None:
        return None
    return [{name: value for name, value in message.items() if value is not None} for message in messages]
