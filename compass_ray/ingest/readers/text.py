"""Plain text, a document a line or a file, and Markdown with front matter."""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

import pyarrow as pa

from compass_ray.ingest.files import ReadUnit
from compass_ray.ingest.plainyaml import load_plain_yaml
from compass_ray.ingest.readers.batch import (
    BATCH_ROWS,
    Limits,
    RawBatch,
    Unreadable,
    decoded,
    missing_columns,
)
from compass_ray.ingest.readers.fields import json_column
from compass_ray.ingest.readers.streams import check_encoding, open_decoded, read_lines

TEXT = "text"
"""The one column of plain text; the column of what follows the front matter."""

_FRONT_MATTER = re.compile(r"---[ \t]*\r?\n(.*?)^(?:---|\.\.\.)[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
_FRONT_MATTER_BYTES = 64 << 10
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]|\\U0000[dD][89a-fA-F]")


def read_lines_of_text(unit: ReadUnit, columns: list[str], limits: Limits) -> Iterator[RawBatch]:
    """Read each line that is not blank as a document. It goes by the byte offset of its line."""
    _check_columns(columns)
    with open_decoded(unit.file, limits) as stream:
        for block in read_lines(stream, unit.start, unit.end, limits):
            offsets = [*accumulate((len(line) + 1 for line in block.lines), initial=block.offset)]
            if block.offset == 0 and block.lines:
                block.lines[0] = block.lines[0].removeprefix(codecs.BOM_UTF8)
            if block.faults:
                yield RawBatch(faults=block.faults)
            filled = [index for index, line in enumerate(block.lines) if line and not line.isspace()]
            for first in range(0, len(filled), BATCH_ROWS):
                part = filled[first : first + BATCH_ROWS]
                lines = pa.array([block.lines[index] for index in part], pa.binary())
                yield decoded([offsets[index] for index in part], {TEXT: lines.view(pa.string())}, [])


def read_file_of_text(unit: ReadUnit, columns: list[str], limits: Limits) -> Iterator[RawBatch]:
    """Read the file as one document."""
    _check_columns(columns)
    yield RawBatch([0], {TEXT: pa.array([_whole(unit, limits)], pa.string())} if columns else {})


def read_markdown(unit: ReadUnit, columns: list[str], limits: Limits) -> Iterator[RawBatch]:
    """Read one document: the fields of the front matter, and the rest.

    The front matter is YAML between lines of ``---``; the rest is ``text``.
    """
    whole = _whole(unit, limits)
    match = _FRONT_MATTER.match(whole)
    fields = _front_matter(match[1]) if match else {}
    row = {**fields, TEXT: whole[match.end() :] if match else whole}
    yield RawBatch([0], {name: json_column([row], name) for name in columns})


def _check_columns(columns: list[str]) -> None:
    if absent := [name for name in columns if name != TEXT]:
        raise missing_columns(absent, [TEXT])


def _whole(unit: ReadUnit, limits: Limits) -> str:
    data = bytearray()
    with open_decoded(unit.file, limits) as stream:
        while piece := stream.read(limits.row_bytes + 1 - len(data)):
            data += piece
    if len(data) > limits.row_bytes:
        raise Unreadable("row_too_large", f"is longer than {limits.row_bytes:,} bytes; raise ingest.max_row_bytes")
    check_encoding(bytes(data[:4]))
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise Unreadable("undecodable_bytes", str(exc)) from exc


def _front_matter(text: str) -> dict[str, Any]:
    if len(text) > _FRONT_MATTER_BYTES:
        raise Unreadable("broken_front_matter", f"longer than {_FRONT_MATTER_BYTES:,} characters")
    if _SURROGATE.search(text):
        raise Unreadable("lone_surrogate", "the front matter escapes half of a surrogate pair; write the character")
    try:
        fields = load_plain_yaml(text)
    except ValueError as exc:
        raise Unreadable("broken_front_matter", str(exc)) from exc
    if not isinstance(fields, dict | None):
        raise Unreadable("broken_front_matter", f"expected fields with values, found {type(fields).__name__}")
    return {str(name): value for name, value in (fields or {}).items()}
