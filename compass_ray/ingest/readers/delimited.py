"""CSV, TSV and their like, in any dialect: see :mod:`compass_ray.ingest.readers.grammar`.

Values are read as bytes and checked batch by batch, so that a bad byte costs its row and not its file.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

from compass_ray.ingest.config import is_position
from compass_ray.ingest.files import InputFile, ReadUnit
from compass_ray.ingest.readers.batch import CHUNK_BYTES, Limits, RawBatch, Unreadable, missing_columns
from compass_ray.ingest.readers.dialects import lay_out
from compass_ray.ingest.readers.fields import check_unambiguous
from compass_ray.ingest.readers.grammar import BOM, Layout
from compass_ray.ingest.readers.records import Records
from compass_ray.ingest.readers.streams import check_encoding, open_decoded


def read_delimited(unit: ReadUnit, columns: list[str], limits: Limits) -> Iterator[RawBatch]:
    """Read rows by their number. Faults are counted, blank lines are not."""
    with open_decoded(unit.file, limits) as stream:
        blocks = _Blocks(stream)
        data = blocks.read()
        check_encoding(bytes(data[:4]))
        if not (unit.file.dialect.header or data.removeprefix(BOM).strip(b"\r\n")):
            return
        layout, start = lay_out(data, blocks.last, unit.file.format, unit.file.dialect, columns)
        if absent := [name for name in columns if name not in layout.names]:
            raise _missing(absent, layout)
        check_unambiguous(columns, layout.names)
        records = Records(layout, columns, limits)
        data = data[start:]
        while True:
            batch, used = records.read(data, blocks.last)
            yield batch
            if blocks.last:
                return
            data = blocks.read(data[used:])


def layout_of(file: InputFile, columns: Sequence[str], limits: Limits) -> Layout:
    """Tell how a reader of these columns takes a file to be written.

    Raises
    ------
    Unreadable
        If its beginning cannot be read.
    """
    with open_decoded(file, limits) as stream:
        blocks = _Blocks(stream)
        data = blocks.read()
    check_encoding(bytes(data[:4]))
    return lay_out(data, blocks.last, file.format, file.dialect, columns)[0]


def count_records(data: bytes, whole: bool, file: InputFile, columns: Sequence[str]) -> int:
    """Count rows and faults in the beginning of a file. With ``whole`` that is all of it. One if it cannot be read."""
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


class _Blocks:
    """A stream in blocks, each of which begins with what was left of the one before.

    ``last`` says that the stream ends with the block. At damage the next read after what could be read raises.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream: Any = stream
        self._damage: Unreadable | None = None
        self.last = False

    def read(self, held: bytes | bytearray = b"") -> bytearray:
        if self._damage is not None:
            raise self._damage
        data = bytearray(len(held) + CHUNK_BYTES)
        data[: len(held)] = held
        have = len(held)
        try:
            with memoryview(data) as view:
                while have < len(data) and (count := self._stream.readinto(view[have:])):
                    have += count
        except Unreadable as exc:
            if have == len(held):
                raise
            self._damage = exc
        self.last = have < len(data) and self._damage is None
        return (
            data if have == len(data) else data[:have]
        )  # not cut in place: a decoder that raised may still see the buffer
