"""Timestamps in the notations that data have: ISO 8601, RFC 2822, and Unix time in seconds down to nanoseconds.

A time without a zone is UTC.
"""

from __future__ import annotations

import contextlib
import math
from datetime import UTC, date, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from compass_ray.ingest.readers.batch import Column, is_text

UTC_MICROSECONDS = pa.timestamp("us", tz="UTC")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_UNITS = ((1e11, 1e6), (1e14, 1e3), (1e17, 1.0), (1e20, 1e-3))
"""Unix times below the first number (the years 1966 to 5138 in seconds) times the second are microseconds."""


def parse_timestamp(value: Any) -> int | None:
    """Microseconds since 1970 UTC, or None if the value is no time.

    >>> parse_timestamp("2024-02-29"), parse_timestamp(1709164800), parse_timestamp("1709164800000")
    (1709164800000000, 1709164800000000, 1709164800000000)
    """
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = float(value) if len(value) != 8 else value  # eight digits are a date: 20240229
    if isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            return None
        return next((round(value * factor) for limit, factor in _UNITS if abs(value) < limit), None)
    try:
        if isinstance(value, str):
            value = _read(value)
        if isinstance(value, date) and not isinstance(value, datetime):
            value = datetime(value.year, value.month, value.day)
        if not isinstance(value, datetime):
            return None
        since = (value if value.tzinfo else value.replace(tzinfo=UTC)) - _EPOCH
    except (ValueError, OverflowError):
        return None
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def timestamps(column: Column) -> tuple[pa.Array, list[int]]:
    """A column as UTC microseconds, and the rows that hold something else; null and blank stay null.

    Cost: one cast where all rows share one ISO 8601 notation, a Python call a row otherwise.
    """
    if isinstance(column, pa.Array) and (pa.types.is_timestamp(column.type) or pa.types.is_date(column.type)):
        return column.cast(pa.timestamp("us"), safe=False).cast(UTC_MICROSECONDS), []
    texts = column if is_text(column) else None
    if texts is None and isinstance(column, list) and all(type(value) is str for value in column):
        texts = pa.array(column, pa.string())
    if texts is not None:
        for kind in (pa.timestamp("us"), UTC_MICROSECONDS):
            with contextlib.suppress(pa.ArrowInvalid):
                return pc.cast(texts, kind).cast(UTC_MICROSECONDS), []
    values = column.to_pylist() if isinstance(column, pa.Array) else column
    empty = [value is None or (isinstance(value, str) and not value.strip()) for value in values]
    found = [None if none else parse_timestamp(value) for none, value in zip(empty, values, strict=True)]
    bad = [index for index, value in enumerate(found) if value is None and not empty[index]]
    return pa.array(found, pa.int64()).cast(UTC_MICROSECONDS), bad


def _read(text: str) -> datetime:
    try:
        return datetime.fromisoformat(text.strip())
    except ValueError:
        return parsedate_to_datetime(text)
