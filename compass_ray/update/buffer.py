"""The replay buffer of a champion -> packs to train on and documents to estimate its Fisher information on.

A pack holds documents of one cluster, and is drawn as often as usage lies there, whatever the buffer holds of it.
Cost: one task a language; it holds the buffer, which is a share of what the champion was trained on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from compass_ray import records
from compass_ray.adapt.examples import Example, check_template, example_of
from compass_ray.adapt.packing import Packs, joined, make_packs
from compass_ray.adapt.tokenizer import TokenizerSource
from compass_ray.artifacts import Artifact, Receipt, artifact, digest, to_parquet
from compass_ray.runtime.stage import Session, map_keys

VERSION = 2
PACKED, ALONE, CHANCE, DOCUMENTS = "packed", "alone", "chance", "documents"
_TEXT = ("text", "messages", "tools")
_PARTS = (PACKED, ALONE, CHANCE, DOCUMENTS)

Wanted = tuple[pa.Table, NDArray[np.float64]]
"""A buffer, schema ``records.BUFFER``, and the share of usage of every cluster, shape (n_clusters,)."""


def key_of(lang: str, part: str) -> str:
    """Form the key of a language's part in the artifact of :func:`tokenize_buffers`."""
    return f"{lang}-{part}"


def tokenize_buffers(buffers: Mapping[str, Wanted], source: TokenizerSource, session: Session) -> Artifact:
    """Tokenize buffers.

    For each language the keys ``<lang>-packed`` and ``<lang>-alone`` (tables of :class:`Packs`, the second with one
    document a pack), ``<lang>-chance``: with what chance a pack is drawn, and ``<lang>-documents``: the ids that packs
    number. The summary of the last has the counts.

    Parameters
    ----------
    buffers : mapping of str to Wanted
        By language; rows without text are left out and counted.
    source : TokenizerSource
    """
    body = {
        "version": VERSION,
        "buffers": {lang: [digest(to_parquet(rows)), shares.tolist()] for lang, (rows, shares) in buffers.items()},
        "tokenizer": source.fingerprint(),
        "max_length": source.config.max_length,
        "packing": source.config.packing,
    }
    target = artifact(session.output, "buffer", body)

    def compute(missing: list[str]) -> Any:
        languages = sorted({key.rpartition("-")[0] for key in missing})
        for receipts in map_keys(_tokenize, languages, dict(buffers), source, target):
            yield from (receipt for receipt in receipts if receipt.key in set(missing))

    session.complete(target, [key_of(lang, part) for lang in sorted(buffers) for part in _PARTS], compute)
    return target


def counts_of(buffers: Artifact, lang: str) -> dict[str, int]:
    """Read how many ``rows`` a buffer has, ``without_text`` among them, and ``documents`` that can be trained on."""
    counts: dict[str, int] = buffers.manifest().receipts[key_of(lang, DOCUMENTS)].summary
    return counts


def documents_of(buffers: Artifact, lang: str) -> list[str]:
    """List the ids of one language's documents, in hex, in the order in which its packs number them."""
    return [value.hex() for value in buffers.read(key_of(lang, DOCUMENTS))["doc_id"].to_pylist()]


def recall(documents: Artifact, rows: pa.Table, session: Session) -> pa.Table:
    """Fill in texts that a registry does not keep, as far as they are among documents.

    Parameters
    ----------
    documents : Artifact
        Of the ingest stage.
    rows : Table
        With the columns doc_id, text, messages and tools.
    """
    from compass_ray.runtime.cluster import ray_errors

    lacking = pc.invert(records.has_text(rows))
    wanted = rows["doc_id"].filter(lacking).combine_chunks()
    if not len(wanted):
        return rows
    session.connect()
    with ray_errors():
        found = pa.concat_tables(map_keys(_recall_shard, documents.manifest().receipts, documents, wanted))
    position = pc.index_in(rows["doc_id"].combine_chunks(), value_set=found["doc_id"].combine_chunks())
    for name in _TEXT:
        filled = pc.if_else(lacking, found[name].combine_chunks().take(position), rows[name])
        rows = rows.set_column(rows.schema.get_field_index(name), rows.schema.field(name), filled)
    return rows


def _recall_shard(key: str, documents: Artifact, wanted: pa.Array) -> pa.Table:
    rows = records.documents_only(documents.read(key, ["doc_id", *_TEXT, "reject"]))
    return rows.filter(pc.is_in(rows["doc_id"], value_set=wanted))


def _tokenize(lang: str, buffers: Mapping[str, Wanted], source: TokenizerSource, target: Artifact) -> list[Receipt]:
    rows, shares = buffers[lang]
    config = source.config
    known = rows.filter(records.has_text(rows))
    tokenizer, _ = source.open()
    if pc.any(known["messages"].is_valid()).as_py():
        check_template(tokenizer, "adapt.chat_template")
    made = [example_of(tokenizer, row, config.max_length)[0] for row in known.to_pylist()]
    kept = [example for example in made if example is not None]
    usable = pa.array([example is not None for example in made], pa.bool_())
    documents = known.select(["doc_id", "cluster"]).filter(usable)
    numbers = cluster_numbers(documents["cluster"], len(shares))
    packed, of_cluster = _packs_by_cluster(kept, numbers, config.max_length, config.packing)
    chance = pa.table({"chance": pack_chances(of_cluster, cluster_weights(numbers, shares))})
    counts = {"rows": rows.num_rows, "without_text": rows.num_rows - known.num_rows, "documents": len(kept)}
    return [
        target.write(key_of(lang, PACKED), packed.to_table()),
        target.write(key_of(lang, ALONE), make_packs(kept, config.max_length, packing=False).to_table()),
        target.write(key_of(lang, CHANCE), chance),
        target.write(key_of(lang, DOCUMENTS), documents.select(["doc_id"]), counts),
    ]


def _packs_by_cluster(
    examples: Sequence[Example], numbers: NDArray[np.int64], max_length: int, packing: bool
) -> tuple[Packs, NDArray[np.int64]]:
    """Pack the documents of each cluster by themselves, so that drawing a pack draws one cluster.

    Returns
    -------
    packs : Packs
    of_cluster : ndarray of shape (n_packs,), int64
        The cluster of each.
    """
    parts, of_cluster = [make_packs([], max_length)], [np.empty(0, dtype=np.int64)]
    for number in np.unique(numbers):
        mine = np.flatnonzero(numbers == number)
        made = make_packs([examples[place] for place in mine.tolist()], max_length, packing)
        parts.append(replace(made, documents=mine[made.documents]))
        of_cluster.append(np.full(len(made), number))
    return joined(parts), np.concatenate(of_cluster)


def cluster_numbers(clusters: pa.ChunkedArray, n_clusters: int) -> NDArray[np.int64]:
    """Give each document its cluster, shape (n,). Documents of none are with the outliers, in bin ``n_clusters``."""
    numbers: NDArray[np.int64] = pc.fill_null(clusters, n_clusters).to_numpy().astype(np.int64)
    return numbers


def cluster_weights(numbers: NDArray[np.int64], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute with what chance a cluster is replayed, shape (n_clusters + 1,): as often as usage lies there.

    The sum is one, over the clusters that the buffer has. Outliers have the part that they are of the buffer, and all
    clusters theirs where usage lies in none that the buffer has.

    Parameters
    ----------
    numbers : ndarray of shape (n,), int64
        Clusters of the documents; n_clusters = the outlier bin.
    shares : ndarray of shape (n_clusters,), float64
        Of usage, not negative.
    """
    counts = np.bincount(numbers, minlength=len(shares) + 1).astype(np.float64)
    parts = counts / max(1.0, counts.sum())
    wanted = np.where(counts[:-1] > 0, shares, 0.0)
    if not wanted.sum() > 0:
        return np.asarray(parts, np.float64)
    inside: NDArray[np.float64] = np.append((1 - parts[-1]) * wanted / wanted.sum(), parts[-1])
    return inside


def pack_chances(of_cluster: NDArray[np.int64], weights: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share each cluster's chance among its packs, shape (n_packs,)."""
    packs = np.bincount(of_cluster, minlength=len(weights))
    chances: NDArray[np.float64] = (weights / np.maximum(packs, 1))[of_cluster]
    return chances
