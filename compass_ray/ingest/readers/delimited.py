"""CSV and TSV with a header, quoted or not.

Values are read as bytes and checked batch by batch, so that a bad byte costs its row and not its file.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from itertools import count, islice
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.csv as pa_csv

from compass_ray.ingest.files import ReadUnit
from compass_ray.ingest.readers.batch import (
    CHUNK_BYTES,
    RAW_BYTES,
    Fault,
    Limits,
    RawBatch,
    Unreadable,
    decoded,
    missing_columns,
)
from compass_ray.ingest.readers.fields import check_unambiguous
from compass_ray.ingest.readers.streams import check_encoding, chunks, open_decoded


def read_delimited(unit: ReadUnit, columns: list[str], limits: Limits) -> Iterator[RawBatch]:
    """Rows by their number, those with a wrong number of columns counted; a row is at most 4 MiB long."""
    delimiter = "\t" if unit.file.format == "tsv" else ","
    with open_decoded(unit.file, limits) as stream:
        header = _header(stream, delimiter)
    if absent := [name for name in columns if name not in header]:
        raise missing_columns(absent, header)
    check_unambiguous(columns, header)
    skipped: list[Fault] = []
    skipped_at: set[int] = set()

    def skip(row: Any) -> str:
        message = f"expected {row.expected_columns} columns, found {row.actual_columns}"
        number = row.number - 2  # counted from 1, the header included
        skipped_at.add(number)
        raw = row.text.encode("utf-8", "replace")[:RAW_BYTES]
        skipped.append(Fault(number, "wrong_column_count", message, raw))
        return "skip"

    numbers = (number for number in count() if number not in skipped_at)
    with open_decoded(unit.file, limits) as stream:
        blocks = _Blocks(stream)
        try:
            reader = pa_csv.open_csv(
                blocks,
                read_options=pa_csv.ReadOptions(use_threads=False, block_size=CHUNK_BYTES),
                parse_options=pa_csv.ParseOptions(
                    delimiter=delimiter, newlines_in_values=True, invalid_row_handler=skip
                ),
                convert_options=pa_csv.ConvertOptions(
                    column_types={name: pa.binary() for name in header},
                    include_columns=columns,
                    strings_can_be_null=False,
                ),
            )
            for record_batch in reader:
                faults = skipped[:]
                skipped.clear()
                rows = [*islice(numbers, record_batch.num_rows)]
                yield decoded(rows, {name: record_batch[name].view(pa.string()) for name in columns}, faults)
        except pa.ArrowInvalid as exc:
            yield RawBatch(faults=skipped)
            raise blocks.damage or Unreadable("broken_csv", str(exc)) from exc
        yield RawBatch(faults=skipped)
        if blocks.damage:
            raise blocks.damage


class _Blocks(io.RawIOBase):
    """A stream in full blocks: Arrow takes what one read returns for a block, and no row may be longer than that.

    At damage it ends after the last line that is whole, so that Arrow hands on the rows before; ``damage`` is then set.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._chunks = chunks(stream, CHUNK_BYTES)
        self._held = b""
        self._next = b""
        self.damage: Unreadable | None = None
        self._advance()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._held:
            self._advance()
        piece = self._held[: len(buffer)]
        self._held = self._held[len(piece) :]
        buffer[: len(piece)] = piece
        return len(piece)

    def _advance(self) -> None:
        """Move on to the next block, knowing whether it is the last."""
        self._held = self._next
        try:
            self._next = b"" if self.damage else next(self._chunks, b"")
        except Unreadable as exc:
            self.damage, self._next = exc, b""
            self._held = self._held[: self._held.rfind(b"\n") + 1]


def _header(stream: BinaryIO, delimiter: str) -> list[str]:
    head = next(chunks(stream, CHUNK_BYTES), b"")
    check_encoding(head)
    text = io.TextIOWrapper(io.BytesIO(head), encoding="utf-8-sig", errors="replace", newline="")
    try:
        return next(csv.reader(text, delimiter=delimiter), [])
    except csv.Error as exc:
        raise Unreadable("broken_csv", f"unreadable header: {exc}") from exc
