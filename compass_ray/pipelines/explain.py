"""Explain: what became of one document in a finished run.

Needs no cluster. Cost: one shard of documents, embeddings and assignments each, what the sample stage left, and what
finding the document takes (see :mod:`compass_ray.pipelines.lookup`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from compass_ray import records, storage
from compass_ray.artifacts import Artifact, open_artifact
from compass_ray.cluster.codebook import read_codebook
from compass_ray.errors import ConfigError
from compass_ray.pipelines import lookup
from compass_ray.pipelines.lookup import Place
from compass_ray.pipelines.run import CurationRun
from compass_ray.sample.stage import drawing_of
from compass_ray.sample.verdict import Drawing, SelectionVerdict, verdict
from compass_ray.vectors import from_column, unit_rows

_ID = re.compile(r"[0-9a-f]{32}")
_COLUMNS = [name for name in records.ASSIGNMENT.names if name != "similarities"]
_DOCUMENTS = 10


@dataclass(frozen=True)
class Explanation:
    """What became of one document.

    Attributes
    ----------
    text : str
        What is embedded; of a reject what the quarantine would show, of a near-duplicate its beginning.
    rows : list of dict
        Every input row with this id: source, uri, row, role, target language, lang, and ``reject``, null for the one
        that was kept.
    assignment : dict or None
        Cluster, similarity and outlier; null for a reject.
    verdicts : list of SelectionVerdict
        One for each target language; empty unless the document is in the pool.
    """

    doc_id: str
    text: str
    rows: list[dict[str, Any]]
    assignment: dict[str, Any] | None
    verdicts: list[SelectionVerdict]


@dataclass(frozen=True)
class SameText:
    """What became of the documents with one text: pool, usage and current data, in any language.

    Attributes
    ----------
    documents : list of Explanation
        At most ten.
    more : int
        How many there are beside these.
    """

    documents: list[Explanation]
    more: int


def open_run(path: str) -> CurationRun:
    """Open a run that somebody else has finished."""
    return CurationRun(storage.absolute(path))


def explain(run: CurationRun, doc_id: str) -> Explanation:
    """Say why a document was or was not chosen.

    Parameters
    ----------
    run : CurationRun
        A finished run whose ``cache`` is still there.
    doc_id : str
        As in ``selection/``: 32 hexadecimal digits.

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
    made = _Made.by(run)
    place = lookup.by_id(made.documents, bytes.fromhex(doc_id))
    if place is None:
        raise ConfigError(
            f"document {doc_id}: {run.path} has read no such document; ask by its text (--text) or its row "
            "(--source and --row)"
        )
    return made.explain([place])[0]


def explain_row(run: CurationRun, source: str, row: int, uri: str | None = None) -> Explanation:
    """Say it of the document in a row; arguments as in :func:`lookup.by_row`, errors of both."""
    made = _Made.by(run)
    return made.explain([lookup.by_row(made.documents, source, row, uri)])[0]


def explain_line(run: CurationRun, source: str, line: int, uri: str | None = None) -> Explanation:
    """Say it of the document in a line; arguments as in :func:`lookup.by_line`, errors of both."""
    made = _Made.by(run)
    return made.explain([lookup.by_line(made.documents, source, line, uri)])[0]


def explain_text(run: CurationRun, text: str) -> SameText:
    """Say it of all documents with a text, or else of a reject that holds it.

    Parameters
    ----------
    text : str
        What is embedded, or what it was in the source before it was cleaned.

    Raises
    ------
    ConfigError
        If there is none; otherwise as :func:`explain`.
    """
    made = _Made.by(run)
    places = lookup.by_text(made.documents, text)
    if places:
        return SameText(made.explain(places[:_DOCUMENTS]), max(0, len(places) - _DOCUMENTS))
    rejects = lookup.rejects_by_text(made.documents, storage.join(run.path, "quarantine.parquet"), text)
    first = list(islice(rejects, 1))
    if not first:
        raise ConfigError(
            f"no document of {run.path} has this text, nor does a reject; give all that is embedded of the document "
            "(of a conversation what ingest.view names, turn by turn), or ask by its row (--source and --row)"
        )
    return SameText(made.explain(first), sum(1 for _ in rejects))


@dataclass(frozen=True)
class _Made:
    """What a run was made into, as far as explanations need it."""

    documents: Artifact
    embeddings: Artifact
    assignments: Artifact
    near_usage: Artifact
    codebook: str  # its URL
    drawing: Drawing

    @classmethod
    def by(cls, run: CurationRun) -> _Made:
        record = run.record
        (sampled,) = run.artifacts("sample")
        drawing = drawing_of(sampled, record["seed"])  # refuses runs of other versions
        ingested, embedded, assigned, near_usage = run.artifacts("ingest", "embed", "assign", "near_usage")
        return cls(ingested, embedded, assigned, near_usage, record["codebook"], drawing)

    def explain(self, places: list[Place]) -> list[Explanation]:
        """Explain what became of documents with one text. They lie in one shard."""
        key, wanted = places[0].key, [place.doc_id for place in places]
        documents = _with_ids(self.documents.read(key), wanted)
        same = self.assignments.read(key, _COLUMNS)
        same = same.filter(pc.is_in(same["content_id"], value_set=documents["content_id"].combine_chunks()))
        assigned = {row["doc_id"]: row for row in same.to_pylist()}
        in_pool = [doc_id for doc_id in wanted if doc_id in assigned and assigned[doc_id]["role"] == "pool"]
        verdicts = self._verdicts(key, [assigned[doc_id] for doc_id in in_pool], same) if in_pool else {}
        rows: dict[bytes, list[dict[str, Any]]] = {doc_id: [] for doc_id in wanted}
        for row in documents.to_pylist():
            rows[row["doc_id"]].append(row)
        return [_explanation(rows[doc_id], assigned.get(doc_id), verdicts.get(doc_id, [])) for doc_id in wanted]

    def _verdicts(
        self, key: str, assigned: list[dict[str, Any]], same: pa.Table
    ) -> dict[bytes, list[SelectionVerdict]]:
        """Make one verdict for each target language, by id: of pool documents alone."""
        rows = _with_ids(self.embeddings.read(key, ["doc_id", "vector"]), [row["doc_id"] for row in assigned])
        vectors = dict(zip(rows["doc_id"].to_pylist(), unit_rows(from_column(rows["vector"])), strict=True))
        codebook = read_codebook(open_artifact(self.codebook))
        near = self.near_usage.read(key)

        def verdicts_on(row: dict[str, Any]) -> list[SelectionVerdict]:
            vector, threshold = vectors[row["doc_id"]], codebook.threshold(row["lang"])
            mine = near.filter(pc.equal(near["doc_id"], pa.scalar(row["doc_id"], records.ID)))
            target_langs = self.drawing.target_langs
            return [
                verdict(row, vector, same, mine, threshold, target_lang, self.drawing) for target_lang in target_langs
            ]

        return {row["doc_id"]: verdicts_on(row) for row in assigned}


def _with_ids(table: pa.Table, wanted: list[bytes]) -> pa.Table:
    return table.filter(pc.is_in(table["doc_id"], value_set=pa.array(wanted, records.ID)))


def _explanation(
    rows: list[dict[str, Any]], assignment: Mapping[str, Any] | None, verdicts: list[SelectionVerdict]
) -> Explanation:
    text = next(filter(None, map(_text, rows)), "")
    kept = None
    if assignment is not None:
        kept = {name: assignment[name] for name in ("cluster", "similarity", "outlier", "tokens")}
    return Explanation(rows[0]["doc_id"].hex(), text, [_shown(row) for row in rows], kept, verdicts)


def _text(row: Mapping[str, Any]) -> str:
    """Take what is embedded of a document. Of a reject that kept its start, take that."""
    text = row["text"] if row["text"] is not None else row["reject"]["raw"].decode(errors="ignore")
    return str(text)


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    names = ("source", "uri", "row", "role", "target_lang", "lang")
    reject = row["reject"]
    return {**{name: row[name] for name in names}, "reject": reject and {k: reject[k] for k in ("reason", "message")}}
