"""Arrow streams: what Hugging Face ``datasets`` keeps in the folders of ``save_to_disk``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO

import pyarrow as pa

from compass_ray import storage
from compass_ray.ingest.files import ReadUnit
from compass_ray.ingest.readers.batch import BATCH_ROWS, Limits, RawBatch, Unreadable, decoded
from compass_ray.ingest.readers.fields import arrow_columns, follow_lists, holders
from compass_ray.ingest.readers.streams import Prefixed

_FILE_MAGIC = b"ARROW1\0\0"
_CONTINUATION = b"\xff\xff\xff\xff"
_EXTENSION, _HIDDEN = b"ARROW:extension:name", b"arrow_extension_name"  # of equal length
_SCHEMA_BYTES = 64 << 20


def read_arrow(unit: ReadUnit, columns: list[str], limits: Limits) -> Iterator[RawBatch]:
    """Read rows by their number, from the stream or the file format. The latter is a stream between two marks."""
    with storage.open_input(unit.file.url) as stream:
        number = size = used = 0
        try:
            reader = pa.ipc.open_stream(Prefixed(_schema_message(stream), stream))
            holders(reader.schema, columns)
            for record_batch in reader:
                size += record_batch.nbytes
                if size > limits.file_bytes:
                    raise Unreadable("too_large", f"holds more than {limits.file_bytes:,} bytes")
                for first in range(0, record_batch.num_rows, BATCH_ROWS):
                    part = record_batch.slice(first, BATCH_ROWS)
                    numbers = range(number, number + part.num_rows)
                    yield follow_lists(decoded(numbers, arrow_columns(part, columns), []), reader.schema)
                    number += part.num_rows
                used = stream.tell()
        except Unreadable as exc:
            exc.lost_bytes = unit.file.size - stream.tell()
            raise
        except (pa.ArrowException, OSError) as exc:
            if isinstance(exc, OSError) and exc.errno is not None:
                raise
            broken = Unreadable("corrupt_file", f"not an Arrow stream after row {number}: {exc}")
            broken.lost_bytes = unit.file.size - used
            raise broken from exc


def first_batch(stream: BinaryIO) -> pa.RecordBatch:
    """Read the first record batch. The stream then stands behind it.

    Raises
    ------
    Unreadable
        If there is none.
    """
    try:
        return pa.ipc.open_stream(Prefixed(_schema_message(stream), stream)).read_next_batch()
    except (pa.ArrowException, StopIteration) as exc:
        raise Unreadable("corrupt_file", f"not an Arrow stream: {exc}") from exc


def _schema_message(stream: BinaryIO) -> bytes:
    """Read the first message, in which no extension type has its name.

    See :mod:`compass_ray.ingest.readers.parquet`.
    """
    mark = stream.read(8)
    if mark == _FILE_MAGIC:
        mark = stream.read(8)
    length = int.from_bytes(mark[4:], "little")
    if not mark.startswith(_CONTINUATION) or length > _SCHEMA_BYTES:
        raise Unreadable("corrupt_file", f"not an Arrow stream: it begins with {mark!r}")
    return mark + stream.read(length).replace(_EXTENSION, _HIDDEN)
