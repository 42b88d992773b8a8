"""Eligibility: documents and embeddings -> pool rows that nearly repeat usage, and may not be drawn for its language.

Rows that repeat usage exactly are in its shard and need no stage (:mod:`compass_ray.sample.histogram`); near copies may
be anywhere. So tasks reduce usage to blocks of some 16,000 documents in Ray's object store, and each shard of the pool
is compared with one block after another. Cost: texts and vectors are read once more, 10 µs a document, and 3.5 ns a
pool and usage document (measured; vectors of 384 numbers): an hour of one core for a million of each. A worker holds a
shard and one block; a usage document takes ``2·d + 33`` bytes of the object store, 0.8 GB for a million.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from compass_ray import records
from compass_ray.artifacts import Artifact, Receipt, artifact
from compass_ray.runtime.stage import Session, map_keys
from compass_ray.runtime.threads import set_threads
from compass_ray.sample.config import SampleConfig
from compass_ray.sample.likeness import Compared, Usage, near_usage

VERSION = 1
_BLOCK_ROWS = 1 << 14


def find_near_usage(
    documents: Artifact, embeddings: Artifact, target_langs: Sequence[str], config: SampleConfig, session: Session
) -> Artifact:
    """Find the pool rows that nearly repeat usage, schema NEAR_USAGE, one key per shard.

    Strategies make no difference, so that several share what is found.
    """
    similarity = None if config.near_duplicates == "off" else config.near_duplicate_similarity
    body = {
        "version": VERSION,
        "documents": documents.fingerprint,
        "embeddings": embeddings.fingerprint,
        "similarity": similarity,
    }
    out = artifact(session.output, "near_usage", body)
    keys = list(embeddings.manifest().receipts)
    session.complete(out, keys, lambda missing: _find(missing, documents, embeddings, target_langs, similarity, out))
    return out


def _find(
    missing: list[str],
    documents: Artifact,
    embeddings: Artifact,
    target_langs: Sequence[str],
    similarity: float | None,
    out: Artifact,
) -> Iterator[Receipt]:
    import ray

    task = ray.remote(num_cpus=1, max_retries=5)(_usage_of_shards)
    blocks = [task.remote(keys, documents, embeddings, target_langs) for keys in _blocks(documents)]
    yield from map_keys(_near_usage_of_shard, missing, documents, embeddings, blocks, target_langs, similarity, out)


def _blocks(documents: Artifact) -> Iterator[list[str]]:
    """Yield the keys of shards that hold usage, a block's together."""
    keys: list[str] = []
    size = 0
    for key, receipt in documents.manifest().receipts.items():
        rows = sum(count for role, _, _, count in receipt.summary["documents"] if role == "usage")
        if keys and size + rows > _BLOCK_ROWS:
            yield keys
            keys, size = [], 0
        if rows:
            keys, size = [*keys, key], size + rows
    if keys:
        yield keys


def _usage_of_shards(
    keys: Sequence[str], documents: Artifact, embeddings: Artifact, target_langs: Sequence[str]
) -> Usage:
    set_threads(1)
    return Usage.joined([Usage.of(*_rows(key, "usage", documents, embeddings), target_langs) for key in keys])


def _near_usage_of_shard(
    key: str,
    documents: Artifact,
    embeddings: Artifact,
    blocks: Sequence[Any],
    target_langs: Sequence[str],
    similarity: float | None,
    out: Artifact,
) -> Receipt:
    import ray

    set_threads(1)
    pool = Compared.of(*_rows(key, "pool", documents, embeddings))
    return out.write(key, near_usage(pool, map(ray.get, blocks), target_langs, similarity))


def _rows(key: str, role: str, documents: Artifact, embeddings: Artifact) -> tuple[pa.Table, pa.Table]:
    """Read a shard's documents of a role, and the vectors of all."""
    rows = records.documents_only(documents.read(key, ["doc_id", "role", "target_lang", "text", "reject"]))
    return rows.filter(pc.equal(rows["role"], role)), embeddings.read(key, ["doc_id", "vector"])
