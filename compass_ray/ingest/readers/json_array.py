"""One JSON array of objects a file, element by element: the array is never held.

Element borders are found by one regular expression that passes over strings whole; each element is then parsed as a
line would be, so that a broken one costs itself alone.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from typing import BinaryIO

from compass_ray.ingest.files import ReadUnit
from compass_ray.ingest.readers.batch import BATCH_ROWS, CHUNK_BYTES, Limits, RawBatch, Unreadable
from compass_ray.ingest.readers.jsonl import parse, read_jsonl
from compass_ray.ingest.readers.streams import check_encoding, chunks, open_decoded

_HEAD_BYTES = 64 << 10
_TOKEN = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"|["\[\]{},]', re.DOTALL)
_QUOTE, _COMMA = b'",'
_OPENING, _CLOSING = frozenset(b"[{"), frozenset(b"]}")

Element = tuple[int, bytes]


def read_json(unit: ReadUnit, columns: list[str], limits: Limits) -> Iterator[RawBatch]:
    """Read rows by the byte offset of their element. A file that begins with no array is read as JSON lines."""
    with open_decoded(unit.file, limits) as stream:
        head = stream.read(_HEAD_BYTES)
    check_encoding(head)
    if not head.removeprefix(codecs.BOM_UTF8).lstrip().startswith(b"["):
        yield from read_jsonl(unit, columns, limits)
        return
    held: list[Element] = []
    size = 0
    with open_decoded(unit.file, limits) as stream:
        try:
            for offset, text in _elements(stream, limits):
                held.append((offset, text))
                size += len(text)
                if len(held) >= BATCH_ROWS or size > CHUNK_BYTES:
                    yield _batch(held, columns)
                    held, size = [], 0
        except Unreadable:
            yield _batch(held, columns)
            raise
    yield _batch(held, columns)


def _batch(elements: list[Element], columns: list[str]) -> RawBatch:
    return parse([text for _, text in elements], [offset for offset, _ in elements], columns)


def _elements(stream: BinaryIO, limits: Limits) -> Iterator[Element]:
    data, base = b"", 0  # bytes not yet passed on, and where they begin
    start, scanned, depth = 0, 0, 0  # in data: of the element, of what was not scanned; and how deep that is
    closed = False
    pieces = chunks(stream, CHUNK_BYTES)
    for piece in pieces:
        data += piece
        at = scanned
        for token in _TOKEN.finditer(data, scanned):
            at = token.end()
            kind = data[token.start()]
            if kind == _QUOTE:
                if token.end() - token.start() == 1:  # a string that goes on in what was not read yet
                    at = token.start()
                    break
            elif kind in _OPENING:
                depth += 1
                if depth == 1:
                    start = token.end()
            elif kind == _COMMA:
                if depth == 1:
                    yield base + start, data[start : token.start()]
                    start = token.end()
            else:
                depth -= 1
                if depth == 0:
                    yield base + start, data[start : token.start()]
                    closed = True
                    start = at
                    break
        else:
            at = len(data)
        if closed:
            break
        base, data, scanned, start = base + start, data[start:], at - start, 0
        if len(data) > limits.row_bytes:
            message = f"the element at byte {base} is longer than {limits.row_bytes:,} bytes"
            raise Unreadable("row_too_large", f"{message}; what follows is not read; raise ingest.max_row_bytes", base)
    if not closed:
        raise Unreadable("truncated_file", f"the array is not closed; its last element begins at byte {base}")
    if data[start:].strip() or any(piece.strip() for piece in pieces):
        raise Unreadable("broken_json", f"the array ends at byte {base + start}, but the file goes on", base + start)
