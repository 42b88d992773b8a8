"""Gate: candidates beside their champions, document by document -> promotion, or a refusal that says why."""

from __future__ import annotations

import getpass
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from compass_ray import paths, records, seeding, storage
from compass_ray.artifacts import Artifact
from compass_ray.config import RunConfig
from compass_ray.errors import ClusterError, CompassError, GateRefused
from compass_ray.evaluate.probes import probe_artifact
from compass_ray.evaluate.stage import measure_losses
from compass_ray.gate.judge import Verdict, judge
from compass_ray.gate.record import gate_record, record_name, refusal
from compass_ray.pipelines import publish
from compass_ray.pipelines.adapt import registry_url
from compass_ray.pipelines.base_model import BaseModel, open_base
from compass_ray.pipelines.gap import free_name
from compass_ray.pipelines.gated import GatedRun
from compass_ray.pipelines.ingested_usage import ingest_usage
from compass_ray.pipelines.reference import USAGE, VersionReference
from compass_ray.registry.aliases import Aliases
from compass_ray.registry.lineage import check_base
from compass_ray.registry.names import AdapterRef
from compass_ray.registry.store import Registry
from compass_ray.registry.version import AdapterVersion
from compass_ray.runtime.progress import Display
from compass_ray.runtime.stage import Session, map_keys, session
from compass_ray.update.buffer import recall

_FOLDER = "gate"

MOST_TEXTS = 500
"""Documents of each language of ``gate.texts`` that are measured, at most."""


def gate_candidates(config: RunConfig, display: Display | None = None, *, promote: bool = True) -> GatedRun:
    """Compare the candidates of a base with their champions, and promote those that pass.

    Both predict the same documents, which neither was trained on: usage that the candidate was made for, usage that
    its champion was made for, and ``gate.texts``. What was found is attached to the candidate's version.

    Parameters
    ----------
    config : RunConfig
        With the section ``adapt``, which names the base.
    display : Display, optional
        Where progress goes; stderr if not given.
    promote : bool
        Whether a candidate that passes becomes champion. Otherwise nothing moves, and nothing is refused.

    Returns
    -------
    GatedRun

    Raises
    ------
    GateRefused
        If a candidate fails or is undecided; the others are promoted, and the record is written, all the same.
    AliasMoved
        If somebody else has moved aliases meanwhile.
    CompassError
        Any other of the tree in ``compass_ray.errors``.
    """
    with session(storage.absolute(config.output), config.ray, display, config.name, "gate", _FOLDER) as opened:
        return _gate(config, opened, promote)


def gated_run(config: RunConfig) -> GatedRun:
    """Make a handle on what :func:`gate_candidates` has written, or will write, for a config."""
    return GatedRun(paths.runs_path(storage.absolute(config.output), config.name, _FOLDER))


def _gate(config: RunConfig, session: Session, promote: bool) -> GatedRun:
    run, base, registry = gated_run(config), open_base(config), Registry(registry_url(config))
    pairs, not_compared = _pairs(registry, base)
    texts = _texts(config, run, session) if pairs and config.gate.texts else records.PROBE.empty_table()
    compared: dict[str, Any] = {}
    refused: list[GateRefused] = []
    failed: dict[str, CompassError] = {}
    for lang, pair in pairs.items():
        try:
            compared[lang], refusals = _compared(config, base, pair, texts, registry if promote else None, run, session)
        except ClusterError:
            raise
        except CompassError as exc:  # of this language alone
            failed[lang] = exc
            continue
        refused += refusals
    body = {
        "languages": compared,
        "not_compared": not_compared,
        "failed": {lang: f"{type(exc).__name__}: {exc}" for lang, exc in failed.items()},
        "gate": config.gate.model_dump(mode="json", exclude={"texts"}),
        "registry": registry.url,
        "base": base.ref.to_json(),
        **publish.provenance(config, session),
    }
    run.write_json(run.RECORD, body)
    for fault in failed.values():
        raise fault
    if refused and promote:
        raise GateRefused("\n".join(map(str, refused)))
    return run


@dataclass(frozen=True)
class Pair:
    """A language's champion and candidate, and the aliases on which the decision is taken."""

    champion: VersionReference
    candidate: AdapterVersion
    seen: Aliases


def _compared(
    config: RunConfig,
    base: BaseModel,
    pair: Pair,
    texts: pa.Table,
    registry: Registry | None,
    run: GatedRun,
    session: Session,
) -> tuple[dict[str, Any], list[GateRefused]]:
    """Compare one pair, keep what was found with the candidate, and promote it if it passes and there is a registry."""
    champion, candidate = pair.champion.version, pair.candidate
    verdict, measured = _judged(config, base, pair, texts, run, session)
    record = gate_record(
        verdict,
        config.gate,
        base=base.ref,
        champion=champion.lineage.version,
        candidate=candidate.lineage.version,
        seed=config.seed,
        when=datetime.now(UTC),
        who=_who(),
        measured=measured,
    )
    candidate.attach(record_name(record), record)
    promoted = verdict.outcome == "pass" and registry is not None
    if promoted and registry is not None:
        lineage = candidate.lineage
        registry.promote(AdapterRef(lineage.base.key, lineage.lang, lineage.version), pair.seen)
    body = {
        **verdict.to_json(),
        "champion": champion.lineage.version,
        "candidate": candidate.lineage.version,
        "promoted": promoted,
        "measured": measured,
        "attached": record_name(record),
    }
    if verdict.outcome == "pass":
        return body, []
    return body, [refusal(verdict, champion=str(champion), candidate=str(candidate))]


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user need have no name
        return str(os.getuid())


def _pairs(registry: Registry, base: BaseModel) -> tuple[dict[str, Pair], dict[str, str]]:
    """Find the champion and the candidate of each language, and why there is nothing to compare for others."""
    pairs: dict[str, Pair] = {}
    missing: dict[str, str] = {}
    for place, lang in registry.places():
        if place != base.ref.key:
            continue
        aliases = registry.aliases(place, lang)
        if aliases.candidate is None:
            missing[lang] = "it has no candidate"
        elif aliases.champion is None:
            missing[lang] = (
                "it has no champion to be compared with: look at its scores (compass-ray registry show), and promote it"
            )
        else:
            champion, candidate = (registry.open(AdapterRef(place, lang, ref)) for ref in ("champion", "candidate"))
            for version in (champion, candidate):
                check_base(version.lineage, base.ref)
            if why := _not_comparable(champion, candidate):
                missing[lang] = why
            else:
                pairs[lang] = Pair(VersionReference(champion), candidate, aliases)
    return pairs, missing


def _not_comparable(champion: AdapterVersion, candidate: AdapterVersion) -> str | None:
    """Say why a candidate's held-out usage does not tell it from this champion, if so."""
    if USAGE not in candidate.lineage.files:
        return f"{candidate} keeps no held-out usage: it was made without a selection, or by an earlier compass_ray"
    made_for = candidate.lineage.config.get("update", {}).get("champion")
    if made_for is None:
        return (
            f"{candidate} is no update of {champion}: nothing is known of usage that both were made for; look at its "
            "scores, and promote it"
        )
    if made_for != champion.lineage.version:
        return f"{candidate} is an update of {made_for}, and {champion} is champion now; update again"
    return None


def _judged(
    config: RunConfig,
    base: BaseModel,
    pair: Pair,
    texts: pa.Table,
    run: GatedRun,
    session: Session,
) -> tuple[Verdict, dict[str, str]]:
    """Measure both on the same documents, and judge. The hashes of what was measured come with it."""
    champion, candidate = pair.champion, pair.candidate
    lang = candidate.lineage.lang
    usage = _unseen(_with_text(VersionReference(candidate).usage, config, session), pair, session)
    known = usage.filter(records.has_text(usage))
    if lost := usage.num_rows - known.num_rows:
        session.display.say(
            f"gate: {lost:,} of {usage.num_rows:,} held-out usage documents of {candidate} are known by id alone "
            "(registry.store_text: ids) and in no source of this config; they are left out"
        )
    column = pa.array([lang] * texts.num_rows, pa.string())
    other = texts.set_column(texts.schema.get_field_index("target_lang"), "target_lang", column)
    other = _unseen(other, pair, session)
    probes = probe_artifact([known, other], session)
    versions = {version.lineage.version: version for version in (champion.version, candidate)}
    measured = measure_losses(probes, versions, base.ref, base.source, session)
    losses = pa.concat_tables([records.LOSS.empty_table(), *measured.read_all(measured.manifest().receipts)])
    run.write_table(f"{lang}/losses.parquet", losses)
    verdict = judge(
        losses,
        champion.usage_by_cluster() if champion.knows_usage else None,
        config.gate,
        config.seed,
        champion=champion.version.lineage.version,
        candidate=candidate.lineage.version,
    )
    return verdict, {"probes": probes.fingerprint, "losses": measured.fingerprint}


def _unseen(probes: pa.Table, pair: Pair, session: Session) -> pa.Table:
    """Leave out what candidate or champion was trained on, and say so."""
    parts = [VersionReference(pair.candidate).trained, *([pair.champion.trained] if pair.champion.knows_usage else [])]
    known = records.unique_ids(part["content_id"].combine_chunks() for part in parts)
    seen = pc.is_in(probes["content_id"], value_set=known)
    for measures in pc.unique(probes["measures"].filter(seen)).to_pylist():
        of = pc.equal(probes["measures"], measures)
        both = int(pc.sum(pc.and_(seen, of)).as_py())
        session.display.say(
            f"gate: {both:,} of {pc.sum(of).as_py():,} documents ({measures}) are texts that {pair.candidate} or its "
            "champions were trained on; they are left out"
        )
    return probes.filter(pc.invert(seen))


def _with_text(usage: pa.Table, config: RunConfig, session: Session) -> pa.Table:
    """Look up texts that the registry does not keep among the usage that the config names."""
    sources: dict[str, Any] = {name: source for name, source in config.sources.items() if source.role == "usage"}
    for name, source in config.monitor.usage.items() if config.monitor else ():
        sources[free_name(name, sources)] = source
    if not sources or pc.all(records.has_text(usage)).as_py():
        return usage
    return recall(ingest_usage(sources, "sources", config, session), usage, session)


def _texts(config: RunConfig, run: GatedRun, session: Session) -> pa.Table:
    """Read what an adapter must not unlearn, a sample of each language; schema ``records.PROBE``."""
    from compass_ray.runtime.cluster import ray_errors

    documents = ingest_usage(config.gate.texts, "gate.texts", config, session, run)
    session.connect()
    with ray_errors():
        parts = list(map_keys(_texts_of_shard, documents.manifest().receipts, documents))
    return _few(pa.concat_tables([records.PROBE.empty_table(), *parts]))


def _texts_of_shard(key: str, documents: Artifact) -> pa.Table:
    rows = records.documents_only(documents.read(key))
    columns = {name: rows[name] for name in records.PROBE.names if name in rows.column_names}
    columns |= {
        "measures": pa.array(["other"] * rows.num_rows, pa.string()),
        "cluster": pa.nulls(rows.num_rows, pa.int32()),
        "block": pa.nulls(rows.num_rows, pa.string()),
    }
    return _few(pa.table(columns).select(records.PROBE.names).cast(records.PROBE))


def _few(rows: pa.Table) -> pa.Table:
    """Keep the documents of each language with the lowest keyed hashes. Those of all shards are those of each."""
    chance = seeding.uniform(records.ids_to_numpy(rows["content_id"]), 0, "gate-texts")
    langs = np.array(rows["lang"].to_pylist(), dtype=np.str_)
    kept = [np.empty(0, dtype=np.int64)]
    for lang in np.unique(langs):
        mine = np.flatnonzero(langs == lang)
        kept.append(mine[np.argsort(chance[mine], kind="stable")[:MOST_TEXTS]])
    return rows.take(pa.array(np.sort(np.concatenate(kept))))
