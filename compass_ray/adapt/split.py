"""Which documents only scores see, over all languages at once.

The split goes by content. What one language holds out no other trains on, so no adapter has seen what another one, or
its score of other languages, is measured on.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from compass_ray import records, seeding
from compass_ray.artifacts import Artifact

EQUALS_USAGE = "equals_held_out_usage"
HELD_OUT_ELSEWHERE = "held_out_for_another_language"


def heldout_mask(content_ids: NDArray[np.uint8], seed: int, fraction: float, most: int) -> NDArray[np.bool_]:
    """Draw documents by a keyed hash of their content: equal content is on one side.

    Parameters
    ----------
    content_ids : ndarray of shape (n, 16), uint8
    fraction : float
        Expected share.
    most : int
        Documents, at most; those with the smallest hashes.
    """
    chance = seeding.uniform(content_ids, seed, "adapt-heldout")
    limit = fraction
    if len(chance) > most:
        limit = min(fraction, float(np.partition(chance, most)[most]))
    return np.asarray(chance < limit)


def language_mask(rows: pa.Table, seed: int, fraction: float, most: int) -> NDArray[np.bool_]:
    """Draw one language's held-out documents, shape (n,); none equals held-out usage.

    Parameters
    ----------
    rows : Table
        Columns content_id and equals_usage of schema TRAINING.
    """
    free: NDArray[np.bool_] = ~np.asarray(rows["equals_usage"])
    mask = np.zeros(rows.num_rows, dtype=np.bool_)
    mask[free] = heldout_mask(records.ids_to_numpy(rows["content_id"])[free], seed, fraction, most)
    return mask


def heldout_contents(lang: str, gathered: Artifact, seed: int, fraction: float, most: int) -> pa.Array:
    """List the contents that one language holds out, at most ``most`` ids. It is to be run as a task."""
    rows = rows_of(lang, gathered, ["content_id", "target_lang", "equals_usage"])
    return pc.unique(rows["content_id"].filter(pa.array(language_mask(rows, seed, fraction, most))))


def barred(rows: pa.Table, mask: NDArray[np.bool_], held: pa.Array) -> list[str | None]:
    """Say which rows are neither trained nor scored, and why; None for the others.

    Parameters
    ----------
    rows : Table
        One language's rows, as :func:`language_mask` takes them.
    mask : ndarray of shape (n,), bool
        From :func:`language_mask`.
    held : Array of ids
        Contents that any language holds out.
    """
    elsewhere = np.asarray(pc.is_in(rows["content_id"], value_set=held)) & ~mask
    return [
        EQUALS_USAGE if equal else HELD_OUT_ELSEWHERE if kept_out else None
        for equal, kept_out in zip(rows["equals_usage"].to_pylist(), elsewhere.tolist(), strict=True)
    ]


def rows_of(lang: str, gathered: Artifact, columns: Sequence[str] = records.TRAINING.names) -> pa.Table:
    """Read one language's rows in the order of shards; ``columns`` hold ``target_lang``."""
    parts = [records.TRAINING.empty_table().select(columns)]
    for key, receipt in gathered.manifest().receipts.items():
        if lang in receipt.summary["documents"]:
            rows = gathered.read(key, list(columns))
            parts.append(rows.filter(pc.equal(rows["target_lang"], lang)))
    return pa.concat_tables(parts)
