"""Bits per byte of many documents, from their losses."""

from __future__ import annotations

import math

import pyarrow as pa

from compass_ray import records

GROUPS = ("adapter", "measures", "target_lang", "lang")
_SUMS = ("nats", "tokens", "bytes")


def bits_per_byte(losses: pa.Table) -> pa.Table:
    """Spread the loss of all documents of a group over all their bytes.

    Parameters
    ----------
    losses : Table
        Schema ``records.LOSS``.

    Returns
    -------
    Table
        One row a group, in the order of :data:`GROUPS` (``measures`` in that of ``records.PROBES``). Columns: the
        groups'; ``documents``, ``tokens`` and ``bytes`` (int64); ``bits_per_byte`` (float64), null where no predicted
        token spells a byte.
    """
    ordered = losses.sort_by([*((name, "ascending") for name in GROUPS)])
    grouped = ordered.group_by(list(GROUPS), use_threads=False)  # one thread: floats add up in the order of rows
    sums = grouped.aggregate([([], "count_all"), *((name, "sum") for name in _SUMS)]).to_pylist()
    rows = [
        {
            **{name: row[name] for name in GROUPS},
            "documents": row["count_all"],
            "tokens": row["tokens_sum"],
            "bytes": row["bytes_sum"],
            "bits_per_byte": row["nats_sum"] / math.log(2) / row["bytes_sum"] if row["bytes_sum"] else None,
        }
        for row in sums
    ]
    rows.sort(key=lambda row: (row["adapter"], records.PROBES.index(row["measures"]), row["target_lang"], row["lang"]))
    numbers = [(name, pa.int64()) for name in ("documents", "tokens", "bytes")]
    schema = pa.schema([*((name, pa.string()) for name in GROUPS), *numbers, ("bits_per_byte", pa.float64())])
    return pa.Table.from_pylist(rows, schema=schema)
