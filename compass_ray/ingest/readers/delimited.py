"""CSV, TSV and their like, in any dialect: see :mod:`compass_ray.ingest.readers.grammar`.

Values are read as bytes and checked batch by batch, so that a bad byte costs its row and not its file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import BinaryIO

from compass_ray.ingest.config import is_position
from compass_ray.ingest.files import InputFile, ReadUnit
from compass_ray.ingest.readers.batch import CHUNK_BYTES, Limits, RawBatch, Unreadable, missing_columns
from compass_ray.ingest.readers.dialects import lay_out
from compass_ray.ingest.readers.fields import check_unambiguous
from compass_ray.ingest.readers.grammar import Layout
from compass_ray.ingest.readers.records import BOM, Records
from compass_ray.ingest.readers.streams import check_encoding, chunks, open_decoded


def read_delimited(unit: ReadUnit, columns: list[str], limits: Limits) -> Iterator[RawBatch]:
    """Rows by their number; faults are counted, blank lines are not."""
    with open_decoded(unit.file, limits) as stream:
        blocks = _blocks(stream)
        data, last = next(blocks, (b"", True))
        check_encoding(data)
        data = data.removeprefix(BOM)
        if not (data.strip(b"\r\n") or unit.file.dialect.header):
            return
        layout, start = lay_out(data, last, unit.file.format, unit.file.dialect, columns)
        if absent := [name for name in columns if name not in layout.names]:
            raise _missing(absent, layout)
        check_unambiguous(columns, layout.names)
        records = Records(layout, columns, limits)
        held = data[start:]
        while True:
            batch, used = records.read(held, last)
            yield batch
            if last:
                return
            data, last = next(blocks)
            held = held[used:] + data


def layout_of(file: InputFile, columns: Sequence[str], limits: Limits) -> Layout:
    """How a file is written, as a reader of these columns takes it.

    Raises
    ------
    Unreadable
        If its beginning cannot be read.
    """
    with open_decoded(file, limits) as stream:
        data, last = next(_blocks(stream), (b"", True))
    check_encoding(data)
    return lay_out(data.removeprefix(BOM), last, file.format, file.dialect, columns)[0]


def count_records(data: bytes, whole: bool, file: InputFile, columns: Sequence[str]) -> int:
    """Rows and faults in the beginning of a file, or in all of it (``whole``); one if it cannot be read."""
    data = data.removeprefix(BOM)
    try:
        layout, start = lay_out(data, whole, file.format, file.dialect, columns)
        batch, _ = Records(layout, (), Limits()).read(data[start:], whole)
    except Unreadable:
        return 1
    return len(batch.rows) + len(batch.faults)


def _missing(absent: list[str], layout: Layout) -> Unreadable:
    fault = missing_columns(absent, layout.names)
    if layout.header and all(map(is_position, absent)):
        return Unreadable(fault.reason, f"{fault.message}; say header: none if its first line is a row")
    return fault


def _blocks(stream: BinaryIO) -> Iterator[tuple[bytes, bool]]:
    """A stream in full blocks, and whether each is the last; at damage, what was read before it and then the error."""
    pieces = chunks(stream, CHUNK_BYTES)
    held = next(pieces, b"")
    damage = None
    while held and damage is None:
        try:
            following = next(pieces, b"")
        except Unreadable as exc:
            damage, following = exc, b""
        yield held, not following and damage is None
        held = following
    if damage is not None:
        raise damage
