"""Content hashes: what makes two documents one. A change here gives every document another id.

All hashes are 128 bits of BLAKE2b. They are taken of keys (see :func:`compass_ray.ingest.cleaning.key_of`), so that a
reflowed copy is still a copy. Cost: three hashes a document, most of what ingest does after parsing.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Any

import numpy as np
import pyarrow as pa

from compass_ray import records

_encode = json.JSONEncoder(ensure_ascii=False).encode

_HASHED_ROLE = {"pool": "pool", "current": "current", "usage": "target"}
"""Roles as ids spell them. Another spelling would give all usage other ids."""


def content_ids(keys: Iterable[bytes]) -> list[bytes]:
    """Compute the ids of what is embedded, by its key.

    A pool prompt that equals a question of usage has its id, though one is a chat and the other plain text.
    """
    return [blake2b(key, digest_size=16).digest() for key in keys]


def text_hashes(keys: Iterable[bytes]) -> list[bytes]:
    """Compute the hashes of all content of plain texts, by their keys."""
    return [blake2b(b"text\0" + key, digest_size=16).digest() for key in keys]


def chat_hashes(chats: Iterable[Sequence[tuple[Any, ...]]], tools: Sequence[str | None] | None = None) -> list[bytes]:
    """Compute the hashes of all content of conversations.

    Parameters
    ----------
    chats : iterable of sequence of tuple
        Each message as its role and the key of what is said; then, if there is more, a dict of that, as plain JSON.
    tools : sequence of str or None, optional
        JSON of each conversation's tools. One without any has the hash that it has without this argument.
    """
    encoded = (_encode(chat) for chat in chats)
    if tools is not None:
        pairs = zip(encoded, tools, strict=True)
        encoded = (chat if given is None else f"{_encode(given)}\0{chat}" for chat, given in pairs)
    return [blake2b(b"messages\0" + chat.encode(), digest_size=16).digest() for chat in encoded]


def doc_ids(
    role: str, target_langs: Sequence[str | None], langs: Sequence[str], contents: Iterable[bytes]
) -> list[bytes]:
    """Compute ids of role, target language, language and content."""
    kinds = {
        kind: f"{_HASHED_ROLE[role]}\0{kind[0] or ''}\0{kind[1]}\0".encode()
        for kind in set(zip(target_langs, langs, strict=True))
    }
    return [
        blake2b(kinds[target_lang, lang] + content.hex().encode(), digest_size=16).digest()
        for target_lang, lang, content in zip(target_langs, langs, contents, strict=True)
    ]


def place_ids(source: str, uri: str, rows: Iterable[int | None]) -> list[bytes]:
    """Compute ids of where a row is. They are the ids of rows that have no content."""
    return [blake2b(f"{source}\0{uri}\0{row}".encode(), digest_size=16).digest() for row in rows]


def to_arrow(ids: list[bytes]) -> pa.Array:
    """Turn ids into a column."""
    return records.numpy_to_ids(np.frombuffer(b"".join(ids), dtype=np.uint8).reshape(-1, 16))
