"""JSON lines: an object a line, in byte ranges where the file is not compressed."""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import numpy as np
import orjson

from compass_ray.ingest.files import ReadUnit
from compass_ray.ingest.readers.batch import BATCH_ROWS, MISSING, RAW_BYTES, Fault, Limits, RawBatch, Unreadable
from compass_ray.ingest.readers.fields import json_column
from compass_ray.ingest.readers.streams import open_decoded, peek, read_lines
from compass_ray.values import kind_of

_HEAD_BYTES = 64 << 10
_ROWS = re.compile(rb'"([^"\\]+)"\s*:\s*\[\s*\{')
_BLANK = object()
_BEYOND_JSON = re.compile(rb"NaN|Infinity")
_MAY_BE_ROUNDED = frozenset({float, list, dict})
_LONG = b"0" * 19
_DIGITS = bytes(ord("0") if byte in b"0123456789" else ord(" ") for byte in range(256))
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def read_jsonl(unit: ReadUnit, columns: list[str], limits: Limits) -> Iterator[RawBatch]:
    """Read rows by the byte offset of their line, after decompression.

    A value over several lines is one fault, the file.
    """
    with open_decoded(unit.file, limits) as opened:
        head, stream = peek(opened, _HEAD_BYTES)
        if message := _over_lines(head):
            if unit.start:
                return  # the first range says so
            raise Unreadable("broken_json", message)
        for block in read_lines(stream, unit.start, unit.end, limits):
            offsets = [*accumulate((len(line) + 1 for line in block.lines), initial=block.offset)]
            if block.offset == 0 and block.lines:
                block.lines[0] = block.lines[0].removeprefix(codecs.BOM_UTF8)
            if block.faults:
                yield RawBatch(faults=block.faults)
            for first in range(0, len(block.lines), BATCH_ROWS):
                part = slice(first, first + BATCH_ROWS)
                batch = parse(block.lines[part], offsets[part], columns)
                yield _without_envelope(batch, block.lines[0]) if batch.rows and batch.rows[0] == 0 else batch


def _over_lines(head: bytes) -> str | None:
    """Say so if a file begins with a value over several lines. None if it does not."""
    cut = head.rfind(b"\n") if len(head) == _HEAD_BYTES else len(head)
    head = head[: max(0, cut)].removeprefix(codecs.BOM_UTF8).strip()
    line = head.split(b"\n", 1)[0]
    if len(line) == len(head) or _whole(line) is not None or _whole(head) is False:
        return None
    if head.startswith(b"["):
        return "a JSON array over several lines; expected an object a line; read it as an array with format: json"
    message = "a JSON object over several lines; expected an object a line"
    if match := _ROWS.search(head):
        return f"{message}; its {_extracted(match[1].decode('utf-8', 'replace'))}"
    return f"{message}: write it so (jq -c . FILE)"


def _whole(text: bytes) -> bool | None:
    """Tell whether a text begins with JSON. None if the text ends before the JSON does."""
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError as exc:
        if exc.doc and exc.pos >= len(exc.doc):
            return None
        return bool(exc.pos) and _whole(exc.doc[: exc.pos].encode()) is True
    return True


def _without_envelope(batch: RawBatch, line: bytes) -> RawBatch:
    """Leave out the first row of a batch if it is an envelope.

    It is one if it has none of the columns and holds a list of objects.
    """
    if not batch.columns or any(column[0] is not MISSING for column in batch.columns.values()):
        return batch
    for name, value in _read_again(line, {}).items():
        if isinstance(value, list) and value and isinstance(value[0], dict):
            message = f"expected {', '.join(batch.columns)}; found an object whose {_extracted(name)}"
            fault = Fault(0, "missing_column", message, line[:RAW_BYTES])
            rest = batch.take(np.arange(1, len(batch.rows)))
            return RawBatch(rest.rows, rest.columns, [fault, *rest.faults])
    return batch


def _extracted(name: str) -> str:
    return f"{name!r} holds a list of objects; if those are the rows, write the list to a .json file (jq '.\"{name}\"')"


def parse(texts: list[bytes], offsets: list[int], columns: list[str]) -> RawBatch:
    """Parse the JSON text of each row into one batch.

    Blank ones are passed over, broken ones become faults. What the fast parser refuses or rounds, though it can be
    read, is read again by Python's: NaN and infinity, which cost a row only if they stand in a column that is asked
    for, and integers of more than 64 bits.
    """
    parsed: list[Any] = []
    loads, keep = orjson.loads, parsed.append
    for text in texts:
        try:
            keep(_BLANK if not text or text.isspace() else loads(text))
        except orjson.JSONDecodeError as exc:
            keep(_with_nan(text, exc, columns))
    faults: list[Fault] = []
    if any(kind is not dict for kind in set(map(type, parsed))):
        sound = [index for index, value in enumerate(parsed) if type(value) is dict]
        faults = [
            _fault(offset, text, value)
            for offset, text, value in zip(offsets, texts, parsed, strict=False)
            if type(value) is not dict and value is not _BLANK
        ]
        parsed, offsets = [parsed[index] for index in sound], [offsets[index] for index in sound]
        texts = [texts[index] for index in sound]
    found = {name: json_column(parsed, name) for name in columns}
    if any(not _MAY_BE_ROUNDED.isdisjoint(map(type, column)) for column in found.values()) and _has_long(*texts):
        parsed = [_read_again(text, row) if _has_long(text) else row for text, row in zip(texts, parsed, strict=True)]
        found = {name: json_column(parsed, name) for name in columns}
    return RawBatch(offsets[: len(parsed)], found, faults)


def _has_long(*texts: bytes) -> bool:
    """Tell whether JSON texts may hold an integer beyond 64 bits."""
    return _LONG in b" ".join(texts).translate(_DIGITS)


class _NotFinite(ValueError):
    """NaN or infinity stands in a column that is asked for."""


def _with_nan(text: bytes, refused: orjson.JSONDecodeError, columns: list[str]) -> Any:
    """Read a row that was refused for NaN or infinity.

    It is read if nobody asks for these; else what is wrong with it is told.
    """
    row: Any = _read_again(text, refused) if _BEYOND_JSON.search(text) or "infinity" in refused.msg else refused
    for name in columns if isinstance(row, dict) else ():
        value = json_column([row], name)[0]
        if isinstance(value, float) and not math.isfinite(value):
            return _NotFinite(f"{name}: found {kind_of(value)}; write null or leave it out")
    return row


def _read_again(text: bytes, otherwise: Any) -> Any:
    """Read a row by Python, which is slower and takes more. ``otherwise`` if it cannot or should not."""
    try:
        row = json.loads(text.decode())
        json.dumps(row, ensure_ascii=False).encode()  # half of a surrogate pair is no text
    except (ValueError, RecursionError):
        return otherwise
    return row


def _fault(offset: int, text: bytes, value: Any) -> Fault:
    raw = text[:RAW_BYTES]
    if isinstance(value, _NotFinite):
        return Fault(offset, "broken_json", str(value), raw)
    if not isinstance(value, orjson.JSONDecodeError):
        message = f"expected a JSON object, found {type(value).__name__}"
        if offset == 0 and isinstance(value, list):
            message += "; read an array of rows with format: json"
        return Fault(offset, "not_an_object", message, raw)
    try:
        text.decode()
    except UnicodeDecodeError as exc:
        return Fault(offset, "undecodable_bytes", str(exc), raw)
    lone = "surrogate" in value.msg and _SURROGATE.search(text)
    return Fault(offset, "lone_surrogate" if lone else "broken_json", str(value), raw)
