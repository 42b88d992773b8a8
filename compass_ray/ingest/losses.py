"""What a file's fault weighs: the rows that are lost with it, about, where nobody could count them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import TypeAlias

from compass_ray.artifacts import Manifest

SourceReason: TypeAlias = tuple[str, str]


def estimated_rows(
    manifest: Manifest, rows: Mapping[SourceReason, int], sizes: Mapping[str, int]
) -> dict[SourceReason, int]:
    """Estimate rows by source and reason, where faults lost some.

    Nobody could count those that were lost. The bytes of files that are lost are taken for rows of the mean length on
    disk of what was read of their source, or of all sources if nothing was read of it. A fault is one row at least, and
    is one where nothing was read at all.

    Parameters
    ----------
    rows : mapping of (source, outcome) to int
        All that was read, a fault of unknown rows being one.
    sizes : mapping of source to int
        Bytes of its files on disk.
    """
    faults: Counter[SourceReason] = Counter()
    lost: Counter[SourceReason] = Counter()
    for receipt in manifest.receipts.values():
        for source, reason, count, size in receipt.summary.get("lost", ()):
            faults[source, reason] += count
            lost[source, reason] += size
    read_rows: Counter[str] = Counter()
    read_bytes: Counter[str] = Counter(sizes)
    for (source, reason), count in rows.items():
        read_rows[source] += count - faults[source, reason]
        read_bytes[source] -= lost[source, reason]
    everywhere = _rows_a_byte(read_rows.total(), read_bytes.total())
    found = {}
    for key, count in faults.items():
        rate = _rows_a_byte(read_rows[key[0]], read_bytes[key[0]]) or everywhere
        found[key] = rows[key] - count + max(count, round(rate * lost[key]))
    return found


def _rows_a_byte(rows: int, size: int) -> float:
    return rows / size if rows > 0 and size > 0 else 0.0
