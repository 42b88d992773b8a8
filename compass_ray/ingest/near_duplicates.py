"""Near-duplicates of the pool: shards as read -> the same shards without them.

Shards put their documents into buckets, one a band; buckets are brought together in parts by their hashes; what shares
a bucket goes back to its shard. In a bucket all documents but the one with the lowest id are left out. So a document
goes if and only if it shares a bucket with one of a lower id, which depends on neither shards nor workers.
Cost: one more reading and writing of every shard; 28 bytes a document and band through the object store. A worker holds
the buckets of 16 shards, or their part of all: those of eight, or a 256th where there are more than 2,048.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from compass_ray import records, shards
from compass_ray.artifacts import Artifact, Receipt, artifact
from compass_ray.ingest.chats import whole_text
from compass_ray.ingest.config import MinHash
from compass_ray.ingest.minhash import ALGORITHM, Banding, banding, bucket_hashes
from compass_ray.ingest.ngrams import Lengths
from compass_ray.ingest.readers.batch import RAW_BYTES
from compass_ray.ingest.shuffle import as_rejects, count_rows, in_order
from compass_ray.runtime.stage import Session, shuffle
from compass_ray.runtime.threads import set_threads
from compass_ray.words import Hashes

VERSION = 2
_SHARDS_EACH = 8
_MAX_PARTS = 256
_PIECES = 16
"""Into how many pieces the buckets of a shard may go: Ray sends what is smaller than 100 kB by way of the driver."""

_BUCKET = pa.schema([("hash", pa.uint64()), ("doc_id", records.ID), ("shard", pa.int32())])

_FOUND = pa.schema([("shard", pa.int32()), ("doc_id", records.ID), ("first", records.ID)])
"""A document that is left out, and the one with the lowest id of its bucket."""


@dataclass(frozen=True)
class NearDuplicates:
    """How documents are compared, the shards they are in, and the artifact of what is found, one key per part."""

    lengths: Lengths
    vowel_marks: bool
    cut: Banding
    read: Artifact  # shards as they were read: exact duplicates are left out
    n_parts: int
    found: Artifact


def plan_near_duplicates(config: MinHash, read: Artifact, n_shards: int, output: str) -> NearDuplicates:
    """Name what will be found in shards; none is read."""
    cut = banding(config.similarity, config.hashes)
    n_parts = _parts_of(n_shards)
    body = {
        "version": VERSION,
        "algorithm": ALGORITHM,
        "lengths": [*config.lengths],
        "vowel_marks": config.vowel_marks,
        "cut": [*cut],
        "parts": n_parts,
    }
    found = artifact(output, "minhash", {**body, "read": read.fingerprint})
    return NearDuplicates(config.lengths, config.vowel_marks, cut, read, n_parts, found)


def _parts_of(n_shards: int) -> int:
    return min(max(1, n_shards // _SHARDS_EACH), _MAX_PARTS)


def _in_groups(keys: Sequence[str], parts: int) -> list[Sequence[str]]:
    """Group the keys that are split together. So no piece is too small when there are so many parts."""
    size = max(1, parts // _PIECES)
    return [keys[start : start + size] for start in range(0, len(keys), size)]


def find_near_duplicates(plan: NearDuplicates, session: Session) -> None:
    """Put the pool's documents into buckets, and keep those that share one with a lower id."""

    def compute(missing: list[str]) -> Iterator[Receipt]:
        groups = _in_groups(list(plan.read.manifest().receipts), plan.n_parts)
        return shuffle(_split_buckets, groups, _write_found, len(missing), plan, missing)

    session.complete(plan.found, shards.shard_keys(plan.n_parts), compute)


def write_distinct(plan: NearDuplicates, target: Artifact, missing: list[str]) -> Iterator[Receipt]:
    """Write shards without their near-duplicates, which become rejects with that reason."""
    parts = _parts_of(len(missing))
    groups = _in_groups(list(plan.found.manifest().receipts), parts)
    for receipts in shuffle(_split_found, groups, _write_shards, parts, plan, target, missing):
        yield from receipts


def _split_buckets(keys: Sequence[str], parts: int, plan: NearDuplicates, missing: list[str]) -> list[pa.Table]:
    """Split the buckets of some shards by the missing part they belong to."""
    set_threads(1)
    table = pa.concat_tables([_buckets(key, plan) for key in keys])
    part = (table["hash"].to_numpy() % np.uint64(plan.n_parts)).astype(np.int64)
    order = np.argsort(part, kind="stable")
    bounds = np.searchsorted(part[order], np.arange(plan.n_parts + 1))
    return [table.take(pa.array(order[bounds[int(one)] : bounds[int(one) + 1]])) for one in missing]


def _buckets(key: str, plan: NearDuplicates) -> pa.Table:
    """Compute the buckets of one shard's pool."""
    documents = records.documents_only(plan.read.read(key, ["doc_id", "role", "lang", "text", "messages", "reject"]))
    pool = documents.filter(pc.equal(documents["role"], "pool"))
    langs = pool["lang"].to_pylist()
    texts = whole_texts(pool).to_pylist()
    buckets, compared = bucket_hashes(texts, langs, plan.lengths, plan.cut, vowel_marks=plan.vowel_marks)
    hashes = buckets.ravel()
    target_langs = pa.array(np.repeat(compared, plan.cut.bands))
    shard = pa.repeat(pa.scalar(int(key), pa.int32()), len(hashes))
    ids = pool["doc_id"].combine_chunks().take(target_langs)
    return pa.table([pa.array(hashes), ids, shard], schema=_BUCKET)


def whole_texts(documents: pa.Table) -> pa.ChunkedArray:
    """Join all content of each document in one line. Of a conversation that is every turn."""
    chats = documents["messages"].combine_chunks()
    said = pa.ListArray.from_arrays(
        chats.offsets, _said(chats.values), mask=chats.is_null() if chats.null_count else None
    )
    return pc.replace_substring(pc.coalesce(pc.binary_join(said, " "), documents["text"]), "\n", " ")


def _said(turns: pa.StructArray) -> pa.StringArray:
    """Collect all that each message says."""
    content = pc.struct_field(turns, "content")
    calls, reasoning = (pc.struct_field(turns, name) for name in ("tool_calls", "reasoning_content"))
    more = pc.or_(calls.is_valid(), reasoning.is_valid())
    if not pc.any(more).as_py():
        return content
    whole = [whole_text(turn["content"], turn) for turn in turns.filter(more).to_pylist()]
    return pc.replace_with_mask(content, more, pa.array(whole, pa.string()))


def _write_found(part: int, parts: int, pieces: list[pa.Table], plan: NearDuplicates, missing: list[str]) -> Receipt:
    buckets = pa.concat_tables(pieces)
    return plan.found.write(missing[part], shared_buckets(buckets))


def shared_buckets(buckets: pa.Table) -> pa.Table:
    """Find every document that shares a bucket with one of a lower id. Each comes once.

    Parameters
    ----------
    buckets : Table
        ``hash`` (uint64), ``doc_id`` and ``shard`` of each document in each bucket.

    Returns
    -------
    Table
        ``shard``, ``doc_id`` and ``first``, the lowest id that it shares a bucket with; sorted by id.
    """
    hashes: Hashes = buckets["hash"].to_numpy()
    ordered = np.sort(hashes)
    several = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    rows = np.flatnonzero(np.isin(hashes, several))
    ids = records.ids_to_numpy(buckets["doc_id"].take(pa.array(rows)))
    words = records.ids_to_words(ids)
    order = np.lexsort((words[:, 1], words[:, 0], hashes[rows]))
    rows, ids = rows[order], ids[order]
    begins = np.ones(len(rows), dtype=bool)
    begins[1:] = hashes[rows[1:]] != hashes[rows[:-1]]
    first = ids[np.maximum.accumulate(np.where(begins, np.arange(len(rows)), 0))]
    rows, ids, first = rows[~begins], ids[~begins], first[~begins]
    words = np.hstack([records.ids_to_words(ids), records.ids_to_words(first)])
    order = np.lexsort(words.T[::-1])
    rows, ids, first = rows[order], ids[order], first[order]
    new = np.ones(len(rows), dtype=bool)
    new[1:] = (ids[1:] != ids[:-1]).any(axis=1)
    shard = buckets["shard"].take(pa.array(rows[new]))
    return pa.table([shard, records.numpy_to_ids(ids[new]), records.numpy_to_ids(first[new])], schema=_FOUND)


def _split_found(
    keys: Sequence[str], parts: int, plan: NearDuplicates, target: Artifact, missing: list[str]
) -> list[pa.Table]:
    """Split what was found by the group of shards that it concerns. It was found in some parts of the buckets."""
    found = pa.concat_tables([plan.found.read(key) for key in keys])
    position = pc.index_in(found["shard"], pa.array([int(wanted) for wanted in missing], pa.int32()))
    group = position.to_numpy() % parts  # NaN where the shard is there already
    return [found.filter(pa.array(group == number)) for number in range(parts)]


def _write_shards(
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
    """Find the lowest id that each document was found with."""
    lowest: dict[bytes, bytes] = {}
    for doc_id, first in zip(found["doc_id"].to_pylist(), found["first"].to_pylist(), strict=True):
        lowest[doc_id] = min(first, lowest.get(doc_id, first))
    return lowest


def without(shard: pa.Table, first: Mapping[bytes, bytes]) -> pa.Table:
    """Make rejects of some documents of a shard.

    Parameters
    ----------
    shard : Table of schema INGESTED
    first : mapping
        By the id of a document to leave out: that of the one it nearly repeats.
    """
    documents = shard.filter(shard["reject"].is_null())
    gone = pc.is_in(documents["doc_id"], pa.array([*first], records.ID))
    repeats = documents.filter(gone)
    messages = [f"nearly the same as document {first[doc_id].hex()}" for doc_id in repeats["doc_id"].to_pylist()]
    raw = [text.encode()[:RAW_BYTES] for text in repeats["text"].to_pylist()]
    rejects = [shard.filter(shard["reject"].is_valid()), as_rejects(repeats, "near_duplicate", messages, raw)]
    kept = documents.filter(pc.invert(gone))
    return pa.concat_tables([kept, in_order(pa.concat_tables(rejects))]).combine_chunks()
