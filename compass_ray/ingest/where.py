"""Which rows ``where`` keeps: those whose column has one of the values that the config names.

Text equals text letter by letter. Where one of two values is no text, the other is read as JSON would read it: ``1``,
``1.0`` and ``"1"`` are one number, ``true`` and ``"true"`` one truth value, ``null`` and ``"null"`` are null. What
Python, pandas and spreadsheets write for these (``True``, ``TRUE``, ``None``, ``NULL``) is read alike. A date equals
its text in ISO 8601.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from decimal import Decimal
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from compass_ray.ingest.readers.batch import MISSING, Column, as_values, is_text
from compass_ray.values import Scalar, written

_NUMBER = re.compile(r"-?(?:0|[1-9]\d{0,99})(?:\.\d{1,99})?(?:[eE][+-]?\d{1,3})?", re.ASCII)
_TRUTHS = {"true": True, "false": False}
_NULLS = frozenset({"null", "NULL", "None"})

_Meaning: TypeAlias = tuple[str, Any]


class Allowed:
    """The values that one column may have under ``where``."""

    def __init__(self, values: Iterable[Scalar]) -> None:
        values = list(values)
        self._texts = frozenset(value for value in values if isinstance(value, str))
        self._meant = frozenset(_meaning(value) for value in values if not isinstance(value, str))
        read = {_meaning_of_text(text) for text in self._texts} | {("text", text) for text in self._texts}
        self._read = self._meant | read
        self.shown = ", ".join(str(written(value)) for value in values)

    def mask(self, column: Column) -> NDArray[np.bool_]:
        """Tell which rows have one of the values. Cost: a look-up for each distinct text, or for each other value."""
        if not is_text(column):
            return np.array([self._has(value) for value in as_values(column)], dtype=bool)
        if self._meant:
            encoded = column.dictionary_encode()
            has = pa.array([self._has(text) for text in encoded.dictionary.to_pylist()], pa.bool_())
            found = has.take(encoded.indices)
        else:
            found = pc.is_in(column, pa.array(sorted(self._texts), pa.string()))
        nulls = self._has(None) if column.null_count else False
        mask: NDArray[np.bool_] = pc.if_else(column.is_null(), nulls, found).to_numpy(zero_copy_only=False)
        return mask

    def _has(self, value: Any) -> bool:
        if isinstance(value, str):
            return value in self._texts or (bool(self._meant) and _meaning_of_text(value) in self._meant)
        return value is not MISSING and written(value) is not None and _meaning(value) in self._read


def _meaning(value: Any) -> _Meaning:
    """Tell what a value means that can be written and is no text. Equal values have equal meanings."""
    if value is None or isinstance(value, bool):
        return ("truth", value)
    if isinstance(value, int | float | Decimal):
        return ("number", Decimal(repr(value)) if isinstance(value, float) else Decimal(value))
    return ("text", written(value))


def _meaning_of_text(text: str) -> _Meaning:
    if text in _NULLS:
        return ("truth", None)
    if text.lower() in _TRUTHS:
        return ("truth", _TRUTHS[text.lower()])
    return ("number", Decimal(text)) if _NUMBER.fullmatch(text) else ("text", text)
