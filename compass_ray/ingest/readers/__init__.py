"""Files -> rows, a module a format. Faults become rows of the quarantine, never exceptions.

A reader yields batches of bounded size, so memory does not grow with the file. Cost: one pass over the bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pkgutil import resolve_name

from compass_ray.ingest.files import ReadUnit
from compass_ray.ingest.formats import FORMATS
from compass_ray.ingest.readers.batch import MISSING, Fault, Limits, RawBatch, Unreadable

__all__ = ["MISSING", "Fault", "Limits", "RawBatch", "Unreadable", "read"]

Reader = Callable[[ReadUnit, list[str], Limits], Iterator[RawBatch]]


def reader_of(name: str) -> Reader:
    """Load what reads a format."""
    found: Reader = resolve_name(FORMATS[name].reader)
    return found


def read(unit: ReadUnit, columns: list[str], limits: Limits = Limits()) -> Iterator[RawBatch]:  # noqa: B008 immutable
    """Read the rows of a unit in batches, with the named columns only.

    Parameters
    ----------
    columns : list of str
        Names or dotted paths.
    limits : Limits

    Yields
    ------
    RawBatch
        ``rows`` are byte offsets in the decompressed file for JSON and for lines of text, row numbers from 0 elsewhere.

    Raises
    ------
    CompassError, OSError
        If storage fails; data never raise.
    """
    read_rows = 0
    try:
        for batch in reader_of(unit.file.format)(unit, columns, limits):
            read_rows += len(batch.rows) + len(batch.faults)
            yield batch
    except Unreadable as exc:
        if FORMATS[unit.file.format].one_row:
            exc.rows = 1
        if exc.rows is None:
            whole = 0 if read_rows else (unit.end or unit.file.size) - unit.start
            lost = max(whole, exc.lost_bytes or 0)
            yield RawBatch(faults=[Fault(None, exc.reason, exc.message, rows=None, lost_bytes=lost)])
        else:
            yield RawBatch(faults=[Fault(None, exc.reason, exc.message, rows=max(1, exc.rows))])
