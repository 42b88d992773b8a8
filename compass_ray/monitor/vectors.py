"""Vectors of usage by language and window: a keyed sample, and what a classifier makes of it.

Cost: embeddings are read once; a worker holds a shard, or the samples of some languages, at most 2,000 vectors of
reference and 1,000 of new usage a language and window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from compass_ray import records, seeding
from compass_ray.artifacts import Artifact, Receipt, artifact, digest
from compass_ray.monitor.config import Period
from compass_ray.monitor.separation import Separation, separation
from compass_ray.monitor.windows import window_starts
from compass_ray.runtime.stage import Session, shuffle
from compass_ray.runtime.threads import set_threads
from compass_ray.vectors import finite_rows, from_column

VERSION = 1
REFERENCE, NEW = 2_000, 1_000
"""Vectors of a language that are kept, and of a window of it that are compared with them."""

Window = tuple[str, datetime | None]
"""A language and the start of a window; None where there is but one."""
_PARTS = 64
_FEWEST = 10
"""Vectors of a side that can be told from another: two a fold."""
_COLUMNS = ["target_lang", "start", "doc_id", "vector"]
_SEPARATION = pa.schema(
    [records.WINDOW.field("start"), *((name, pa.float64()) for name in ("auc", "low", "high", "p_value"))]
)


@dataclass(frozen=True)
class _Job:
    """What the tasks of one sample share."""

    documents: Artifact
    embeddings: Artifact
    target: Artifact
    rates: Mapping[Window, float]
    seed: int
    period: Period = "all"
    as_of: datetime | None = None
    reference: Mapping[str, NDArray[np.float16]] = field(default_factory=dict)
    langs: Sequence[str] = ()

    def run(self, combine: Callable[..., list[Receipt]], missing: list[str]) -> Iterator[Receipt]:
        """Bring samples together by language, and do something with each."""
        job = replace(self, langs=missing)
        shards = [
            key
            for key, receipt in self.embeddings.manifest().receipts.items()
            if any(role == "usage" for role, *_ in receipt.summary["groups"])
        ]
        for receipts in shuffle(_split, shards, combine, min(_PARTS, len(missing)), job):
            yield from receipts


def keep_usage(
    documents: Artifact, embeddings: Artifact, counts: Mapping[str, int], seed: int, session: Session
) -> Artifact:
    """Keep a sample of the vectors of usage, for what may come to be compared with it.

    Parameters
    ----------
    documents, embeddings : Artifact
    counts : mapping of str to int
        Usage documents of each language.
    seed : int
        Which documents are kept follows from it and their ids.

    Returns
    -------
    Artifact
        A table by language: ``doc_id`` and ``vector``, at most 2,000 rows.
    """
    body = {"version": VERSION, "embeddings": embeddings.fingerprint, "limit": REFERENCE, "seed": seed}
    target = artifact(session.output, "usage_vectors", body | {"langs": sorted(counts)})
    rates: dict[Window, float] = {(lang, None): _rate(count, REFERENCE) for lang, count in counts.items()}
    job = _Job(documents, embeddings, target, rates, seed)
    session.complete(target, sorted(counts), lambda missing: job.run(_keep, missing))
    return target


def compare_usage(
    documents: Artifact,
    embeddings: Artifact,
    reference: Mapping[str, NDArray[np.float16]],
    counts: Mapping[Window, int],
    period: Period,
    as_of: datetime | None,
    seed: int,
    session: Session,
) -> dict[Window, Separation]:
    """Compare windows of new usage with reference usage by their vectors.

    Parameters
    ----------
    documents, embeddings : Artifact
        Of new usage.
    reference : mapping of str to ndarray of shape (n, d), float16
        Vectors of reference usage by language.
    counts : mapping of Window to int
        Documents of each window that is to be compared; its language is in ``reference``.
    period, as_of
        How usage is cut into windows.
    """
    langs = sorted({lang for lang, _ in counts})
    body = {
        "version": VERSION,
        "embeddings": embeddings.fingerprint,
        "reference": {lang: digest(np.ascontiguousarray(reference[lang]).tobytes()) for lang in langs},
        "windows": sorted([lang, str(start)] for lang, start in counts),
        "period": period,
        "as_of": None if as_of is None else as_of.astimezone(UTC).isoformat(),
        "limit": NEW,
        "seed": seed,
    }
    target = artifact(session.output, "separation", body)
    rates = {window: _rate(count, NEW) for window, count in counts.items()}
    job = _Job(documents, embeddings, target, rates, seed, period, as_of, {lang: reference[lang] for lang in langs})
    session.complete(target, langs, lambda missing: job.run(_compare, missing))
    rows = ((lang, row) for lang in langs for row in target.read(lang).to_pylist())
    return {(lang, row.pop("start")): Separation(**row) for lang, row in rows}


def _rate(documents: int, limit: int) -> float:
    """Compute the share of documents to draw. With it almost never fewer than ``limit`` of them come."""
    return min(1.0, (limit + 6 * float(np.sqrt(limit))) / max(documents, 1))


def _split(key: str, parts: int, job: _Job) -> list[pa.Table]:
    """Read what a shard holds of each part's languages."""
    set_threads(1)
    rows = job.embeddings.read(key, ["doc_id", "role", "target_lang", "vector"])
    starts = pa.nulls(rows.num_rows, records.WINDOW.field("start").type)
    inside = np.asarray(pc.equal(rows["role"], "usage"))
    if job.period != "all" or job.as_of is not None:
        known = records.documents_only(job.documents.read(key, ["doc_id", "timestamp", "reject"]))  # the same rows
        starts = window_starts(known["timestamp"], job.period)
        if job.as_of is not None:
            later = pc.fill_null(pc.greater(known["timestamp"], pa.scalar(job.as_of, starts.type)), False)
            inside &= ~np.asarray(later)
    windows = zip(rows["target_lang"].to_pylist(), starts.to_pylist(), strict=True)
    inside &= _draws(rows, job.seed) < np.array([job.rates.get(window, 0.0) for window in windows])
    found = finite_rows(rows.append_column("start", starts).filter(pa.array(inside))).select(_COLUMNS)
    mine = [pa.array(job.langs[part::parts], pa.string()) for part in range(parts)]
    return [found.filter(pc.is_in(found["target_lang"], langs)) for langs in mine]


def _draws(rows: pa.Table, seed: int) -> NDArray[np.float64]:
    return seeding.uniform(records.ids_to_numpy(rows["doc_id"]), seed, "usage_vectors")


def _sample(rows: pa.Table, limit: int, seed: int) -> pa.Table:
    """Take the documents that are drawn first, in that order.

    They are the same however they were spread over shards.
    """
    return rows.take(pa.array(np.argsort(_draws(rows, seed), kind="stable")[:limit]))


def _keep(part: int, parts: int, pieces: list[pa.Table], job: _Job) -> list[Receipt]:
    rows, receipts = pa.concat_tables(pieces), []
    for lang in job.langs[part::parts]:
        kept = _sample(rows.filter(pc.equal(rows["target_lang"], lang)), REFERENCE, job.seed)
        receipts.append(job.target.write(lang, kept.select(["doc_id", "vector"])))
    return receipts


def _compare(part: int, parts: int, pieces: list[pa.Table], job: _Job) -> list[Receipt]:
    set_threads(1)
    rows, receipts = pa.concat_tables(pieces), []
    for lang in job.langs[part::parts]:
        mine = rows.filter(pc.equal(rows["target_lang"], lang))
        found = []
        for start in sorted((start for other, start in job.rates if other == lang), key=str):
            column = mine["start"]
            window = mine.filter(
                pc.is_null(column) if start is None else pc.equal(column, pa.scalar(start, column.type))
            )
            new = from_column(_sample(window, NEW, job.seed)["vector"])
            if min(len(new), len(job.reference[lang])) < _FEWEST:
                continue
            rng = np.random.default_rng(seeding.child_seed(job.seed, "separation", lang, str(start)))
            found.append({"start": start, **asdict(separation(job.reference[lang], new, rng))})
        receipts.append(job.target.write(lang, pa.Table.from_pylist(found, _SEPARATION)))
    return receipts
