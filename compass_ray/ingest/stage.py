"""Ingest: files -> documents in logical shards.

A Ray Data ``Datasource`` reads files and byte ranges in parallel, a hash shuffle on the shard
brings equal content together, and one task per shard sorts, deduplicates and writes it.
Cost: every input byte is read once (again only for missing shards of an interrupted run) and every
row moves once through the object store; a worker holds one shard. Near-duplicates, if they are looked for, are stages
of their own: see :mod:`compass_ray.ingest.near_duplicates`.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from types import MappingProxyType
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from compass_ray import paths, records, shards
from compass_ray.artifacts import Artifact, Manifest, Receipt, artifact
from compass_ray.configbase import identity
from compass_ray.errors import DataError, EmptyInput, TooManyBadRows
from compass_ray.ingest.config import EVALUATIONS, Decontamination, IngestConfig, Limits, SourceConfig, View
from compass_ray.ingest.contamination import Evaluations, merged
from compass_ray.ingest.documents import FILTERS, to_documents
from compass_ray.ingest.evaluations import evaluation_ngrams
from compass_ray.ingest.files import HashCache, InputFile, ReadUnit, check_unchanged, read_units
from compass_ray.ingest.layouts import Layouts, find_layouts, plan_layouts
from compass_ray.ingest.listing import Listing, list_source
from compass_ray.ingest.losses import estimated_rows
from compass_ray.ingest.near_duplicates import (
    NearDuplicates,
    find_near_duplicates,
    plan_near_duplicates,
    write_distinct,
)
from compass_ray.ingest.readers import read
from compass_ray.ingest.shuffle import count_rows, finish_shard
from compass_ray.runtime.stage import Session, map_keys

VERSION = 3
EVALUATIONS_VERSION = 2
_TASKS_PER_CPU = 4
_NOT_QUARANTINED = frozenset({"document", "duplicate", "near_duplicate", "filtered"})


@dataclass(frozen=True)
class IngestPlan:
    """What will be read, and into how many shards; ``listings`` say what will not, by source and evaluation."""

    sources: Mapping[str, SourceConfig]
    listings: Mapping[str, Listing]
    files: Mapping[str, list[InputFile]]
    view: View
    n_shards: int
    artifact: Artifact
    layouts: Layouts | None = None
    evaluations: EvaluationPlan | None = None
    near_duplicates: NearDuplicates | None = None

    @property
    def sizes(self) -> dict[str, int]:
        """Bytes of the files of each source."""
        return {name: sum(file.size for file in files) for name, files in self.files.items()}


@dataclass(frozen=True)
class EvaluationPlan:
    """What pool rows are compared with, and the artifact of its n-grams, one key per evaluation."""

    config: Decontamination
    files: Mapping[str, list[InputFile]]
    limits: Limits
    artifact: Artifact


def plan(
    sources: Mapping[str, SourceConfig], config: IngestConfig, output: str, section: str = "sources"
) -> IngestPlan:
    """List and fingerprint all inputs; no row is read.

    Parameters
    ----------
    section : str
        Where the config has the sources, for errors.

    Raises
    ------
    EmptyInput, ConfigError, DataError
        As :func:`~compass_ray.ingest.listing.list_source`: all is listed before anything is hashed.
    """
    written = [paths.cache_path(output)]
    listings = {name: list_source(name, source, section, written) for name, source in sources.items()}
    looked = config.decontaminate.evaluations if config.decontaminate else {}
    evaluated = {name: list_source(name, given, EVALUATIONS, written) for name, given in looked.items()}
    cache = HashCache(paths.cache_path(output, "inputs.json"))
    files = {name: cache.with_content(listing.files) for name, listing in listings.items()}
    listings |= {f"evaluation {name}": listing for name, listing in evaluated.items()}
    weight = sum(file.weight for members in files.values() for file in members)
    n_shards = shards.shard_count(weight, config.shard_bytes)
    described = {
        name: {**identity(source), "files": [[file.uri, file.format, file.content] for file in files[name]]}
        for name, source in sources.items()
    }
    body = {
        "version": VERSION,
        "sources": described,
        "view": config.view,
        "n_shards": n_shards,
        "limits": [*config.limits],
    }
    layouts, evaluations = plan_layouts(sources, files, output), None
    if config.decontaminate is not None:
        compared = {name: cache.with_content(listing.files) for name, listing in evaluated.items()}
        evaluations = _plan_evaluations(config.decontaminate, config.limits, compared, output)
        body["evaluations"] = evaluations.artifact.fingerprint
    if config.minhash is None:
        target = artifact(output, "ingest", body)
        return IngestPlan(sources, listings, files, config.view, n_shards, target, layouts, evaluations)
    near = plan_near_duplicates(config.minhash, artifact(output, "read", body), n_shards, output)
    target = artifact(output, "ingest", {"version": VERSION, "minhash": near.found.fingerprint})
    return IngestPlan(sources, listings, files, config.view, n_shards, target, layouts, evaluations, near)


def _plan_evaluations(
    config: Decontamination, limits: Limits, files: Mapping[str, list[InputFile]], output: str
) -> EvaluationPlan:
    contents = {name: [[file.uri, file.format, file.content] for file in members] for name, members in files.items()}
    body = {"version": EVALUATIONS_VERSION, **identity(config), "files": contents, "limits": [*limits]}
    return EvaluationPlan(config, files, limits, artifact(output, "evaluations", body))


def ingest(plan: IngestPlan, config: IngestConfig, session: Session) -> Manifest:
    """Read all sources into the plan's artifact, one key per logical shard; say what of them is not read."""
    for name, listing in plan.listings.items():
        for line in listing.said:
            session.display.say(f"{name}: {line}")
    if plan.layouts is not None:
        find_layouts(plan.layouts, session)
    if plan.evaluations is not None:
        _read_evaluations(plan.evaluations, session)
    keys = shards.shard_keys(plan.n_shards)
    near = plan.near_duplicates
    if near is None:
        return session.complete(plan.artifact, keys, partial(_read_and_shuffle, plan, config, plan.artifact))
    if not plan.artifact.exists():  # else what it was made from is not needed
        session.complete(near.read, keys, partial(_read_and_shuffle, plan, config, near.read))
        find_near_duplicates(near, session)
    return session.complete(plan.artifact, keys, partial(write_distinct, near, plan.artifact))


def _read_evaluations(plan: EvaluationPlan, session: Session) -> None:
    session.complete(plan.artifact, sorted(plan.files), lambda missing: map_keys(_write_evaluation, missing, plan))


def _write_evaluation(name: str, plan: EvaluationPlan) -> Receipt:
    evaluation = plan.config.evaluations[name]
    table, counts = evaluation_ngrams(
        name,
        evaluation,
        plan.files[name],
        plan.config.lengths,
        plan.limits,
        vowel_marks=plan.config.vowel_marks,
    )
    if not table.num_rows:
        needed = ", ".join(f"{length} {unit}" for unit, length in plan.config.lengths._asdict().items())
        raise EmptyInput(
            f"{EVALUATIONS}.{name}: none of its {counts['texts']} texts is long enough to be "
            f"compared ({needed}, or half of it as a whole); check columns"
        )
    return plan.artifact.write(name, table, counts)


def _load_evaluations(plan: EvaluationPlan) -> Evaluations:
    tables = {name: plan.artifact.read(name) for name in sorted(plan.files)}
    return merged(tables, plan.config.lengths, vowel_marks=plan.config.vowel_marks)


def _read_and_shuffle(
    plan: IngestPlan, config: IngestConfig, target: Artifact, missing: list[str]
) -> Iterator[Receipt]:
    import ray.data
    from ray.data.context import ShuffleStrategy

    from compass_ray.ingest.datasource import CorpusDatasource
    from compass_ray.runtime.cluster import cluster_cpus

    wanted = frozenset(int(key) for key in missing)
    units = read_units(plan.files, config.range_bytes)
    reader = partial(
        read_unit,
        sources=dict(plan.sources),
        view=plan.view,
        n_shards=plan.n_shards,
        wanted=wanted,
        limits=config.limits,
    )
    if plan.evaluations is not None:  # made and kept in the object store, whence workers share it
        loaded = ray.remote(_load_evaluations).remote(plan.evaluations)
        reader = partial(_read_compared, reader=reader, evaluations=[loaded])
    tasks = min(len(units), _TASKS_PER_CPU * cluster_cpus())
    dataset = ray.data.read_datasource(CorpusDatasource(units, reader), override_num_blocks=tasks)
    # Ray's default, a hash shuffle, starts actors that hold all rows on their heaps, which cannot spill; on a small
    # corpus their start takes five times as long as the work (measured). A sort runs as tasks.
    dataset.context.shuffle_strategy = ShuffleStrategy.SORT_SHUFFLE_PULL_BASED
    shuffled = dataset.groupby("shard", num_partitions=min(len(missing), 256)).map_groups(
        partial(_write_shard, artifact=target), batch_format="pyarrow"
    )
    written = set()
    for batch in shuffled.iter_batches(batch_size=None, batch_format="pyarrow"):
        for line in batch["receipt"].to_pylist():
            receipt = Receipt(**json.loads(line))
            written.add(receipt.key)
            yield receipt
    for key in missing:
        if key not in written:  # no row fell into this shard
            empty = records.INGESTED.empty_table()
            yield target.write(key, empty, count_rows(empty))


def _read_compared(
    unit: ReadUnit, reader: Callable[..., Iterator[pa.Table]], evaluations: list[Any]
) -> Iterator[pa.Table]:
    import ray

    return reader(unit, evaluations=ray.get(evaluations[0]))


def read_unit(
    unit: ReadUnit,
    sources: Mapping[str, SourceConfig],
    view: View,
    n_shards: int,
    wanted: frozenset[int],
    limits: Limits = Limits(),  # noqa: B008 immutable
    evaluations: Evaluations | None = None,
) -> Iterator[pa.Table]:
    """Read the documents and rejects of one read unit. They are those for the wanted shards, in tables of bounded size.

    Raises
    ------
    DataError
        If the file is no longer the one that was listed.
    ResourcesMissing
        If its storage fails: that is not a fault of the data, so no reject.
    """
    source = sources[unit.source]
    keys = pa.array(sorted(wanted), pa.int32())
    try:
        for batch in read(unit, source.wanted_columns, limits):
            table = to_documents(batch, unit.source, source, unit.file.uri, view, n_shards, evaluations)
            yield table.filter(pc.is_in(table["shard"], keys))
        check_unchanged(unit.file)
    except FileNotFoundError as exc:
        raise DataError(
            f"{unit.file.place}: was deleted after it was listed, or is on a disk that not all nodes share; let "
            "writers finish and run again"
        ) from exc


def _write_shard(rows: pa.Table, artifact: Artifact) -> pa.Table:
    shard = rows["shard"][0].as_py()
    table = finish_shard(rows.select(records.INGESTED.names).cast(records.INGESTED))
    receipt = artifact.write(shards.shard_key(shard), table, count_rows(table))
    return pa.table({"receipt": [json.dumps(asdict(receipt))]})


def row_counts(manifest: Manifest) -> dict[tuple[str, str], int]:
    """Count rows by (source, outcome).

    The outcome is ``document`` or the reason of the reject. A fault counts as the rows that are lost with it; as one
    where nobody could count them: see ``estimated_rows``.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for receipt in manifest.receipts.values():
        for source, outcome, rows in receipt.summary["rows"]:
            counts[source, outcome] += rows
    return dict(counts)


def mojibake_counts(manifest: Manifest) -> dict[str, int]:
    """Count documents that look like mojibake, by source."""
    counts: Counter[str] = Counter()
    for receipt in manifest.receipts.values():
        counts.update(dict(receipt.summary["mojibake"]))
    return dict(sorted(counts.items()))


def note_counts(manifest: Manifest) -> dict[str, dict[str, int]]:
    """Count documents by source and what is noted of them. Noted is what was not read, or not there."""
    counts: Counter[tuple[str, str]] = Counter()
    for receipt in manifest.receipts.values():
        for source, note, documents in receipt.summary["notes"]:
            counts[source, note] += documents
    found: dict[str, dict[str, int]] = {}
    for (source, note), documents in sorted(counts.items()):
        found.setdefault(source, {})[note] = documents
    return found


def contaminated_counts(manifest: Manifest) -> dict[str, int]:
    """Count contaminated pool rows by evaluation file, ``evaluation:uri``."""
    counts: Counter[str] = Counter()
    for receipt in manifest.receipts.values():
        counts.update(dict(receipt.summary.get("contaminated", ())))  # artifacts of older versions have none
    return dict(sorted(counts.items()))


def evaluation_counts(plan: IngestPlan) -> dict[str, dict[str, int]]:
    """Read what :func:`evaluation_ngrams` counts, by evaluation. Empty without decontamination."""
    receipts = {} if plan.evaluations is None else plan.evaluations.artifact.manifest().receipts
    return {name: receipt.summary for name, receipt in receipts.items()}


def document_counts(manifest: Manifest) -> dict[tuple[str, str | None, str], int]:
    """Count documents by (role, target language, language)."""
    counts: Counter[tuple[str, str | None, str]] = Counter()
    for receipt in manifest.receipts.values():
        for role, target_lang, lang, rows in receipt.summary["documents"]:
            counts[role, target_lang, lang] += rows
    return dict(counts)


def shards_with(manifest: Manifest, role: str) -> list[str]:
    """List keys of the shards that hold a document of a role."""
    return [
        key for key, receipt in manifest.receipts.items() if any(row[0] == role for row in receipt.summary["documents"])
    ]


def check_usable(
    manifest: Manifest,
    config: IngestConfig,
    required_roles: Iterable[str],
    sizes: Mapping[str, int] = MappingProxyType({}),
    section: str = "sources",
) -> None:
    """Refuse data with too many structural faults, or with a needed role empty.

    Parameters
    ----------
    sizes : mapping of source to int
        Bytes of its files, by which faults are weighed whose rows nobody could count; without them each is a row.
    section : str
        Where the config has the sources, for errors.

    Raises
    ------
    TooManyBadRows, EmptyInput
    """
    counts = row_counts(manifest)
    estimated = estimated_rows(manifest, counts, sizes)
    counts |= estimated
    bad = Counter[Any]()
    for (source, outcome), rows in counts.items():
        if outcome != "document" and outcome not in FILTERS:
            bad[source, outcome] += rows
    read_rows = sum(counts.values())
    if bad.total() > config.max_bad_fraction * read_rows:
        worst = "; ".join(
            f"{section}.{key[0]}: {'about ' if key in estimated else ''}{rows} × {key[1]}"
            for key, rows in bad.most_common(5)
        )
        about = "about " if estimated else ""
        raise TooManyBadRows(
            f"{about}{bad.total()} of {about}{read_rows} rows are broken ({bad.total() / read_rows:.2%}), above "
            f"ingest.max_bad_fraction = {config.max_bad_fraction:.2%}; worst: {worst}. See quarantine.parquet; "
            "mend the files or raise the ceiling"
        )
    present = {role for role, _, _ in document_counts(manifest)}
    for role in required_roles:
        if role not in present:
            found = {outcome: rows for (_, outcome), rows in sorted(counts.items())}
            raise EmptyInput(
                f"no {role} document is left of {read_rows} rows ({found}); check {section} with role {role}"
            )


def quarantine(documents: Artifact, session: Session) -> Artifact:
    """Collect the rejects a person should look at: all but copies and rows a ``where`` left out."""
    keys = [
        key
        for key, receipt in documents.manifest().receipts.items()
        if any(outcome not in _NOT_QUARANTINED for _, outcome, _ in receipt.summary["rows"])
    ]
    target = artifact(session.output, "quarantine", {"version": VERSION, "documents": documents.fingerprint})
    session.complete(target, keys, lambda missing: map_keys(_quarantine_shard, missing, documents, target))
    return target


def _quarantine_shard(key: str, documents: Artifact, target: Artifact) -> Receipt:
    shard = documents.read(key, ["source", "uri", "row", "lost", "reject"])
    shard = shard.filter(shard["reject"].is_valid())
    rejects = shard.drop_columns(["lost"]).flatten()
    rejects = rejects.rename_columns([name.removeprefix("reject.") for name in rejects.column_names])
    one = shard["lost"].is_null()
    lost = {name: pc.struct_field(shard["lost"], name) for name in ("rows", "bytes")}
    rejects = rejects.append_column("rows", pc.if_else(one, 1, lost["rows"]))
    rejects = rejects.append_column("lost_bytes", lost["bytes"].fill_null(0))
    kept = [reason not in _NOT_QUARANTINED for reason in rejects["reason"].to_pylist()]
    table = rejects.filter(pa.array(kept, pa.bool_())).select(records.QUARANTINE.names)
    return target.write(key, table.cast(records.QUARANTINE))
