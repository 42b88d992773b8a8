"""Publish: the artifacts of a run -> the folder that people and other tools read.

Cost: the selection of one target language at a time is held in memory, ``run.json`` is written last.
"""

from __future__ import annotations

import importlib.metadata
import platform
import resource
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from compass_ray import records, storage
from compass_ray.artifacts import Artifact, Manifest, canonical_json, digest
from compass_ray.cluster.codebook import KEY
from compass_ray.config import RunConfig
from compass_ray.configbase import identity
from compass_ray.errors import ArtifactMissing
from compass_ray.ingest.losses import estimated_rows
from compass_ray.ingest.stage import (
    IngestPlan,
    contaminated_counts,
    evaluation_counts,
    mojibake_counts,
    note_counts,
    row_counts,
)
from compass_ray.languages import language_mix, language_name
from compass_ray.pipelines.planned import Clustered, Plan
from compass_ray.pipelines.run import CurationRun
from compass_ray.pipelines.run_folder import RunFolder
from compass_ray.runtime.stage import Session
from compass_ray.sample.stage import DRAW, GAPS, HISTOGRAMS, certificate
from compass_ray.version import __version__

ROWS_PER_FILE = 100_000
_VERSIONED = (
    "ray", "pyarrow", "numpy", "scipy", "torch", "scikit-learn", "sentence-transformers", "langcodes",
    "transformers", "peft", "deepspeed", "rensa", "py3langid", "pycld2",
)  # fmt: skip


def identity_of(config: RunConfig, planned: Plan) -> str:
    """Hash all that decides the content of a run.
    That is its config's identity, inputs, model, frozen codebook and device.
    """
    body: dict[str, Any] = {
        "config": identity(config),
        "documents": planned.ingest.artifact.fingerprint,
        "space": dict(planned.space),
        "codebook": None if planned.frozen is None else planned.frozen.fingerprint,
        "cluster_device": planned.device,
    }
    return fingerprint(body)


def fingerprint(body: Mapping[str, Any]) -> str:
    """Hash plain JSON."""
    return digest(canonical_json(dict(body)).encode())


def provenance(config: RunConfig, session: Session) -> dict[str, Any]:
    """Say when and from what a record was made, and what stages did for it; by artifact, as some stages run often."""
    return {
        "config": config.unexpanded,
        "seed": config.seed,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "stages": {record.artifact: asdict(record) for record in session.stages},
        "versions": versions(),
    }


def versions() -> dict[str, str | None]:
    """List the versions of what a run's outcome may depend on."""
    return {name: _version(name) for name in _VERSIONED} | {"compass_ray": __version__}


def write_quarantine(run: RunFolder, quarantined: Artifact) -> None:
    """Write all rejects a person should look at, in one file."""
    parts = quarantined.read_all(quarantined.manifest().receipts)
    table = pa.concat_tables([records.QUARANTINE.empty_table(), *parts])
    run.write_table("quarantine.parquet", table)


def write_ingest(run: RunFolder, planned: IngestPlan, manifest: Manifest) -> None:
    """Write what became of every row that was read, by source.

    It also says which files were not read, and how delimited ones were. Contaminated rows are counted by evaluation
    file too. Rows of files that could not be read are ``estimated`` where nobody could count them.
    """
    counts = row_counts(manifest)
    estimated = estimated_rows(manifest, counts, planned.sizes)
    rows = sorted([*key, count] for key, count in (counts | estimated).items())
    body: dict[str, Any] = {"rows": rows, "mojibake": mojibake_counts(manifest), "notes": note_counts(manifest)}
    if estimated:
        body["estimated"] = sorted([*key] for key in estimated)
    left_out = {name: [asdict(one) for one in listing.left_out] for name, listing in planned.listings.items()}
    body["left_out"] = {name: found for name, found in left_out.items() if found}
    body["splits"] = {name: list(listing.notes) for name, listing in planned.listings.items() if listing.notes}
    if evaluations := evaluation_counts(planned):
        body |= {"contaminated": contaminated_counts(manifest), "evaluations": evaluations}
    if planned.layouts is not None:
        body["dialects"] = {name: found for name, found in planned.layouts.counts.items() if found}
    run.write_json("ingest.json", body)


def write_run(
    planned: Plan,
    config: RunConfig,
    run_identity: str,
    sampled: Artifact,
    selected: Artifact,
    clustered: Clustered,
    session: Session,
) -> None:
    """Write the run's folder; ``run.json`` last.

    What is there of the same selection stays in place, since it has the same bytes: two runs of one config may
    publish at once. What an interrupted publication of another one has left is removed.
    """
    run = planned.run
    if not _describes(run, selected):
        storage.delete(storage.join(run.path, "run.json"))
    target_langs = certificate(sampled)
    rows = {target_lang: _write_selection(run, target_lang, sampled, selected) for target_lang in sorted(target_langs)}
    languages = {target_lang: body["languages"] for target_lang, body in target_langs.items()}
    run.write_bytes("selection/README.md", _card(rows, languages, config).encode())
    _remove_others(
        run, {"selection/README.md", *(name for target_lang in rows for name in _files(target_lang, rows[target_lang]))}
    )
    run.write_table("gaps.parquet", sampled.read(GAPS))
    run.write_table("unmet.parquet", unmet(sampled.read(GAPS)))
    run.write_table("histograms.parquet", sampled.read(HISTOGRAMS))
    run.write_json("certificate.json", target_langs)
    write_quarantine(run, clustered.quarantined)
    embeddings = clustered.embeddings
    body = {
        "identity": run_identity,
        "config": config.unexpanded,
        "seed": config.seed,
        "versions": versions(),
        "numerics": _numerics(config) | {"cluster_device": planned.device} | _embedding_faults(embeddings),
        "stages": {record.stage: asdict(record) for record in session.stages},
        "codebook": clustered.codebook.url,
        "clusters": _clusters(clustered),
        "copies": None if clustered.copies is None else asdict(clustered.copies),
        "encoder": embeddings.manifest().identity["encoder"],
        "selected": rows,
        "driver_peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    run.write_json(run.RECORD, body)


def unmet(gaps: pa.Table) -> pa.Table:
    """List what usage asks for and the pool lacks, schema UNMET. Rows are by target language, most first."""
    found = gaps.filter(pc.greater(gaps["unmet"], 0))
    order = [("target_lang", "ascending"), ("unmet", "descending"), ("cluster", "ascending")]
    return found.select(records.UNMET.names).sort_by(order).cast(records.UNMET)


def _clusters(clustered: Clustered) -> dict[str, Any]:
    """Say how many clusters there are. Where the number was found and not given, say why too."""
    summary = clustered.codebook.manifest().receipts[KEY].summary
    told = ("chosen", "dbcv", "noise_fraction")
    return {"n_clusters": clustered.inputs.n_clusters} | {name: summary[name] for name in told if name in summary}


def _describes(run: CurationRun, selected: Artifact) -> bool:
    """Tell whether ``run.json`` is there and tells of this selection."""
    try:
        stages = run.record["stages"]
    except ArtifactMissing:
        return False
    return bool(stages.get(selected.stage, {}).get("artifact") == selected.name)


def _remove_others(run: CurationRun, names: set[str]) -> None:
    kept = {storage.join(run.path, name) for name in names}
    found = storage.list_files(storage.join(storage.literal(run.path), "selection", "**"))
    storage.delete_all([file.url for file in found if file.url not in kept])


def _embedding_faults(embeddings: Artifact) -> dict[str, int]:
    """Count the texts and batches that were not embedded as they should be.
    Halved batches void the guarantee of equal bytes for their shards; non-finite vectors are left out; of a text that
    is cut the encoder has not read the end, of one that is unknown hardly anything.
    """
    summaries = [receipt.summary for receipt in embeddings.manifest().receipts.values()]
    counted = {name: sum(summary[name] for summary in summaries) for name in ("halved_batches", "non_finite", "cut")}
    return {**counted, "unknown": sum(sum(summary["unknown"].values()) for summary in summaries)}


def _write_selection(run: CurationRun, target_lang: str, sampled: Artifact, selected: Artifact) -> int:
    drawn = sampled.read(DRAW)
    shards = set(drawn.filter(pc.equal(drawn["target_lang"], target_lang))["shard"].to_pylist())
    keys = [key for key in selected.manifest().receipts if int(key) in shards]
    parts = (rows.filter(pc.equal(rows["selected_for"], target_lang)) for rows in selected.read_all(keys))
    table = pa.concat_tables([records.SELECTION.empty_table(), *parts]).sort_by(
        [("cluster", "ascending"), ("rank", "ascending")]
    )
    for piece, name in enumerate(_files(target_lang, table.num_rows)):
        run.write_table(name, _for_people(table.slice(piece * ROWS_PER_FILE, ROWS_PER_FILE)))
    return int(table.num_rows)


def _files(target_lang: str, rows: int) -> list[str]:
    pieces = max(1, -(-rows // ROWS_PER_FILE))
    return [f"selection/{target_lang}/train-{piece:05d}-of-{pieces:05d}.parquet" for piece in range(pieces)]


def _for_people(rows: pa.Table) -> pa.Table:
    """Write ids in hex, and leave out the columns that only stages need."""
    hexed = pa.array([value.hex() for value in rows["doc_id"].to_pylist()], pa.string())
    return rows.set_column(0, "doc_id", hexed).drop_columns(["content_id", "target_lang"])


_COLUMNS = """\
| `doc_id` | of role, target language, language and content |
| `role`, `source`, `uri`, `row` | where the row is from; `role` is the source's |
| `lang`, `source_lang` | the language, as BCP-47 and as the source writes it |
| `text` | what was compared: all of a plain text, of a chat its prompt (or what `ingest.view` says) |
| `messages` | a chat; null for plain text. Train on it where it is there, else on `text` |
| `messages.content` | empty where an assistant only calls a tool, or a tool returns nothing |
| `messages.tool_calls` | as OpenAI writes them: `function.arguments` is JSON text; most templates want it parsed |
| `messages.name`, `.tool_call_id`, `.reasoning_content` | as templates know them; null where there is none |
| `messages.weight` | 0: an answer that its source does not want trained; else null |
| `tools` | what the assistant may call: JSON text of a list for `apply_chat_template(tools=...)`; null without any |
| `timestamp` | in UTC, if the source has one |
| `selected_for`, `reason`, `rank` | the target language, why the row is here, and its place within the cluster |
| `cluster`, `asked_by`, `similarity` | its topic, the topic whose usage it serves, and the cosine to its centroid |
| `deficit`, `quota` | of the cluster: how much less of it there was than usage has, and how many rows it got |
"""


def _card(rows: dict[str, int], languages: Mapping[str, Mapping[str, int]], config: RunConfig) -> str:
    """Write the dataset card. Its header tells ``datasets.load_dataset`` where each language is."""
    configs = "".join(
        f'- config_name: "{target_lang}"\n  data_files:\n  - split: train\n    path: "{target_lang}/train-*.parquet"\n'
        for target_lang in rows
    )
    strategy = None if config.sample is None else config.sample.strategy
    lines = "".join(
        f"| {target_lang} | {language_name(target_lang)} | {count:,} | {language_mix(languages[target_lang])} |\n"
        for target_lang, count in rows.items()
    )
    return (
        f"---\nconfigs:\n{configs}---\n\n# Selection of run `{config.name}`\n\n"
        f"Chosen by compass_ray {__version__}, strategy `{strategy}`, seed {config.seed}. "
        "Every row says in `reason` why it is here; `gaps.parquet` and `certificate.json` beside this folder hold "
        "the numbers. The texts keep the licences of their sources.\n\n"
        f"| target language | language | documents | of which |\n|---|---|---|---|\n{lines}\n"
        f"| column | what |\n|---|---|\n{_COLUMNS}"
    )


def _numerics(config: RunConfig) -> dict[str, Any]:
    """List what the guarantee of equal bytes rests on."""
    blas: dict[str, Any] = dict(_blas())
    return {
        "device": config.embed.device,
        "dtype": config.embed.dtype,
        "threads": config.embed.threads,
        "machine": platform.machine(),
        "python": platform.python_version(),
        **blas,
    }


def _blas() -> Iterator[tuple[str, str]]:
    build: Any = np.show_config(mode="dicts")
    yield "blas", str(build["Build Dependencies"]["blas"].get("version"))


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
