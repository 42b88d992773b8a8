"""Losses of two adapters on the same documents, side by side, and which documents are independent of each other."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from compass_ray import records
from compass_ray.errors import DataError

Vector = NDArray[np.float64]

_DOCUMENT = ("measures", "lang", "content_id", "doc_id", "block", "cluster", "tokens", "bytes")
"""What is the same for both adapters, in the order that rows are sorted by."""


@dataclass(frozen=True)
class Paired:
    """What two adapters lose on the same documents.

    Attributes
    ----------
    rows : Table
        ``measures``, ``lang``, ``content_id``, ``cluster``, ``block`` and ``gain``, in bits per byte: champion less
        candidate. In an order that does not depend on that of the losses.
    not_finite : tuple of str
        Each adapter and document whose loss is none, in words.
    empty : int
        Documents whose predicted tokens spell nothing: they have no loss per byte and are left out.
    """

    rows: pa.Table
    not_finite: tuple[str, ...]
    empty: int


def pair(losses: pa.Table, champion: str, candidate: str) -> Paired:
    """Put the losses of the champion and of the candidate side by side.

    Parameters
    ----------
    losses : Table of schema LOSS
        Of one target language. Rows of other adapters are passed over.
    champion, candidate : str
        As in its column ``adapter``.

    Raises
    ------
    DataError
        If they were not measured on the same documents, or not alike, or on those of several target languages.
    """
    mine = losses.filter(pc.is_in(losses["adapter"], pa.array([champion, candidate])))
    if losses.num_rows and not mine.num_rows:
        there = ", ".join(sorted(set(losses["adapter"].to_pylist())))
        raise DataError(f"losses: none of {champion} or {candidate}, only of {there}; measure both and compare again")
    if len(target_langs := sorted(set(mine["target_lang"].to_pylist()), key=str)) > 1:
        raise DataError(f"losses: of several target languages, {', '.join(map(str, target_langs))}; judge each alone")
    if unknown := sorted(set(mine["measures"].to_pylist()) - set(records.PROBES), key=str):
        raise DataError(f"losses: measure '{unknown[0]}', expected {', '.join(records.PROBES)}; measure again")
    before, after = (_sorted(mine, adapter) for adapter in (champion, candidate))
    if before.select(_DOCUMENT) != after.select(_DOCUMENT):
        raise _unlike(before, after, champion, candidate)
    nats = [np.asarray(side["nats"].to_numpy(), np.float64) for side in (before, after)]
    size = np.asarray(before["bytes"].to_numpy(), np.float64)
    finite = np.isfinite(nats[0]) & np.isfinite(nats[1])
    not_finite = [
        _named(side.slice(int(row), 1), adapter)
        for side, values, adapter in zip((before, after), nats, (champion, candidate), strict=True)
        for row in np.flatnonzero(~np.isfinite(values))
    ]
    kept = finite & (size > 0)
    gain = (nats[0][kept] - nats[1][kept]) / math.log(2) / size[kept]
    rows = before.select(["measures", "lang", "content_id", "cluster", "block"]).filter(pa.array(kept))
    return Paired(rows.append_column("gain", pa.array(gain)), tuple(not_finite), int(np.count_nonzero(size <= 0)))


def independent(rows: pa.Table, weights: Vector) -> tuple[Vector, Vector, NDArray[np.int64]]:
    """Merge rows into documents that may be independent of each other.

    Rows of equal content are one document, as heavy as all of them together, and their mean gain is its own. Its block
    is the set of blocks that it was seen in: what comes with several is not the business of one. A document without any
    is a block by itself.

    Parameters
    ----------
    rows : Table
        As in ``Paired.rows``; at least one.
    weights : ndarray of shape (n_rows,), float64
        Above zero.

    Returns
    -------
    gains, weights, blocks : ndarray of shape (n_documents,)
        In the order in which contents first appear.
    """
    codes = records.codes_of(rows["content_id"])
    heavy: Vector = np.bincount(codes, weights).astype(np.float64)
    gains: Vector = np.bincount(codes, weights * np.asarray(rows["gain"].to_numpy(), np.float64)) / heavy
    seen: list[set[str]] = [set() for _ in heavy]
    for code, block in zip(codes.tolist(), rows["block"].to_pylist(), strict=True):
        if block is not None:
            seen[code].add(block)
    numbers: dict[int | frozenset[str], int] = {}
    blocks = [numbers.setdefault(frozenset(some) or code, len(numbers)) for code, some in enumerate(seen)]
    return gains, heavy, np.array(blocks, np.int64)


def _sorted(losses: pa.Table, adapter: str) -> pa.Table:
    mine = losses.filter(pc.equal(losses["adapter"], adapter))
    words = [mine[name].cast(pa.binary()) if name.endswith("_id") else mine[name] for name in _DOCUMENT]
    keys = pa.table([*words, mine["nats"]], names=[*_DOCUMENT, "nats"])
    return mine.take(pc.sort_indices(keys, [(name, "ascending") for name in keys.column_names]))


def _unlike(before: pa.Table, after: pa.Table, champion: str, candidate: str) -> DataError:
    """Say which documents one of the two lacks, or else which was measured in another way."""
    counts = [Counter(_ids(side)) for side in (before, after)]
    lacks = []
    for adapter, missing in ((champion, counts[1] - counts[0]), (candidate, counts[0] - counts[1])):
        if missing:
            measures, _, doc_id = min(missing, key=str)
            lacks.append(f"{adapter} lacks {missing.total()} documents, as {doc_id.hex()} ({measures})")
    if lacks:
        return DataError(
            f"losses: {' and '.join(lacks)}; a comparison needs the same documents of both, so measure both again on "
            "all of them"
        )
    pairs = zip(before.select(_DOCUMENT).to_pylist(), after.select(_DOCUMENT).to_pylist(), strict=True)
    one, other = next((one, other) for one, other in pairs if one != other)
    names = [name for name in _DOCUMENT if one[name] != other[name]]
    values = [", ".join(f"{name} {row[name]!r}" for name in names) for row in (one, other)]
    return DataError(
        f"losses: document {one['doc_id'].hex()} has {values[0]} for {champion} and {values[1]} for {candidate}; "
        "measure both in the same way"
    )


def _ids(side: pa.Table) -> list[tuple[str, str | None, bytes]]:
    return list(zip(*(side[name].to_pylist() for name in ("measures", "lang", "doc_id")), strict=True))


def _named(row: pa.Table, adapter: str) -> str:
    [one] = row.to_pylist()
    return f"{adapter} on document {one['doc_id'].hex()} ({one['measures']}): {one['nats']}"
