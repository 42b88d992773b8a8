"""Near-duplicates of the pool: read shards -> the same shards without them.

A task per shard puts its documents into buckets, a task per band finds the buckets that hold several, and what these
find goes to the shards concerned. Of a bucket the document with the lowest id stays. So a document is left out if and
only if it shares a bucket with one of a lower id, which depends on neither shards nor workers. The one that stays may
itself be left out, for a third that it shares another bucket with; two that stay share none.
Cost: shards are read and written once more; a task of a band reads all buckets, 8 bytes a document and band in files,
and holds 28 bytes a document, twice while it sorts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from compass_ray import records, storage
from compass_ray.artifacts import Artifact, Receipt, artifact
from compass_ray.configbase import identity
from compass_ray.ingest.config import MinHash
from compass_ray.ingest.minhash import ALGORITHM, Banding, banding, bucket_hashes
from compass_ray.ingest.ngrams import Hashes
from compass_ray.ingest.readers.batch import RAW_BYTES
from compass_ray.ingest.shuffle import as_rejects, count_rows, in_order
from compass_ray.runtime.stage import Session, exchange, map_keys

VERSION = 1
_MAX_PARTS = 256

_FOUND = pa.schema([("shard", pa.int32()), ("doc_id", records.ID), ("first", records.ID)])
"""A document that is left out, and the one with the lowest id of its bucket."""


@dataclass(frozen=True)
class NearDuplicates:
    """What is compared, and where the buckets are kept."""

    config: MinHash
    read: Artifact  # shards as they were read, exact duplicates left out
    buckets: Artifact

    @property
    def cut(self) -> Banding:
        return banding(self.config.similarity, self.config.hashes)


def plan_near_duplicates(config: MinHash, read: Artifact, output: str) -> NearDuplicates:
    """Name the buckets of these shards."""
    body = {"version": VERSION, "algorithm": ALGORITHM, "read": read.fingerprint, **identity(config)}
    return NearDuplicates(config, read, artifact(output, "minhash", body))


def find_buckets(plan: NearDuplicates, session: Session) -> None:
    """Put the pool's documents into buckets, one key per shard."""
    keys = list(plan.read.manifest().receipts)
    session.complete(plan.buckets, keys, lambda missing: map_keys(_write_buckets, missing, plan))


def write_distinct(plan: NearDuplicates, target: Artifact, missing: list[str]) -> Iterator[Receipt]:
    """Write shards without their near-duplicates, which become rejects with that reason."""
    bands = [str(band) for band in range(plan.cut.bands)]
    parts = max(2, min(len(missing), _MAX_PARTS))  # of the work, so that what is sent does not depend on workers
    for receipts in exchange(_find, bands, _write_part, parts, plan, target, missing):
        yield from receipts


def _write_buckets(key: str, plan: NearDuplicates) -> Receipt:
    documents = records.documents_only(plan.read.read(key, ["doc_id", "role", "lang", "text", "messages", "reject"]))
    pool = documents.filter(pc.equal(documents["role"], "pool"))
    buckets, compared = bucket_hashes(
        whole_texts(pool).to_pylist(), pool["lang"].to_pylist(), plan.config.lengths, plan.cut
    )
    columns = {str(band): pa.array(np.ascontiguousarray(buckets[:, band])) for band in range(plan.cut.bands)}
    table = pa.table({"doc_id": pool["doc_id"].take(pa.array(compared)), **columns})
    return plan.buckets.write(key, table, {"too_short": pool.num_rows - len(compared)})


def whole_texts(documents: pa.Table) -> pa.ChunkedArray:
    """All content of each document, every turn of a conversation, in one line."""
    turns = documents["messages"].combine_chunks()
    said = pa.ListArray.from_arrays(
        turns.offsets, pc.struct_field(turns.values, "content"), mask=turns.is_null() if turns.null_count else None
    )
    return pc.replace_substring(pc.coalesce(pc.binary_join(said, " "), documents["text"]), "\n", " ")


def _find(band: str, parts: int, plan: NearDuplicates, target: Artifact, missing: list[str]) -> list[pa.Table]:
    """The documents to be left out for what they share in one band, by the part that their shard belongs to."""
    keys = list(plan.buckets.manifest().receipts)
    tables = list(storage.in_parallel(partial(plan.buckets.read, columns=["doc_id", band]), keys))
    place = np.repeat(np.array([int(key) for key in keys], dtype=np.int32), [table.num_rows for table in tables])
    buckets = pa.concat_tables(tables)
    found = shared_buckets(buckets[band].to_numpy(), buckets["doc_id"], place)
    part_of = np.full(1 + max(int(key) for key in keys), -1)
    part_of[[int(key) for key in missing]] = np.arange(len(missing)) % parts
    part = part_of[found["shard"].to_numpy()]
    return [found.filter(pa.array(part == number)) for number in range(parts)]


def shared_buckets(hashes: Hashes, ids: pa.ChunkedArray, place: NDArray[np.int32]) -> pa.Table:
    """Every document that shares a bucket with one of a lower id.

    Parameters
    ----------
    hashes : ndarray of shape (n,), uint64
        The bucket of each document.
    ids : ChunkedArray of n ids
        No id twice.
    place : ndarray of shape (n,), int32
        The shard of each document.

    Returns
    -------
    Table of schema ``_FOUND``
    """
    ordered = np.sort(hashes)
    several = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    rows = np.flatnonzero(np.isin(hashes, several))
    keys = records.ids_to_numpy(ids.take(pa.array(rows)))
    high, low = (np.ascontiguousarray(keys[:, half]).view(">u8")[:, 0] for half in (slice(0, 8), slice(8, 16)))
    order = np.lexsort((low, high, hashes[rows]))
    rows, keys = rows[order], keys[order]
    begins = np.ones(len(rows), dtype=bool)
    begins[1:] = hashes[rows[1:]] != hashes[rows[:-1]]
    first = np.maximum.accumulate(np.where(begins, np.arange(len(rows)), 0))
    columns = [place[rows][~begins], records.numpy_to_ids(keys[~begins]), records.numpy_to_ids(keys[first][~begins])]
    return pa.table(columns, schema=_FOUND)


def _write_part(
    part: int, parts: int, pieces: list[pa.Table], plan: NearDuplicates, target: Artifact, missing: list[str]
) -> list[Receipt]:
    found = pa.concat_tables(pieces)
    receipts = []
    for key in missing[part::parts]:
        here = found.filter(pc.equal(found["shard"], int(key)))
        table = without(plan.read.read(key), _lowest(here))
        receipts.append(target.write(key, table, count_rows(table)))
    return receipts


def _lowest(found: pa.Table) -> dict[bytes, bytes]:
    """The lowest id that each document was found with."""
    lowest: dict[bytes, bytes] = {}
    for doc_id, first in zip(found["doc_id"].to_pylist(), found["first"].to_pylist(), strict=True):
        lowest[doc_id] = min(first, lowest.get(doc_id, first))
    return lowest


def without(shard: pa.Table, first: Mapping[bytes, bytes]) -> pa.Table:
    """A shard in which some documents of the pool are rejects.

    Parameters
    ----------
    shard : Table of schema INGESTED
    first : mapping
        By the id of a document to leave out: that of the one it nearly repeats.
    """
    documents = shard.filter(shard["reject"].is_null())
    gone = pc.and_(pc.equal(documents["role"], "pool"), pc.is_in(documents["doc_id"], pa.array([*first], records.ID)))
    repeats = documents.filter(gone)
    messages = [f"nearly the same as document {first[doc_id].hex()}" for doc_id in repeats["doc_id"].to_pylist()]
    raw = [text.encode()[:RAW_BYTES] for text in repeats["text"].to_pylist()]
    rejects = [shard.filter(shard["reject"].is_valid()), as_rejects(repeats, "near_duplicate", messages, raw)]
    kept = documents.filter(pc.invert(gone))
    return pa.concat_tables([kept, in_order(pa.concat_tables(rejects))]).combine_chunks()
