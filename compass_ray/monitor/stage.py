"""Monitor: assignments of new usage -> documents by target language, window and cluster.

Cost: texts and assignments are read once; a worker holds one shard, the driver what windows, target languages and
clusters there are.
"""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

import pyarrow as pa

from compass_ray import records
from compass_ray.artifacts import Artifact, Receipt, artifact
from compass_ray.monitor import windows
from compass_ray.monitor.config import Period
from compass_ray.runtime.stage import Session, map_keys
from compass_ray.runtime.threads import set_threads

VERSION = 3


def count_windows(
    documents: Artifact,
    assignments: Artifact,
    n_clusters: int,
    period: Period,
    as_of: datetime | None,
    session: Session,
) -> tuple[pa.Table, Counter[str]]:
    """Count new usage.

    Parameters
    ----------
    documents : Artifact
        Of ingestion.
    assignments : Artifact
        Of these documents to a codebook of ``n_clusters``.

    Returns
    -------
    windows : Table of schema WINDOW
    left_out : Counter
        Documents that are in no window: see :func:`~compass_ray.monitor.windows.shard_windows`.
    """
    body = {"version": VERSION, "assignments": assignments.fingerprint, "period": period}
    if as_of is not None:
        body["as_of"] = as_of.astimezone(UTC).isoformat()
    target = artifact(session.output, "windows", body)
    manifest = session.complete(
        target,
        list(assignments.manifest().receipts),
        lambda missing: map_keys(_count_shard, missing, documents, assignments, target, n_clusters, period, as_of),
    )
    left_out: Counter[str] = Counter()
    for receipt in manifest.receipts.values():
        left_out.update(receipt.summary)
    parts = target.read_all(manifest.keys_with_rows)
    return windows.merge([records.WINDOW.empty_table(), *parts]), left_out


def count_dates(documents: Artifact, period: Period, as_of: datetime | None, session: Session) -> Counter[str]:
    """Count new usage by what its timestamps say: what windows there could be is known before texts are embedded.

    Returns
    -------
    Counter
        Documents that are ``dated`` into a window, and that are in none: ``undated`` and ``later``.
    """
    body = {"version": VERSION, "documents": documents.fingerprint, "period": period}
    body["as_of"] = None if as_of is None else as_of.astimezone(UTC).isoformat()
    target = artifact(session.output, "dates", body)
    manifest = session.complete(
        target,
        list(documents.manifest().receipts),
        lambda missing: map_keys(_date_shard, missing, documents, target, period, as_of),
    )
    found: Counter[str] = Counter()
    for receipt in manifest.receipts.values():
        found.update(receipt.summary)
    return found


def _date_shard(key: str, documents: Artifact, target: Artifact, period: Period, as_of: datetime | None) -> Receipt:
    known = records.documents_only(documents.read(key, ["doc_id", "timestamp", "reject"]))
    undated, later = windows.left_out(known["timestamp"], period, as_of)
    counts = {"undated": int(undated.sum()), "later": int(later.sum())}
    return target.write(key, pa.table({}), {"dated": known.num_rows - sum(counts.values()), **counts})


def _count_shard(
    key: str,
    documents: Artifact,
    assignments: Artifact,
    target: Artifact,
    n_clusters: int,
    period: Period,
    as_of: datetime | None,
) -> Receipt:
    set_threads(1)
    ingested = documents.read(key, ["doc_id", "text", "timestamp", "reject"])
    known = records.documents_only(ingested)
    table, left_out = windows.shard_windows(known, assignments.read(key), period, n_clusters, as_of)
    return target.write(key, table, left_out)
