"""JSON lines: an object a line, in byte ranges where the file is not compressed."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import orjson

from compass_ray.ingest.files import ReadUnit
from compass_ray.ingest.readers.batch import BATCH_ROWS, RAW_BYTES, Fault, Limits, RawBatch
from compass_ray.ingest.readers.fields import json_column
from compass_ray.ingest.readers.streams import open_decoded, read_lines

_BLANK = object()
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def read_jsonl(unit: ReadUnit, columns: list[str], limits: Limits) -> Iterator[RawBatch]:
    """Rows by the byte offset of their line, after decompression."""
    with open_decoded(unit.file, limits) as stream:
        for block in read_lines(stream, unit.start, unit.end, limits):
            offsets = [*accumulate((len(line) + 1 for line in block.lines), initial=block.offset)]
            if block.offset == 0 and block.lines:
                block.lines[0] = block.lines[0].removeprefix(codecs.BOM_UTF8)
            if block.faults:
                yield RawBatch(faults=block.faults)
            for first in range(0, len(block.lines), BATCH_ROWS):
                part = slice(first, first + BATCH_ROWS)
                yield parse(block.lines[part], offsets[part], columns)


def parse(texts: list[bytes], offsets: list[int], columns: list[str]) -> RawBatch:
    """One batch from the JSON text of each row; blank ones are passed over, broken ones become faults."""
    parsed: list[Any] = []
    loads, keep = orjson.loads, parsed.append
    for text in texts:
        try:
            keep(_BLANK if not text or text.isspace() else loads(text))
        except orjson.JSONDecodeError as exc:
            keep(exc)
    faults: list[Fault] = []
    if any(kind is not dict for kind in set(map(type, parsed))):
        sound = [index for index, value in enumerate(parsed) if type(value) is dict]
        faults = [
            _fault(offset, text, value)
            for offset, text, value in zip(offsets, texts, parsed, strict=False)
            if type(value) is not dict and value is not _BLANK
        ]
        parsed, offsets = [parsed[index] for index in sound], [offsets[index] for index in sound]
    return RawBatch(offsets[: len(parsed)], {name: json_column(parsed, name) for name in columns}, faults)


def _fault(offset: int, text: bytes, value: Any) -> Fault:
    raw = text[:RAW_BYTES]
    if not isinstance(value, orjson.JSONDecodeError):
        return Fault(offset, "not_an_object", f"expected a JSON object, found {type(value).__name__}", raw)
    try:
        text.decode()
    except UnicodeDecodeError as exc:
        return Fault(offset, "undecodable_bytes", str(exc), raw)
    lone = "surrogate" in value.msg and _SURROGATE.search(text)
    return Fault(offset, "lone_surrogate" if lone else "broken_json", str(value), raw)
