"""The slots of a template -> text: single values as JSON writes them, and the items of lists one after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from compass_ray.ingest.readers.batch import MISSING, Refused
from compass_ray.ingest.readers.fields import find
from compass_ray.ingest.templates import Slot
from compass_ray.values import kind_of, side_by_side, written

Refuse: TypeAlias = Callable[[int, str, str], None]
"""Takes a row, the reason and the message."""


def fill(slot: Slot, values: Sequence[Any], refuse: Refuse) -> list[str | None]:
    """Fill a slot from every row, null being nothing. Rows that it cannot be filled from are refused."""
    texts: list[str | None] = []
    for row, value in enumerate(values):
        try:
            texts.append(_every(slot, value) if slot.every else _one(slot.column, value))
        except Refused as refused:
            refuse(row, refused.reason, refused.message)
            texts.append(None)
    return texts


def _one(name: str, value: Any) -> str:
    if value is None:
        return ""
    if value is MISSING:
        raise Refused("missing_column", f"the row has no {name}")
    text = written(value)
    if text is None:
        raise Refused("wrong_type", f"{name}: expected text, found {kind_of(value)}")
    return text


def _every(slot: Slot, value: Any) -> str:
    if value is MISSING:
        raise Refused("missing_column", f"the row has no {slot.column}")
    texts = []
    for number, item in enumerate(_items(slot.column, value)):
        place = [slot.column, str(number), *slot.below]
        found = find(item, slot.below)
        texts.append(
            "".join(
                literal + ("" if path is None else _one(".".join([*place, *path]), find(found, path)))
                for literal, path in slot.item
            )
        )
    return slot.between.join(texts)


def _items(name: str, value: Any) -> list[Any]:
    """Read the items of a list. Lists side by side, as ``datasets`` keeps a list of objects, are turned into one."""
    if value is None:
        return []
    if isinstance(value, list):
        return value
    columns = {key: item for key, item in value.items() if item is not None} if isinstance(value, dict) else {}
    if columns and all(isinstance(item, list) for item in columns.values()):
        if len({len(item) for item in columns.values()}) > 1:
            lengths = ", ".join(f"{key}: {len(item)}" for key, item in columns.items())
            raise Refused("wrong_type", f"{name}: expected lists of one length, found {lengths}")
        return side_by_side(columns)
    raise Refused("wrong_type", f"{name}: expected a list, found {kind_of(value)}")
