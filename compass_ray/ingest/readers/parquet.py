"""Parquet, row group by row group.

The schema that Arrow's writers hide in the footer is left out: it can name extension types, and one that this process
happens to know (Ray registers some) may run the file's own bytes as a pickle. What is left is what Parquet itself says.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from compass_ray import storage
from compass_ray.ingest.files import ReadUnit
from compass_ray.ingest.readers.batch import (
    BATCH_ROWS,
    CHUNK_BYTES,
    Fault,
    Limits,
    RawBatch,
    Unreadable,
    decoded,
)
from compass_ray.ingest.readers.fields import arrow_columns, follow_lists, holders

_MAGIC = b"PAR1"
_ARROW_SCHEMA, _HIDDEN = b"ARROW:schema", b"arrow_schema"  # of equal length


def read_parquet(unit: ReadUnit, columns: list[str], limits: Limits) -> Iterator[RawBatch]:
    """Read rows by their number. A damaged row group costs itself alone."""
    with storage.open_input(unit.file.url) as stream:
        metadata = read_footer(stream)
        number = 0
        try:
            for number, batch in _batches(stream, metadata, columns, limits):  # noqa: B007
                yield batch
        except Unreadable as exc:
            exc.rows = metadata.num_rows - number
            raise


def _batches(
    stream: BinaryIO, metadata: pq.FileMetaData, columns: list[str], limits: Limits
) -> Iterator[tuple[int, RawBatch]]:
    """Yield batches, each with the number of the row behind it."""
    try:
        file = pq.ParquetFile(stream, metadata=metadata, buffer_size=CHUNK_BYTES)
    except pa.ArrowException as exc:
        raise Unreadable("corrupt_file", f"a schema that cannot be read: {exc}") from exc
    schema = file.schema_arrow
    needed = holders(schema, columns)
    start = size = 0
    for group in range(metadata.num_row_groups):
        about = metadata.row_group(group)
        number, start = start, start + about.num_rows
        rows = max(1, min(BATCH_ROWS, CHUNK_BYTES * max(1, about.num_rows) // max(1, about.total_byte_size)))
        try:
            for record_batch in file.iter_batches(rows, row_groups=[group], columns=needed, use_threads=False):
                numbers = range(number, number + record_batch.num_rows)
                size += record_batch.nbytes
                if size > limits.file_bytes:
                    raise Unreadable("too_large", f"holds more than {limits.file_bytes:,} bytes")
                number += record_batch.num_rows
                yield number, follow_lists(decoded(numbers, arrow_columns(record_batch, columns), []), schema)
        except (OSError, pa.ArrowException) as exc:
            if isinstance(exc, OSError) and exc.errno is not None:
                raise
            message = f"row group {group} of {metadata.num_row_groups}: {exc}"
            yield start, RawBatch(faults=[Fault(number, "unreadable_row_group", message, rows=start - number)])


def read_footer(stream: BinaryIO) -> pq.FileMetaData:
    """Read the footer without Arrow's own schema.

    Raises
    ------
    Unreadable
        ``corrupt_file``, if this is no Parquet file.
    """
    size = stream.seek(0, 2)
    stream.seek(max(0, size - 8))
    tail = stream.read(8)
    length = int.from_bytes(tail[:4], "little")
    if size < 12 or tail[4:] != _MAGIC or length > size - 12:
        raise Unreadable("corrupt_file", f"not a Parquet file: its last bytes are {tail!r}")
    stream.seek(size - 8 - length)
    footer = stream.read(length).replace(_ARROW_SCHEMA, _HIDDEN)
    try:
        return pq.ParquetFile(pa.BufferReader(_MAGIC + footer + tail)).metadata
    except (pa.ArrowException, OSError) as exc:
        raise Unreadable("corrupt_file", f"not a Parquet file: {exc}") from exc
