"""Fields by name or by dotted path: ``question.stem``, ``choices.0.text``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from compass_ray.ingest.readers.batch import MISSING, RawBatch, Unreadable, missing_columns


def find(value: Any, parts: Sequence[str]) -> Any:
    """Find what a path leads to.

    It goes through objects by key and through lists by position. MISSING if it leads nowhere.
    """
    for part in parts:
        if isinstance(value, dict):
            value = value.get(part, MISSING)
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return MISSING
    return value


def json_column(rows: list[dict[str, Any]], name: str) -> list[Any]:
    """Read one field of all rows. A key that is spelled with dots comes before a path."""
    if "." not in name:
        return [row.get(name, MISSING) for row in rows]
    parts = name.split(".")
    return [row[name] if name in row else find(row, parts) for row in rows]


def arrow_columns(batch: pa.RecordBatch, names: Iterable[str]) -> dict[str, pa.Array]:
    """Find the fields of a record batch by name or path.

    Structs are entered without touching their rows. A path that goes on through a list ends at the list: see
    :func:`follow_lists`.
    """
    found = {}
    for name in names:
        holder, parts = _holder(name, batch.schema.names)
        column = batch[holder]
        for part in parts:
            if not pa.types.is_struct(column.type):
                break
            column = pc.struct_field(column, part)
        found[name] = column
    return found


def follow_lists(batch: RawBatch, schema: pa.Schema) -> RawBatch:
    """Follow the rest of every path that leads through a list. The batch then has what it leads to."""
    for name in batch.columns:
        holder, parts = _holder(name, schema.names)
        kind = schema.field(holder).type
        while parts and pa.types.is_struct(kind):
            kind, parts = kind.field(parts[0]).type, parts[1:]
        if parts:
            batch.columns[name] = [find(value, parts) for value in batch.values(name)]
    return batch


def holders(schema: pa.Schema, names: Iterable[str]) -> list[str]:
    """List the columns to read of a file with a schema, each once.

    Raises
    ------
    Unreadable
        ``missing_column`` or ``ambiguous_column``.
    """
    needed: dict[str, None] = {}
    absent = []
    for name in names:
        holder, parts = _holder(name, schema.names)
        if holder in schema.names and _leads_somewhere(schema.field(schema.names.index(holder)).type, parts):
            needed[holder] = None
        else:
            absent.append(name)
    if absent:
        raise missing_columns(absent, schema.names)
    check_unambiguous(needed, schema.names)
    for holder in needed:
        _check_fields(holder, schema.field(holder).type)
    return list(needed)


def check_unambiguous(wanted: Iterable[str], present: Sequence[str]) -> None:
    """Refuse a file in which several columns have a name that is wanted."""
    if repeated := [name for name in wanted if present.count(name) > 1]:
        raise Unreadable("ambiguous_column", f"several columns are called {', '.join(repeated)}")


def _holder(name: str, present: Sequence[str]) -> tuple[str, list[str]]:
    """Find the column of a file at which a name or path begins. With it comes the rest of the path."""
    if name in present:
        return name, []
    holder, *parts = name.split(".")
    return holder, parts


def _leads_somewhere(kind: pa.DataType, parts: Sequence[str]) -> bool:
    for part in parts:
        if not pa.types.is_struct(kind):
            return bool(pa.types.is_nested(kind))
        if part not in (names := [field.name for field in kind]):
            return False
        kind = kind.field(names.index(part)).type
    return True


def _check_fields(path: str, kind: pa.DataType) -> None:
    if pa.types.is_nested(kind):
        fields = [kind.field(number) for number in range(kind.num_fields)]
        check_unambiguous((field.name for field in fields), [field.name for field in fields])
        for field in fields:
            _check_fields(f"{path}.{field.name}", field.type)
