r"""Files -> rows, format by format. Faults become rows of the quarantine, never exceptions.

Lines are split on ``b"\n"`` alone: ``str.splitlines`` would cut JSON strings that hold U+2028 or
U+0085. A reader yields batches of bounded size, so memory does not grow with the file.
"""

from __future__ import annotations

import csv
import gzip
import io
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast

import orjson
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from compass_ray import storage
from compass_ray.ingest.files import ReadUnit

_CHUNK_BYTES = 8 << 20
_BATCH_ROWS = 1 << 14
MISSING = object()
"""Stands for a field that the row does not have; ``None`` is a JSON null."""


@dataclass(frozen=True)
class Fault:
    """A row, or with ``row`` None a whole file, that cannot be read."""

    row: int | None
    reason: str
    message: str
    raw: bytes = b""


@dataclass
class RawBatch:
    """Parsed rows by column, and the rows that could not be parsed."""

    rows: list[int] = field(default_factory=list)
    columns: dict[str, list[Any]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)


def read(unit: ReadUnit, columns: list[str]) -> Iterator[RawBatch]:
    """Rows of a read unit in batches, with the named columns only.

    ``rows`` are byte offsets of the (decompressed) line for JSON lines, row numbers from 0 elsewhere.
    """
    reader = {"jsonl": _read_jsonl, "csv": _read_csv, "tsv": _read_csv, "parquet": _read_parquet}[unit.file.format]
    try:
        yield from reader(unit, columns)
    except EOFError as exc:
        yield RawBatch(faults=[Fault(None, "truncated_file", f"compressed data end too early: {exc}")])
    except (gzip.BadGzipFile, zlib.error) as exc:
        yield RawBatch(faults=[Fault(None, "corrupt_file", f"not gzip data: {exc}")])


def _open(unit: ReadUnit) -> BinaryIO:
    stream = storage.open_input(unit.file.url)
    return cast(BinaryIO, gzip.open(stream)) if unit.file.compressed else stream


def _lines(stream: BinaryIO, start: int, end: int | None) -> Iterator[tuple[int, bytes]]:
    """Lines that start in ``[start, end)`` with their offsets; the last may run past ``end``."""
    offset = start
    if start:
        stream.seek(start - 1)
        offset = start - 1 + len(stream.readline())
    for line in stream:
        if end is not None and offset >= end:
            return
        yield offset, line
        offset += len(line)


def _read_jsonl(unit: ReadUnit, columns: list[str]) -> Iterator[RawBatch]:
    batch = RawBatch(columns={name: [] for name in columns})
    with _open(unit) as stream:
        lines = _lines(stream, unit.start, unit.end)
        while True:
            try:
                offset, line = next(lines)
            except StopIteration:
                break
            except (EOFError, zlib.error, gzip.BadGzipFile):
                yield batch  # what was read before the damage counts
                raise
            if line.isspace():
                continue
            if len(batch.rows) + len(batch.faults) >= _BATCH_ROWS:
                yield batch
                batch = RawBatch(columns={name: [] for name in columns})
            try:
                row = orjson.loads(line.removeprefix(b"\xef\xbb\xbf") if offset == 0 else line)
            except orjson.JSONDecodeError as exc:
                batch.faults.append(_json_fault(offset, line, exc))
                continue
            if not isinstance(row, dict):
                message = f"expected a JSON object, found {type(row).__name__}"
                batch.faults.append(Fault(offset, "not_an_object", message, line))
                continue
            batch.rows.append(offset)
            for name in columns:
                batch.columns[name].append(row.get(name, MISSING))
    yield batch


def _json_fault(offset: int, line: bytes, exc: orjson.JSONDecodeError) -> Fault:
    try:
        line.decode()
    except UnicodeDecodeError as decode_error:
        return Fault(offset, "undecodable_bytes", str(decode_error), line)
    return Fault(offset, "broken_json", str(exc), line)


def _read_csv(unit: ReadUnit, columns: list[str]) -> Iterator[RawBatch]:
    """Quoted CSV or TSV with a header. Values are read as bytes and decoded one by one, so that a
    bad byte costs its row and not its file.
    """
    delimiter = "\t" if unit.file.format == "tsv" else ","
    with _open(unit) as stream:
        try:
            header = _header(stream, delimiter)
        except csv.Error as exc:
            yield RawBatch(faults=[Fault(None, "broken_csv", f"unreadable header: {exc}")])
            return
    absent = [name for name in columns if name not in header]
    if absent:
        yield RawBatch(faults=[_missing_columns(absent, header)])
        return
    skipped: list[Fault] = []
    skipped_at: set[int] = set()

    def skip(row: Any) -> str:
        message = f"expected {row.expected_columns} columns, found {row.actual_columns}"
        number = row.number - 2  # counted from 1, the header included
        skipped_at.add(number)
        skipped.append(Fault(number, "wrong_column_count", message, row.text.encode("utf-8", "replace")))
        return "skip"

    with _open(unit) as stream:
        try:
            reader = pa_csv.open_csv(
                stream,
                read_options=pa_csv.ReadOptions(use_threads=False, block_size=_CHUNK_BYTES),
                parse_options=pa_csv.ParseOptions(
                    delimiter=delimiter, newlines_in_values=True, invalid_row_handler=skip
                ),
                convert_options=pa_csv.ConvertOptions(
                    column_types={name: pa.binary() for name in header},
                    include_columns=columns,
                    strings_can_be_null=False,
                ),
            )
            number = 0
            for record_batch in reader:
                batch = RawBatch(columns={name: [] for name in columns}, faults=skipped[:])
                skipped.clear()
                values = {name: record_batch.column(name).to_pylist() for name in columns}
                for index in range(record_batch.num_rows):
                    while number in skipped_at:
                        number += 1
                    _append_decoded(batch, number, {name: values[name][index] for name in columns})
                    number += 1
                yield batch
        except pa.ArrowInvalid as exc:
            yield RawBatch(faults=[*skipped, Fault(None, "broken_csv", str(exc))])
        else:
            yield RawBatch(faults=skipped)


def _header(stream: BinaryIO, delimiter: str) -> list[str]:
    text = io.TextIOWrapper(stream, encoding="utf-8-sig", errors="replace", newline="")
    return next(csv.reader(text, delimiter=delimiter), [])


def _append_decoded(batch: RawBatch, number: int, values: dict[str, bytes]) -> None:
    try:
        decoded = {name: value.decode() for name, value in values.items()}
    except UnicodeDecodeError as exc:
        batch.faults.append(Fault(number, "undecodable_bytes", str(exc), b"\t".join(values.values())))
        return
    batch.rows.append(number)
    for name, value in decoded.items():
        batch.columns[name].append(value)


def _read_parquet(unit: ReadUnit, columns: list[str]) -> Iterator[RawBatch]:
    with storage.open_input(unit.file.url) as stream:
        try:
            file = pq.ParquetFile(stream)
        except (pa.ArrowInvalid, OSError) as exc:
            _raise_if_of_the_system(exc)
            yield RawBatch(faults=[Fault(None, "corrupt_file", f"not a Parquet file: {exc}")])
            return
        absent = [name for name in columns if name not in file.schema_arrow.names]
        if absent:
            yield RawBatch(faults=[_missing_columns(absent, file.schema_arrow.names)])
            return
        start = 0
        for group in range(file.num_row_groups):
            number, start = start, start + file.metadata.row_group(group).num_rows
            try:
                for record_batch in file.iter_batches(
                    _BATCH_ROWS, row_groups=[group], columns=columns, use_threads=False
                ):
                    values = {name: record_batch.column(name).to_pylist() for name in columns}
                    yield RawBatch(rows=[*range(number, number + record_batch.num_rows)], columns=values)
                    number += record_batch.num_rows
            except (OSError, pa.ArrowException, UnicodeDecodeError) as exc:
                _raise_if_of_the_system(exc)
                message = f"row group {group} of {file.num_row_groups}: {exc}"
                yield RawBatch(faults=[Fault(number, "unreadable_row_group", message)])


def _raise_if_of_the_system(exc: Exception) -> None:
    """Arrow says OSError of bad data, too; the operating system numbers its own: a failing disk is not a bad file."""
    if isinstance(exc, OSError) and exc.errno is not None:
        raise exc


def _missing_columns(absent: list[str], present: list[str]) -> Fault:
    return Fault(None, "missing_column", f"expected {', '.join(absent)}; the file has {', '.join(present[:50])}")
