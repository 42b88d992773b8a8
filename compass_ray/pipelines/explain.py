"""Explain: what became of one document in a finished run. Cost: one pass over the ids of all shards."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from compass_ray import records, storage
from compass_ray.artifacts import Artifact, open_artifact
from compass_ray.cluster.codebook import read_codebook
from compass_ray.errors import ConfigError
from compass_ray.pipelines.run import CurationRun
from compass_ray.runtime.cluster import connect, ray_errors
from compass_ray.runtime.config import RayConfig
from compass_ray.runtime.stage import map_keys
from compass_ray.sample.stage import drawing_of
from compass_ray.sample.verdict import Verdict, verdict
from compass_ray.vectors import from_column, unit_rows

_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class Explanation:
    """What became of one document.

    Attributes
    ----------
    text : str
        What is embedded; of a reject what the quarantine would show, of a near-duplicate its beginning.
    rows : list of dict
        Every input row with this id: source, uri, row, role, owner, lang, and ``reject``, null for the one that
        was kept.
    assignment : dict or None
        Cluster, similarity and outlier; null for a reject.
    verdicts : list of Verdict
        One for each owner; empty unless the document is in the pool.
    """

    doc_id: str
    text: str
    rows: list[dict[str, Any]]
    assignment: dict[str, Any] | None
    verdicts: list[Verdict]


def open_run(path: str) -> CurationRun:
    """A run that somebody else has finished."""
    return CurationRun(storage.absolute(path))


def explain(run: CurationRun, doc_id: str, address: str | None = None) -> Explanation:
    """Say why a document was or was not chosen.

    Parameters
    ----------
    run : CurationRun
        A finished run whose ``cache`` is still there.
    doc_id : str
        As in ``selection/``: 32 hexadecimal digits.
    address : str, optional
        Of the Ray cluster to join.

    Raises
    ------
    ConfigError
        If it is no id, or the run has no such document.
    ArtifactMissing
    FingerprintMismatch
        If another version has made the selection.
    """
    if not _ID.fullmatch(doc_id):
        raise ConfigError(f"document id {doc_id!r}: expected 32 hexadecimal digits, as in the column doc_id")
    record = run.record
    documents, embeddings, assignments, sampled = (
        _artifact(run, record, stage) for stage in ("ingest", "embed", "assign", "sample")
    )
    drawing = drawing_of(sampled, record["seed"])
    wanted = bytes.fromhex(doc_id)
    connect(RayConfig(address=address))
    keys = list(documents.manifest().receipts)
    with ray_errors():
        found = [rows for rows in map_keys(_find, keys, documents, assignments, wanted) if rows is not None]
    if not found:
        raise ConfigError(f"document {doc_id}: {run.path} has read no such document")
    (key, rows, same_content) = found[0]
    shown = [_shown(row) for row in rows.to_pylist()]
    text = next(filter(None, map(_text, rows.to_pylist())), "")
    mine = same_content.filter(pc.equal(same_content["doc_id"], wanted)).to_pylist()
    if not mine:
        return Explanation(doc_id, text, shown, None, [])
    assignment = mine[0]
    verdicts = []
    if assignment["role"] == "pool":
        threshold = read_codebook(open_artifact(record["codebook"])).threshold(assignment["lang"])
        vector = _vector(embeddings, key, wanted)
        verdicts = [verdict(assignment, vector, same_content, threshold, owner, drawing) for owner in drawing.owners]
    kept = {name: assignment[name] for name in ("cluster", "similarity", "outlier", "tokens")}
    return Explanation(doc_id, text, shown, kept, verdicts)


def _artifact(run: CurationRun, record: Mapping[str, Any], stage: str) -> Artifact:
    output = run.path.rsplit("/runs/", 1)[0]
    return open_artifact(storage.join(output, "cache", record["stages"][stage]["artifact"]))


def _find(key: str, documents: Artifact, assignments: Artifact, wanted: bytes) -> tuple[str, pa.Table, pa.Table] | None:
    """The shard of a document, its rows there, and the assignments of all rows with the same content."""
    ids = documents.read(key, ["doc_id"])["doc_id"]
    here = pc.fill_null(pc.equal(ids, pa.scalar(wanted, records.ID)), False)
    if not pc.any(here).as_py():
        return None
    rows = documents.read(key).filter(here)
    assigned = assignments.read(key)
    same = assigned.filter(pc.is_in(assigned["content_id"], value_set=rows["content_id"].combine_chunks()))
    return key, rows, same


def _vector(embeddings: Artifact, key: str, wanted: bytes) -> NDArray[np.float32]:
    """The unit vector of an embedded document, shape (d,)."""
    rows = embeddings.read(key, ["doc_id", "vector"])
    one: NDArray[np.float32] = unit_rows(from_column(rows.filter(pc.equal(rows["doc_id"], wanted))["vector"]))[0]
    return one


def _text(row: Mapping[str, Any]) -> str:
    """What is embedded of a document, or the start of it if it is a reject that kept it."""
    text = row["text"] if row["text"] is not None else row["reject"]["raw"].decode(errors="ignore")
    return str(text)


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    names = ("source", "uri", "row", "role", "owner", "lang")
    reject = row["reject"]
    return {**{name: row[name] for name in names}, "reject": reject and {k: reject[k] for k in ("reason", "message")}}
