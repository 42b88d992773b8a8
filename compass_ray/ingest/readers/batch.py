"""What readers hand on: rows by column, and the rows that could not be read.

A column is an Arrow array where the format has types (Parquet, Arrow, CSV, text) and a list of Python values where
every row has its own (JSON), so that text from Arrow is never turned into Python strings and back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, TypeGuard

import numpy as np
import pyarrow as pa

from compass_ray.ingest.config import Limits as Limits

BATCH_ROWS = 1 << 14
CHUNK_BYTES = 4 << 20
RAW_BYTES = 2000
"""How much of a rejected row the quarantine keeps."""

MISSING = object()
"""Stands for a field that the row does not have; ``None`` is a JSON null."""

Column: TypeAlias = pa.Array | list[Any]

_SHORT_FLOATS: dict[pa.DataType, Callable[[Any], Any]] = {pa.float16(): np.float16, pa.float32(): np.float32}


@dataclass(frozen=True)
class Fault:
    """A row, or with ``row`` None what is left of a file, that cannot be read.

    ``rows`` are lost with it. Where nobody can count them it is None, and ``lost_bytes`` of the file are lost.
    """

    row: int | None
    reason: str
    message: str
    raw: bytes = b""
    rows: int | None = 1
    lost_bytes: int = 0


class Unreadable(Exception):
    """The rest of a file cannot be read; what was read before stays.

    Parameters
    ----------
    at : int, optional
        The byte, after decompression, that what was read ends at, where the reader has looked further.

    Attributes
    ----------
    rows, lost_bytes : int, optional
        What is lost, as far as those that the exception passes on its way know.
    """

    def __init__(self, reason: str, message: str, at: int | None = None) -> None:
        super().__init__(reason, message)
        self.reason, self.message, self.at = reason, message, at
        self.rows: int | None = None
        self.lost_bytes: int | None = None


class Refused(Exception):
    """A part of a row that cannot be read: reason and message of the reject."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(reason, message)
        self.reason, self.message = reason, message


@dataclass
class RawBatch:
    """Parsed rows by column, and the rows that could not be parsed."""

    rows: Sequence[int] = ()
    columns: dict[str, Column] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)

    def values(self, name: str) -> list[Any]:
        """Read a column as Python values."""
        return as_values(self.columns[name])

    def row(self, index: int) -> dict[str, Any]:
        """Read the fields that one row has."""
        fields = {name: as_value(column[index]) for name, column in self.columns.items()}
        return {name: value for name, value in fields.items() if value is not MISSING}

    def take(self, kept: np.ndarray[Any, np.dtype[np.intp]]) -> RawBatch:
        """Take the rows at these positions, with all faults."""
        columns = {
            name: column.take(pa.array(kept)) if isinstance(column, pa.Array) else [column[index] for index in kept]
            for name, column in self.columns.items()
        }
        return RawBatch([self.rows[index] for index in kept.tolist()], columns, self.faults)


def line_too_long(longest: int) -> str:
    """Say that a line has more bytes than ``longest``."""
    return f"the line is longer than {longest:,} bytes; raise ingest.max_row_bytes to read it"


def as_values(column: Column) -> list[Any]:
    """Turn a column into Python values. Floats of 32 and 16 bits become the number that they were written as."""
    if not isinstance(column, pa.Array):
        return column
    values: list[Any] = column.to_pylist()
    as_written = _as_written(column.type)
    return [as_written(value) for value in values] if as_written else values


def as_value(item: Any) -> Any:
    """Turn one item of a column into a Python value, to be shown."""
    if not isinstance(item, pa.Scalar):
        return item
    try:
        as_written = _as_written(item.type)
        return as_written(item.as_py()) if as_written else item.as_py()
    except (ValueError, OverflowError):
        return f"a value of type {item.type} that Python does not have"


def _as_written(kind: pa.DataType) -> Callable[[Any], Any] | None:
    """Make a function that turns 1.100000023841858 into 1.1.

    It does so wherever a type holds short floats; None if it holds none.
    """
    if kind in _SHORT_FLOATS:
        short = _SHORT_FLOATS[kind]
        return lambda value: None if value is None else float(str(short(value)))
    if pa.types.is_struct(kind):
        fields = {field.name: inner for field in kind if (inner := _as_written(field.type))}
        if fields:
            return lambda value: value and {**value, **{name: inner(value[name]) for name, inner in fields.items()}}
    elif pa.types.is_nested(kind) and hasattr(kind, "value_type") and (inner := _as_written(kind.value_type)):
        return lambda value: value and [inner(item) for item in value]
    return None


def is_text(column: Column) -> TypeGuard[pa.Array]:
    """Tell whether a column is an Arrow array of strings."""
    return isinstance(column, pa.Array) and pa.types.is_string(column.type)


def decoded(rows: Sequence[int], columns: dict[str, pa.Array], faults: list[Fault]) -> RawBatch:
    """Make a batch of Arrow columns whose bytes nobody has looked at.

    A row that is not UTF-8 becomes a fault. Dictionaries are expanded, all kinds of strings become one, and nested
    values become Python's. Cost: one pass over the bytes; rows are looked at one by one only in a batch that has such a
    row.
    """
    plain = {name: _plain(column) for name, column in columns.items()}
    bad: dict[int, Fault] = {}
    for name, column in plain.items():
        for index, reason, message in _without_value(column):
            raw = b"\t".join(_raw(column[index]) for column in plain.values())
            bad.setdefault(index, Fault(rows[index], reason, f"{name}: {message}", raw[:RAW_BYTES]))
    batch = RawBatch(rows, {**plain}, [*faults, *(bad[index] for index in sorted(bad))])
    if bad:
        batch = batch.take(np.array([index for index in range(len(rows)) if index not in bad], dtype=np.intp))
    return RawBatch(batch.rows, {name: _unified(column) for name, column in batch.columns.items()}, batch.faults)


def _plain(column: pa.Array) -> pa.Array:
    while pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if isinstance(column, pa.ExtensionArray):
        return column.storage  # what an extension type means is the writer's business, and maybe code
    return column


def _unified(column: Column) -> Column:
    if is_text(column) or not isinstance(column, pa.Array):
        return column
    if pa.types.is_nested(column.type):
        return as_values(column)
    return column.cast(pa.string()) if _is_string(column.type) else column


def _is_string(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def _without_value(column: pa.Array) -> Iterator[tuple[int, str, str]]:
    """Find rows that have no Python value.

    They hold bytes that are not UTF-8, or in nested columns times beyond the year 9999.
    """
    try:
        column.validate(full=True)
        if pa.types.is_nested(column.type):
            column.to_pylist()
        return
    except pa.ArrowInvalid as exc:
        if "UTF8" not in str(exc):  # offsets that point nowhere: no value of this array may be touched
            raise Unreadable("corrupt_file", str(exc)) from exc
    except (ValueError, OverflowError):
        pass
    for index in range(len(column)):
        try:
            column[index].as_py()
        except (ValueError, OverflowError) as exc:
            yield index, "undecodable_bytes" if isinstance(exc, UnicodeDecodeError) else "wrong_type", str(exc)


def _raw(item: pa.Scalar) -> bytes:
    try:
        value = item.cast(pa.binary()).as_py() if _is_string(item.type) else item.as_py()
    except (ValueError, OverflowError):
        return b""
    return value if isinstance(value, bytes) else repr(value).encode("utf-8", "replace")


def missing_columns(absent: list[str], present: Sequence[str]) -> Unreadable:
    """Make the fault of a file that lacks columns."""
    message = f"expected {', '.join(absent)}; the file has {', '.join(present[:50])}"
    return Unreadable("missing_column", message)
