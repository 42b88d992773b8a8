r"""Rows -> documents: pure functions from a reader's batch to the INGESTED schema.

Text is put into NFC, line ends into ``\\n``, and outer white space is stripped; indentation and
inner line breaks stay, because code and poetry need them. The content hash ignores how much
white space there is, so that a reflowed copy is still a copy.
"""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from compass_ray import records, shards
from compass_ray.ingest.config import SourceConfig, View
from compass_ray.ingest.readers import MISSING, Fault, RawBatch
from compass_ray.languages import canonical_language

RAW_BYTES = 2000
"""How much of a rejected row the quarantine keeps."""

FILTERS = frozenset({"duplicate", "filtered", "empty", "language_unknown"})
"""Reasons that are decisions about sound rows; all others are structural faults."""

_CHAT_ROLES = frozenset({"system", "user", "assistant", "tool"})

Message = dict[str, str]


class _Rejected(Exception):
    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason, self.message = reason, message


def to_documents(batch: RawBatch, name: str, source: SourceConfig, uri: str, view: View, n_shards: int) -> pa.Table:
    """Documents and rejects of one batch.

    Parameters
    ----------
    batch : RawBatch
        Parsed rows.
    name, source
        The source they come from.
    uri : str
        The file, relative to the source's root.
    view : {"prompt", "completion", "full"}
        Which part of a conversation becomes ``text``, the part that is embedded.
    n_shards : int

    Returns
    -------
    Table of schema INGESTED plus ``shard`` (int32)
        One row for every row and fault of the batch.
    """
    out = []
    path_lang = _language_from_path(source, uri)
    for index, row in enumerate(batch.rows):
        values = {column: items[index] for column, items in batch.columns.items()}
        try:
            out.append(_document(values, name, source, uri, row, path_lang, view))
        except _Rejected as rejected:
            raw = b"" if rejected.reason == "filtered" else _show(values)
            out.append(_reject(Fault(row, rejected.reason, rejected.message, raw), name, source.role, uri))
    out += [_reject(fault, name, source.role, uri) for fault in batch.faults]
    table = pa.Table.from_pylist(out, schema=records.INGESTED)
    shard = shards.shard_of(records.ids_to_numpy(table["content_id"]), n_shards)
    return table.append_column("shard", pa.array(shard))


def normalise(text: str) -> str:
    r"""NFC, ``\\n`` line ends, no outer white space."""
    return unicodedata.normalize("NFC", text).replace("\r\n", "\n").replace("\r", "\n").strip()


def content_id(text: str) -> bytes:
    """128-bit hash of what is embedded, blind to the amount of white space.

    A pool prompt that equals a question of the target has its id, though one is a chat and the other plain text.
    """
    return _hash(" ".join(text.split()))


def content_hash(text: str, messages: list[Message] | None) -> bytes:
    """128-bit hash of all content, blind to the amount of white space; equal content has equal ids too."""
    if messages is None:
        key = "text\0" + " ".join(text.split())
    else:
        turns = [[message["role"], " ".join(message["content"].split())] for message in messages]
        key = "messages\0" + json.dumps(turns, ensure_ascii=False)
    return _hash(key)


def doc_id(role: str, owner: str | None, lang: str, content: bytes) -> bytes:
    """128-bit hash of role, owner, language and content."""
    return _hash(f"{role}\0{owner or ''}\0{lang}\0{content.hex()}")


def view_of(messages: list[Message], view: View) -> str:
    """The part of a conversation that is embedded: up to the last answer, that answer, or all."""
    answers = [index for index, message in enumerate(messages) if message["role"] == "assistant"]
    last = answers[-1] if answers else len(messages)
    part = {"prompt": messages[:last], "completion": messages[last : last + 1], "full": messages}[view]
    return "\n".join(message["content"] for message in part)


def _hash(key: str) -> bytes:
    return hashlib.blake2b(key.encode(), digest_size=16).digest()


def _language_from_path(source: SourceConfig, uri: str) -> str | None:
    if source.lang_pattern is None:
        return None
    match = re.search(source.lang_pattern, uri)
    return match["lang"] if match else ""


def _document(
    values: Mapping[str, Any], name: str, source: SourceConfig, uri: str, row: int, path_lang: str | None, view: View
) -> dict[str, Any]:
    for column, allowed in source.where.items():
        if str(_field(values, column)) not in allowed:
            raise _Rejected("filtered", f"{column} is not one of {', '.join(allowed)}")
    text, messages = _content(values, source, view)
    lang, source_lang = _language(values, source, path_lang)
    owner = None if source.role == "pool" else source.owner or lang
    return {
        "doc_id": doc_id(source.role, owner, lang, content_hash(text, messages)),
        "content_id": content_id(text),
        "role": source.role,
        "owner": owner,
        "lang": lang,
        "source_lang": source_lang,
        "source": name,
        "uri": uri,
        "row": row,
        "text": text,
        "messages": messages,
    }


def _content(values: Mapping[str, Any], source: SourceConfig, view: View) -> tuple[str, list[Message] | None]:
    columns = source.columns
    if columns.text:
        text = _text(values, columns.text)
        if not text:
            raise _Rejected("empty", f"{columns.text} is empty")
        return text, None
    if columns.messages:
        messages = _messages(_field(values, columns.messages), columns.messages)
    else:
        messages = [{"role": "user", "content": _text(values, str(columns.prompt))}]
        if columns.completion:
            messages.append({"role": "assistant", "content": _text(values, columns.completion)})
    if not all(message["content"] for message in messages) or not (text := view_of(messages, view)):
        raise _Rejected("empty", f"a turn is empty, or embed.view '{view}' leaves nothing to embed")
    return text, messages


def _messages(value: Any, column: str) -> list[Message]:
    if not isinstance(value, list) or not value:
        raise _Rejected("wrong_type", f"{column}: expected a list of messages, found {type(value).__name__}")
    messages = []
    for message in value:
        role = message.get("role") if isinstance(message, dict) else None
        if not isinstance(role, str) or role not in _CHAT_ROLES:
            raise _Rejected("wrong_type", f"{column}: each message needs a role of {', '.join(sorted(_CHAT_ROLES))}")
        messages.append({"role": role, "content": _text(message, "content")})
    return messages


def _field(values: Mapping[str, Any], column: str) -> Any:
    value = values.get(column, MISSING)
    if value is MISSING:
        raise _Rejected("missing_column", f"the row has no {column}")
    return value


def _text(values: Mapping[str, Any], column: str) -> str:
    value = _field(values, column)
    if value is None:
        raise _Rejected("empty", f"{column} is null")
    if not isinstance(value, str):
        raise _Rejected("wrong_type", f"{column}: expected text, found {type(value).__name__}")
    return normalise(value)


def _language(values: Mapping[str, Any], source: SourceConfig, path_lang: str | None) -> tuple[str, str]:
    if source.lang:
        return source.lang, source.lang
    code = _text(values, source.columns.lang) if source.columns.lang else path_lang or ""
    lang = canonical_language(code)
    if lang is None:
        found = f"'{code}'" if code else f"none by {source.lang_pattern or source.columns.lang}"
        raise _Rejected("language_unknown", f"expected a BCP-47, ISO 639 or FLORES code, found {found}")
    return lang, code


def _reject(fault: Fault, name: str, role: str, uri: str) -> dict[str, Any]:
    place = _hash(f"{name}\0{uri}\0{fault.row}")
    return {
        "doc_id": place,
        "content_id": place,
        "role": role,
        "source": name,
        "uri": uri,
        "row": fault.row,
        "reject": {"reason": fault.reason, "message": fault.message, "raw": fault.raw[:RAW_BYTES]},
    }


def _show(values: Mapping[str, Any]) -> bytes:
    present = {name: value for name, value in values.items() if value is not MISSING}
    return json.dumps(present, ensure_ascii=False, default=str)[:RAW_BYTES].encode("utf-8", "replace")
