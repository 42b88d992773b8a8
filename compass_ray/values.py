"""Single values in the one spelling that configs, templates and messages share: that of JSON.

Numbers, truth values and null are written as in JSON, dates as in ISO 8601, text as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import date, time
from decimal import Decimal
from typing import Any, TypeAlias

Scalar: TypeAlias = bool | int | float | str | None


def written(value: Any) -> str | None:
    """Write a single value as JSON does, text and dates without quotes.

    Returns
    -------
    str or None
        None for what is no single value, or none that JSON writes: lists, objects, bytes, NaN and infinity.

    >>> written(True), written(Decimal("12345678901234567890123")), written(float("nan"))
    ('true', '12345678901234567890123', None)
    """
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float | Decimal):
        finite = value.is_finite() if isinstance(value, Decimal) else math.isfinite(value)
        return (format(value, "f") if isinstance(value, Decimal) else repr(value)) if finite else None
    if isinstance(value, date | time):
        return value.isoformat()
    return "null" if value is None else None


def side_by_side(lists: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """List the objects that lists of one length stand for. ``datasets`` keeps a list of objects so.

    >>> side_by_side({"label": ["A", "B"], "text": ["x", "y"]})
    [{'label': 'A', 'text': 'x'}, {'label': 'B', 'text': 'y'}]
    """
    return [dict(zip(lists, items, strict=True)) for items in zip(*lists.values(), strict=True)]


def kind_of(value: Any) -> str:
    """Say what a value is that cannot be written, for messages."""
    unwritten = isinstance(value, float | Decimal) and written(value) is None
    return f"{value}, which JSON does not write" if unwritten else type(value).__name__
