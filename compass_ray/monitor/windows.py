"""Usage cut into windows of time, and counted by cluster."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from compass_ray import records
from compass_ray.monitor.config import Period
from compass_ray.text import EXEMPLAR_CHARACTERS, shorten, without_controls

Counts = NDArray[np.int64]
Flags = NDArray[np.bool_]

_KEYS = ["target_lang", "start", "cluster"]
_MONDAY = 4
"""Days from the epoch, a Thursday, to the first Monday."""


def window_starts(timestamps: pa.ChunkedArray, period: Period) -> pa.Array:
    """Find when the window of each document began.

    That is midnight UTC of the day, of Monday, or of the first of the month.

    Parameters
    ----------
    timestamps : ChunkedArray of timestamp("us", tz="UTC")

    Returns
    -------
    Array of timestamp("us", tz="UTC")
        Null where the timestamp is; all null for the period ``all``.
    """
    kind = records.WINDOW.field("start").type
    if period == "all":
        return pa.nulls(len(timestamps), kind)
    days = timestamps.to_numpy().astype("datetime64[D]")
    if period == "week":
        days = days - (days.astype(np.int64) - _MONDAY) % 7
    elif period == "month":
        days = days.astype("datetime64[M]")
    missing = np.asarray(pc.is_null(timestamps))
    return pa.array(days.astype("datetime64[us]"), kind, mask=missing)


def window_of(moment: datetime, period: Period) -> datetime:
    """Find when the window of a moment began; the period is not ``all``."""
    column = pa.chunked_array([pa.array([moment], records.WINDOW.field("start").type)])
    start: datetime = window_starts(column, period)[0].as_py()
    return start


def window_after(start: datetime, period: Period, periods: int = 1) -> datetime:
    """Find when a window begins that is so many periods after another, or before it; the period is not ``all``."""
    if period != "month":
        return start + timedelta(days=periods * (7 if period == "week" else 1))
    year, month = divmod(start.year * 12 + start.month - 1 + periods, 12)
    return datetime(year, month + 1, 1, tzinfo=UTC)


def left_out(timestamps: pa.ChunkedArray, period: Period, as_of: datetime | None) -> tuple[Flags, Flags]:
    """Tell which documents are in no window: those without a timestamp that the period needs, and those of later."""
    missing = np.asarray(pc.is_null(timestamps))
    later = np.zeros(len(timestamps), dtype=np.bool_)
    if as_of is not None:
        later = np.asarray(pc.fill_null(pc.greater(timestamps, pa.scalar(as_of, timestamps.type)), False))
    return missing & (period != "all"), later


def shard_windows(
    documents: pa.Table, assignments: pa.Table, period: Period, n_clusters: int, as_of: datetime | None = None
) -> tuple[pa.Table, dict[str, int]]:
    """Count one shard.

    Parameters
    ----------
    documents : Table
        Columns doc_id, text and timestamp.
    assignments : Table of schema ASSIGNMENT
        Of these documents, but for those without a finite vector.
    period : str
    n_clusters : int
    as_of : datetime, optional
        With a time zone. What is dated later is left out.

    Returns
    -------
    windows : Table of schema WINDOW
    left_out : dict of str to int
        Documents that are in none: ``undated`` ones, where the period needs a timestamp, and those dated ``later``.
    """
    rows = assignments
    embedded = pc.is_in(documents["doc_id"], value_set=rows["doc_id"].combine_chunks())
    found = documents.filter(embedded)  # in the same order: repeats share an id, and have timestamps of their own
    starts = window_starts(found["timestamp"], period)
    undated, later = left_out(found["timestamp"], period, as_of)
    counted = pa.table(
        {
            "target_lang": rows["target_lang"],
            "start": starts,
            "cluster": pc.if_else(rows["outlier"], pa.scalar(n_clusters, pa.int32()), rows["cluster"]),
            "documents": pa.array(np.ones(rows.num_rows, dtype=np.int64)),
            "similarity": rows["similarity"],
            "exemplar": found["text"],
        }
    )
    windows = merge([counted.filter(pa.array(~later & ~undated))])
    shown = [shorten(without_controls(text), EXEMPLAR_CHARACTERS) for text in windows["exemplar"].to_pylist()]
    place = windows.column_names.index("exemplar")
    out = {"undated": int(undated.sum()), "later": int(later.sum())}
    return windows.set_column(place, "exemplar", pa.array(shown, pa.string())), out


def merge(windows: Iterable[pa.Table]) -> pa.Table:
    """Add up window tables. The sum is the same whatever their order and grouping."""
    rows = pa.concat_tables([table.select(records.WINDOW.names).cast(records.WINDOW) for table in windows])
    rows = rows.sort_by([("similarity", "descending"), ("exemplar", "ascending")])
    nearest = [("documents", "sum"), ("similarity", "first"), ("exemplar", "first")]
    total = rows.group_by(_KEYS, use_threads=False).aggregate(nearest)  # "first" needs the order
    total = total.rename_columns({f"{name}_{how}": name for name, how in nearest})
    ordered = total.sort_by([(key, "ascending") for key in _KEYS])
    return ordered.select(records.WINDOW.names).cast(records.WINDOW).combine_chunks()


def histogram(clusters: pa.ChunkedArray, documents: pa.ChunkedArray, n_clusters: int) -> Counts:
    """Count documents by cluster, shape (n_clusters + 1,), the outlier bin last."""
    weights = documents.to_numpy()
    return np.bincount(clusters.to_numpy(), weights=weights, minlength=n_clusters + 1).astype(np.int64)
