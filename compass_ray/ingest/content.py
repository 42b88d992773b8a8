"""The content of rows, in columns: plain text, prompt and completion, or chat messages."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import pairwise, repeat
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from compass_ray import records
from compass_ray.ingest import hashes
from compass_ray.ingest.chats import Turn, shown_text, turns_of, whole_text
from compass_ray.ingest.cleaning import clean, key_of, normalize
from compass_ray.ingest.config import Columns, View
from compass_ray.ingest.filling import fill
from compass_ray.ingest.readers.batch import MISSING, Column, RawBatch, Refused, as_value, as_values, is_text
from compass_ray.ingest.templates import is_template, parts
from compass_ray.ingest.tools import tools_of
from compass_ray.values import kind_of, written

_UNREAD_NAMED = 20
"""How many of the unread fields of a row are told."""


class RowRejects(dict[int, tuple[str, str]]):
    """Reason and message for each row that is refused; what was found first stays."""

    def refuse(self, row: int, reason: str, message: str) -> None:
        self.setdefault(row, (reason, message))


Message: TypeAlias = tuple[str, str] | tuple[str, str, dict[str, Any]]
"""Role, key of the content, and what is beside them if anything is."""


@dataclass(frozen=True)
class Content:
    """Cleaned content of every row of a batch; of a refused row it means nothing."""

    texts: pa.StringArray  # what is embedded
    keys: list[bytes]  # of the texts
    characters: NDArray[np.int64]  # of all content, those that a reader sees
    messages: pa.Array | None = None
    chats: list[list[Message]] | None = None
    tools: list[str | None] | None = None  # JSON; None where no row has any
    notes: list[list[str] | None] | None = None  # what was left out of a row, or is not there

    def take(self, kept: NDArray[np.intp]) -> Content:
        """Take the content of some rows."""
        if len(kept) == len(self.texts):
            return self
        rows = kept.tolist()
        return Content(
            self.texts.take(pa.array(kept)),
            [self.keys[row] for row in rows],
            self.characters[kept],
            None if self.messages is None else self.messages.take(pa.array(kept)),
            None if self.chats is None else [self.chats[row] for row in rows],
            None if self.tools is None else [self.tools[row] for row in rows],
            None if self.notes is None else [self.notes[row] for row in rows],
        )

    def whole(self) -> list[str]:
        """Join all content of each row, whatever is embedded of it. Words have a space between."""
        if self.chats is None:
            return [key.decode() for key in self.keys]
        return [
            " ".join(turn[1] if len(turn) == 2 else key_of(whole_text(turn[1], turn[2])) for turn in chat)
            for chat in self.chats
        ]

    def hashes(self) -> list[bytes]:
        """Hash all content of each row."""
        if self.chats is None:
            return hashes.text_hashes(self.keys)
        return hashes.chat_hashes(self.chats, self.tools)


def content_of(batch: RawBatch, columns: Columns, view: View, verdicts: RowRejects) -> Content:
    """Read, clean and judge the content of a batch."""
    if columns.text:
        texts, keys, characters = clean(text_of(batch, columns.text, verdicts))
        for row in np.flatnonzero(characters == 0).tolist():
            verdicts.refuse(row, "empty", f"{columns.text} is empty")
        return Content(texts, keys, characters)
    notes: defaultdict[int, list[str]] = defaultdict(list)
    system = _system(batch, columns, verdicts, notes)
    if columns.messages:
        turns = _chats(batch.values(columns.messages), columns, system, verdicts, notes)
    else:
        turns = _pairs(batch, columns, system, verdicts)
    content = _conversations(turns, view, verdicts)
    tools = _tools(batch, columns, verdicts, notes)
    noted = [notes.get(row) for row in range(len(batch.rows))] if notes else None
    return replace(content, tools=tools, notes=noted)


def view_of(starts: NDArray[np.int64], roles: NDArray[np.str_], view: View) -> NDArray[np.bool_]:
    """Tell which turns are embedded. They are those up to the last answer of their conversation, that answer, or all.

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


@dataclass(frozen=True)
class _Turns:
    """The messages of all rows one after another; a refused row has none."""

    starts: NDArray[np.int64]  # where each row begins, and the end of the last
    roles: NDArray[np.str_]
    said: pa.StringArray
    beside: Mapping[int, dict[str, Any]]  # by message, of those that have more than role and content


def _conversations(turns: _Turns, view: View, verdicts: RowRejects) -> Content:
    starts, roles, beside = turns.starts, turns.roles, turns.beside
    said, keys, lengths = clean(turns.said)
    silent = (lengths == 0) & (roles != "tool")  # a tool may return nothing
    silent[[number for number, more in beside.items() if "tool_calls" in more]] = False
    for row in np.flatnonzero(_sums(silent, starts)).tolist():
        verdicts.refuse(row, "empty", f"{roles[starts[row] + np.argmax(silent[starts[row] :])]} says nothing")
    shown, shown_keys = _with_calls(said, keys, beside)
    embedded = view_of(starts, roles, view) & np.asarray(pc.not_equal(shown, ""))
    for row in np.flatnonzero(_sums(embedded, starts) == 0).tolist():
        verdicts.refuse(row, "empty", f"ingest.view '{view}' leaves nothing to embed")
    view_starts = np.concatenate([[0], np.cumsum(_sums(embedded, starts))])
    texts = pc.binary_join(_lists(view_starts, shown.filter(pa.array(embedded))), "\n")
    kept = [key for key, is_embedded in zip(shown_keys, embedded.tolist(), strict=True) if is_embedded]
    chat: list[Message] = list(zip(roles.tolist(), (key.decode() for key in keys), strict=True))
    for number, more in beside.items():
        chat[number] = (chat[number][0], chat[number][1], _keyed(more))
    return Content(
        texts,
        [b" ".join(kept[first:end]) for first, end in pairwise(view_starts.tolist())],
        _sums(lengths, starts),
        _lists(starts, _messages(roles, said, beside)).cast(records.MESSAGES),
        [chat[first:end] for first, end in pairwise(starts.tolist())],
    )


def _keyed(beside: dict[str, Any]) -> dict[str, Any]:
    """Replace the reasoning beside a message by its key. That is blind to how much white space there is in it."""
    reasoning = beside.get("reasoning_content")
    return beside if reasoning is None else {**beside, "reasoning_content": key_of(reasoning)}


def _with_calls(
    said: pa.StringArray, keys: list[bytes], beside: Mapping[int, dict[str, Any]]
) -> tuple[pa.StringArray, list[bytes]]:
    """Find what is embedded of each message, calls included, and its key."""
    calling = sorted(number for number, more in beside.items() if "tool_calls" in more)
    if not calling:
        return said, keys
    mask = np.zeros(len(said), dtype=bool)
    mask[calling] = True
    texts = [shown_text(said[number].as_py(), beside[number]) for number in calling]
    keys = [*keys]
    for number, text in zip(calling, texts, strict=True):
        keys[number] = key_of(text).encode()
    return pc.replace_with_mask(said, pa.array(mask), pa.array(texts, pa.string())), keys


def _messages(roles: NDArray[np.str_], said: pa.StringArray, beside: Mapping[int, dict[str, Any]]) -> pa.StructArray:
    """Build messages as the schema has them."""
    fields = list(records.MESSAGES.value_type)
    columns = [pa.array(roles, pa.string()), said]
    for field in fields[2:]:
        if beside:
            values = [beside[number].get(field.name) if number in beside else None for number in range(len(roles))]
            columns.append(pa.array(values, field.type))
        else:
            columns.append(pa.nulls(len(roles), field.type))
    return pa.StructArray.from_arrays(columns, fields=fields)


def _sums(values: NDArray[Any], starts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Sum values over the turns of each conversation."""
    total = np.concatenate([[0], np.cumsum(values, dtype=np.int64)])
    return np.asarray(total[starts[1:]] - total[starts[:-1]])


def _lists(starts: NDArray[np.int64], values: pa.Array) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array(starts, pa.int32()), values)


def _pairs(batch: RawBatch, columns: Columns, system: pa.StringArray | None, verdicts: RowRejects) -> _Turns:
    """Pair prompts with their completions, behind what the system says.

    Where it says nothing, nothing is before them.
    """
    sides = {} if system is None else {"system": system}
    sides["user"] = text_of(batch, str(columns.prompt), verdicts)
    if columns.completion:
        sides["assistant"] = text_of(batch, columns.completion, verdicts)
    order = np.arange(len(sides) * len(batch.rows)).reshape(len(sides), -1).T.ravel()
    said = pa.concat_arrays([*sides.values()]).take(pa.array(order))
    roles = np.tile(np.array([*sides]), len(batch.rows))
    starts = np.arange(len(batch.rows) + 1) * len(sides)
    if system is not None:
        kept = (roles != "system") | np.asarray(pc.not_equal(said, ""))
        said, roles, starts = said.filter(pa.array(kept)), roles[kept], np.append(0, np.cumsum(kept))[starts]
    return _Turns(starts, roles, said, {})


def _chats(
    values: list[Any],
    columns: Columns,
    system: pa.StringArray | None,
    verdicts: RowRejects,
    notes: defaultdict[int, list[str]],
) -> _Turns:
    starts, roles, said = [0], list[str](), list[str]()
    beside: dict[int, dict[str, Any]] = {}
    first = repeat("") if system is None else system.to_pylist()
    for row, (value, instruction) in enumerate(zip(values, first, strict=False)):
        try:
            turns = turns_of(value, str(columns.messages))
            if instruction:
                turns = _instructed(turns, instruction, columns)
        except Refused as refused:
            verdicts.refuse(row, refused.reason, refused.message)
            turns = []
        unread: set[str] = set()
        for role, content, more, not_read in turns:
            if more:
                beside[len(roles)] = more
            unread.update(not_read)
            roles.append(role)
            said.append(content)
        if unread:
            notes[row] += [f"a message has {name:.60}, which is not read" for name in sorted(unread)[:_UNREAD_NAMED]]
        starts.append(len(roles))
    return _Turns(np.array(starts), np.array(roles, dtype=np.str_), pa.array(said, pa.string()), beside)


def _instructed(turns: list[Turn], instruction: str, columns: Columns) -> list[Turn]:
    """Put what the system column says before a conversation. One that begins so already stays as it is."""
    own = [turn for turn in turns if turn.role == "system"]
    if not own:
        return [Turn("system", instruction), *turns]
    if len(own) == 1 and key_of(normalize(own[0].content)) == key_of(normalize(instruction)):
        return turns
    raise Refused("wrong_type", f"{columns.system}: {columns.messages} has a system message that says something else")


def _system(
    batch: RawBatch, columns: Columns, verdicts: RowRejects, notes: defaultdict[int, list[str]]
) -> pa.StringArray | None:
    """Read what the system column says, trimmed. Empty where it says nothing."""
    if columns.system is None:
        return None
    if is_template(columns.system):
        return pc.utf8_trim_whitespace(text_of(batch, columns.system, verdicts))
    column = _or_null(batch.columns[columns.system], columns.system, notes)
    return pc.utf8_trim_whitespace(strings(column, columns.system, verdicts, null=""))


def _tools(
    batch: RawBatch, columns: Columns, verdicts: RowRejects, notes: defaultdict[int, list[str]]
) -> list[str | None] | None:
    if columns.tools is None:
        return None
    found: list[str | None] = []
    for row, value in enumerate(as_values(_or_null(batch.columns[columns.tools], columns.tools, notes))):
        try:
            found.append(tools_of(value))
        except Refused as refused:
            verdicts.refuse(row, refused.reason, refused.message)
            found.append(None)
    return found


def _or_null(column: Column, name: str, notes: defaultdict[int, list[str]]) -> Column:
    """Put nulls into a column that rows need not have. A note says so of each row that has none."""
    if isinstance(column, pa.Array):
        return column
    for row in [row for row, value in enumerate(column) if value is MISSING]:
        notes[row].append(f"the row has no {name}")
    return [None if value is MISSING else value for value in column]


def text_of(batch: RawBatch, spec: str, verdicts: RowRejects, null: str | None = None) -> pa.StringArray:
    """Read a column or a template as text. Empty where the row is refused. ``null`` as for :func:`strings`."""
    if not is_template(spec):
        return strings(batch.columns[spec], spec, verdicts, null).fill_null("")
    joined: list[Any] = []
    for literal, slot in parts(spec):
        joined.append(pa.scalar(literal))
        if slot is not None:
            column = batch.columns[slot.column]
            if slot.every or not is_text(column):
                column = pa.array(fill(slot, as_values(column), verdicts.refuse), pa.string())
            joined.append(column.fill_null(""))
    return pc.binary_join_element_wise(*joined, "")


def strings(column: Column, name: str, verdicts: RowRejects, null: str | None = None) -> pa.StringArray:
    """Read a column as text, null where the row has none. Rows with something else are refused.

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
            verdicts.refuse(row, "wrong_type", _no_text(name, as_value(column[row]), str(column.type)))
        texts = pa.nulls(len(column), pa.string())
    else:
        texts = _from_values(column, name, verdicts)
    if null is not None:
        return texts.fill_null(null)
    for row in pc.indices_nonzero(texts.is_null()).to_pylist() if texts.null_count else ():
        verdicts.refuse(row, "empty", f"{name} is null")
    return texts


def _from_values(values: list[Any], name: str, verdicts: RowRejects) -> pa.StringArray:
    if set(map(type, values)) <= {str, type(None)}:
        return pa.array(values, pa.string())
    for row, value in enumerate(values):
        if value is MISSING:
            verdicts.refuse(row, "missing_column", f"the row has no {name}")
        elif value is not None and not isinstance(value, str):
            verdicts.refuse(row, "wrong_type", _no_text(name, value, kind_of(value)))
    return pa.array([value if isinstance(value, str) else None for value in values], pa.string())


def _no_text(name: str, value: Any, kind: str) -> str:
    fault = f"{name}: expected text, found {kind}"
    if isinstance(value, list):
        return f'{fault}; "{{{name}.*}}" takes its items, a line each'
    return fault if written(value) is None else f'{fault}; "{{{name}}}" takes it as text'
