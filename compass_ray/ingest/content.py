"""The content of rows, in columns: plain text, prompt and completion, or chat messages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from compass_ray import records
from compass_ray.ingest import hashes
from compass_ray.ingest.cleaning import clean
from compass_ray.ingest.config import Columns, View
from compass_ray.ingest.readers.batch import MISSING, Column, RawBatch, is_text
from compass_ray.ingest.templates import is_template, parts

_ROLES = {role: role for role in ("system", "user", "assistant", "tool")} | {
    "developer": "system",
    "human": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "function": "tool",
    "observation": "tool",
}
"""Roles as OpenAI, ShareGPT and their kin call them."""

_ROLE_NAMES = "assistant, system, tool, user"


class Verdicts(dict[int, tuple[str, str]]):
    """Reason and message for each row that is refused; what was found first stays."""

    def refuse(self, row: int, reason: str, message: str) -> None:
        self.setdefault(row, (reason, message))


@dataclass(frozen=True)
class Content:
    """Cleaned content of every row of a batch; of a refused row it means nothing."""

    texts: pa.StringArray  # what is embedded
    keys: list[bytes]  # of the texts
    characters: NDArray[np.int64]  # of all content, those that a reader sees
    messages: pa.Array | None = None
    chats: list[list[tuple[str, str]]] | None = None  # roles and keys of the messages

    def take(self, kept: NDArray[np.intp]) -> Content:
        """The content of some rows."""
        if len(kept) == len(self.texts):
            return self
        rows = kept.tolist()
        return Content(
            self.texts.take(pa.array(kept)),
            [self.keys[row] for row in rows],
            self.characters[kept],
            None if self.messages is None else self.messages.take(pa.array(kept)),
            None if self.chats is None else [self.chats[row] for row in rows],
        )

    def whole(self) -> list[str]:
        """All content of each row, whatever is embedded of it, as words with a space between."""
        if self.chats is None:
            return [key.decode() for key in self.keys]
        return [" ".join(key for _, key in chat) for chat in self.chats]

    def hashes(self) -> list[bytes]:
        """The hash of all content of each row."""
        return hashes.text_hashes(self.keys) if self.chats is None else hashes.chat_hashes(self.chats)


def content_of(batch: RawBatch, columns: Columns, view: View, verdicts: Verdicts) -> Content:
    """Read, clean and judge the content of a batch."""
    if columns.text:
        texts, keys, characters = clean(_strings(batch, columns.text, verdicts))
        for row in np.flatnonzero(characters == 0).tolist():
            verdicts.refuse(row, "empty", f"{columns.text} is empty")
        return Content(texts, keys, characters)
    if columns.messages:
        starts, roles, said = _chats(batch.values(columns.messages), columns.messages, verdicts)
    else:
        sides = {"user": str(columns.prompt)} | ({"assistant": columns.completion} if columns.completion else {})
        read = [_strings(batch, spec, verdicts) for spec in sides.values()]
        starts = np.arange(len(batch.rows) + 1) * len(read)
        roles = np.tile(np.array(list(sides)), len(batch.rows))
        order = np.arange(len(roles)).reshape(len(read), -1).T.ravel()
        said = pa.concat_arrays(read).take(pa.array(order))
    return _conversations(starts, roles, said, view, verdicts)


def view_of(starts: NDArray[np.int64], roles: NDArray[np.str_], view: View) -> NDArray[np.bool_]:
    """Which turns are embedded: those up to the last answer of their conversation, that answer, or all.

    Parameters
    ----------
    starts : ndarray of shape (n + 1,)
        Where each conversation begins among all turns, and the end of the last.
    roles : ndarray of shape (n_turns,)
    """
    position = np.arange(len(roles))
    if view == "full":
        return np.ones(len(roles), dtype=bool)
    counts = np.diff(starts)
    last = starts[1:].copy()  # a conversation without an answer is all prompt
    filled = counts > 0
    answers = np.where(roles == "assistant", position, -1)
    if filled.any():
        found = np.maximum.reduceat(answers, starts[:-1][filled])
        last[filled] = np.where(found >= 0, found, last[filled])
    turn_last = np.repeat(last, counts)
    return position < turn_last if view == "prompt" else position == turn_last


def _conversations(
    starts: NDArray[np.int64], roles: NDArray[np.str_], said: pa.StringArray, view: View, verdicts: Verdicts
) -> Content:
    said, keys, lengths = clean(said)
    embedded = view_of(starts, roles, view)
    empty_turn = _sums(lengths == 0, starts) > 0
    for row in np.flatnonzero(empty_turn | (_sums(embedded, starts) == 0)).tolist():
        verdicts.refuse(row, "empty", f"a turn is empty, or embed.view '{view}' leaves nothing to embed")
    view_starts = np.concatenate([[0], np.cumsum(_sums(embedded, starts))])
    texts = pc.binary_join(_lists(view_starts, said.filter(pa.array(embedded))), "\n")
    kept = [key for key, is_embedded in zip(keys, embedded.tolist(), strict=True) if is_embedded]
    turns = pa.StructArray.from_arrays([pa.array(roles, pa.string()), said], fields=records.MESSAGES.value_type.fields)
    pairs = list(zip(roles.tolist(), (key.decode() for key in keys), strict=True))
    return Content(
        texts,
        [b" ".join(kept[first:end]) for first, end in pairwise(view_starts.tolist())],
        _sums(lengths, starts),
        _lists(starts, turns).cast(records.MESSAGES),
        [pairs[first:end] for first, end in pairwise(starts.tolist())],
    )


def _sums(values: NDArray[Any], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sums over the turns of each conversation."""
    total = np.concatenate([[0], np.cumsum(values, dtype=np.int64)])
    return np.asarray(total[starts[1:]] - total[starts[:-1]])


def _lists(starts: NDArray[np.int64], values: pa.Array) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(starts, pa.int32()), values)


def _chats(
    values: list[Any], column: str, verdicts: Verdicts
) -> tuple[NDArray[np.int64], NDArray[np.str_], pa.StringArray]:
    """The turns of all rows one after another; a refused row has none."""
    starts, roles, said = [0], [], []
    for row, value in enumerate(values):
        try:
            for role, text in [*_turns(value, column)]:
                roles.append(role)
                said.append(text)
        except _Refused as refused:
            verdicts.refuse(row, refused.reason, refused.message)
        starts.append(len(roles))
    return np.array(starts), np.array(roles, dtype=np.str_), pa.array(said, pa.string())


class _Refused(Exception):
    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason, self.message = reason, message


def _turns(value: Any, column: str) -> Iterator[tuple[str, str]]:
    if value is MISSING:
        raise _Refused("missing_column", f"the row has no {column}")
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]  # a list of conversations that holds one
    if not isinstance(value, list) or not value:
        raise _Refused("wrong_type", f"{column}: expected a list of messages, found {type(value).__name__}")
    for message in value:
        given = message if isinstance(message, dict) else {}
        found = given.get("role") or given.get("from")
        role = _ROLES.get(found.lower()) if isinstance(found, str) else None
        if role is None:
            raise _Refused("wrong_type", f"{column}: each message needs a role of {_ROLE_NAMES}")
        yield role, _said(next((given[name] for name in ("content", "value", "text") if name in given), MISSING))


def _said(content: Any) -> str:
    if isinstance(content, list) and content and all(_is_text_part(part) for part in content):
        content = "\n".join(part["text"] for part in content)
    if content is MISSING:
        raise _Refused("missing_column", "the row has no content")
    if content is None:
        raise _Refused("empty", "content is null")
    if not isinstance(content, str):
        raise _Refused("wrong_type", f"content: expected text, found {type(content).__name__}")
    return content


def _is_text_part(part: Any) -> bool:
    return isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str)


def _strings(batch: RawBatch, spec: str, verdicts: Verdicts) -> pa.StringArray:
    """A column or a template as text; empty where the row is refused."""
    if not is_template(spec):
        return strings(batch.columns[spec], spec, verdicts).fill_null("")
    joined: list[Any] = []
    for literal, field in parts(spec):
        joined.append(pa.scalar(literal))
        if field is not None:
            column = batch.columns[field]
            values = column if is_text(column) else _written(batch.values(field))
            joined.append(strings(values, field, verdicts, null=""))
    return pc.binary_join_element_wise(*joined, "")


def _written(values: Sequence[Any]) -> list[Any]:
    """Numbers and truth values as JSON writes them."""
    return [
        str(value).lower() if isinstance(value, bool) else str(value) if isinstance(value, int | float) else value
        for value in values
    ]


def strings(column: Column, name: str, verdicts: Verdicts, null: str | None = None) -> pa.StringArray:
    """A column as text, null where the row has none; rows with something else are refused.

    Parameters
    ----------
    null : str, optional
        What a null stands for; a row with one is refused if not given.
    """
    texts: pa.StringArray
    if is_text(column):
        texts = column
    elif isinstance(column, pa.Array):
        for row in pc.indices_nonzero(column.is_valid()).to_pylist():
            verdicts.refuse(row, "wrong_type", f"{name}: expected text, found {column.type}")
        texts = pa.nulls(len(column), pa.string())
    else:
        texts = _from_values(column, name, verdicts)
    if null is not None:
        return texts.fill_null(null)
    for row in pc.indices_nonzero(texts.is_null()).to_pylist() if texts.null_count else ():
        verdicts.refuse(row, "empty", f"{name} is null")
    return texts


def _from_values(values: list[Any], name: str, verdicts: Verdicts) -> pa.StringArray:
    if set(map(type, values)) <= {str, type(None)}:
        return pa.array(values, pa.string())
    for row, value in enumerate(values):
        if value is MISSING:
            verdicts.refuse(row, "missing_column", f"the row has no {name}")
        elif value is not None and not isinstance(value, str):
            verdicts.refuse(row, "wrong_type", f"{name}: expected text, found {type(value).__name__}")
    return pa.array([value if isinstance(value, str) else None for value in values], pa.string())
