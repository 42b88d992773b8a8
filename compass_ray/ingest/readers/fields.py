"""Fields by name or by dotted path: ``question.stem``, ``choices.0.text``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from compass_ray.ingest.readers.batch import MISSING, missing_columns


def find(value: Any, parts: Sequence[str]) -> Any:
    """What a path leads to, through objects by key and through lists by position; MISSING if it leads nowhere."""
    for part in parts:
        if isinstance(value, dict):
            value = value.get(part, MISSING)
        elif isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            return MISSING
    return value


def json_column(rows: list[dict[str, Any]], name: str) -> list[Any]:
    """One field of all rows; a key that is spelled with dots comes before a path."""
    if "." not in name:
        return [row.get(name, MISSING) for row in rows]
    parts = name.split(".")
    return [row[name] if name in row else find(row, parts) for row in rows]


def top_level(names: Iterable[str], present: Sequence[str]) -> dict[str, str]:
    """For each name or path, the column of a file that holds it.

    Raises
    ------
    Unreadable
        ``missing_column``, if there is none.
    """
    known = set(present)
    holders = {name: name if name in known else name.partition(".")[0] for name in names}
    if absent := [name for name, holder in holders.items() if holder not in known]:
        raise missing_columns(absent, present)
    return holders


def arrow_column(column: pa.Array, path: str) -> pa.Array | list[Any]:
    """What a path leads to in a column of a file with a schema; Python values where it leads through a list."""
    parts = path.split(".")
    for position, part in enumerate(parts):
        if not pa.types.is_struct(column.type):
            return [find(value, parts[position:]) for value in column.to_pylist()]
        if column.type.get_field_index(part) < 0:
            raise missing_columns([path], [field.name for field in column.type])
        column = pc.struct_field(column, part)
    return column
