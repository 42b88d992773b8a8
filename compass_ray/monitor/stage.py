"""Monitor: assignments of new usage -> documents by owner, window and cluster.

Cost: texts and assignments are read once; a worker holds one shard, the driver what windows, owners and clusters there
are.
"""

from __future__ import annotations

import pyarrow as pa

from compass_ray import records
from compass_ray.artifacts import Artifact, Receipt, artifact
from compass_ray.monitor import windows
from compass_ray.monitor.config import Period
from compass_ray.runtime.stage import Session, map_keys
from compass_ray.runtime.threads import set_threads

VERSION = 1


def count_windows(
    documents: Artifact, assignments: Artifact, n_clusters: int, period: Period, session: Session
) -> tuple[pa.Table, int]:
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
    undated : int
        Documents without the timestamp that the period needs; they are in no window.
    """
    body = {"version": VERSION, "assignments": assignments.fingerprint, "period": period}
    target = artifact(session.output, "windows", body)
    manifest = session.complete(
        target,
        list(assignments.manifest().receipts),
        lambda missing: map_keys(_count_shard, missing, documents, assignments, target, n_clusters, period),
    )
    undated = sum(receipt.summary["undated"] for receipt in manifest.receipts.values())
    parts = target.read_all(manifest.keys_with_rows)
    return windows.merge([records.WINDOW.empty_table(), *parts]), undated


def _count_shard(
    key: str, documents: Artifact, assignments: Artifact, target: Artifact, n_clusters: int, period: Period
) -> Receipt:
    set_threads(1)
    ingested = documents.read(key, ["doc_id", "text", "timestamp", "reject"])
    table, undated = windows.shard_windows(records.documents_only(ingested), assignments.read(key), period, n_clusters)
    return target.write(key, table, {"undated": undated})
