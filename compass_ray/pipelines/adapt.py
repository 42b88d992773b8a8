"""Adapt: a selection -> one trained, scored and registered adapter per language."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from compass_ray import paths, records, storage
from compass_ray.adapt import data
from compass_ray.adapt.config import AdaptConfig
from compass_ray.adapt.tokenizer import TokenizerSource
from compass_ray.adapt.usage import heldout_usage
from compass_ray.artifacts import Artifact, digest
from compass_ray.config import RunConfig
from compass_ray.configbase import identity
from compass_ray.errors import AdaptationError, CompassError, ConfigError, DataError
from compass_ray.holdout import Holdout
from compass_ray.ingest import stage as ingestion
from compass_ray.models import BaseRef
from compass_ray.pipelines import publish
from compass_ray.pipelines.adapted import AdaptedRun
from compass_ray.pipelines.base_model import BaseModel, adapt_section, check_packages, open_base
from compass_ray.pipelines.curate import curate_in
from compass_ray.pipelines.reference import origin_of
from compass_ray.pipelines.run import CurationRun, run_of
from compass_ray.registry.lineage import Lineage
from compass_ray.registry.store import Registry
from compass_ray.runtime.progress import Display
from compass_ray.runtime.stage import Session, session
from compass_ray.version import __version__

if TYPE_CHECKING:
    from compass_ray.adapt.stage import Adapted


@dataclass(frozen=True)
class TrainingData:
    """What adapters are trained on: documents, perhaps a selection out of them, and the run that made it.

    ``holdout`` says which usage among the documents was held out: what the run's certificate measures on;
    ``with_current`` whether current documents are trained on too.
    """

    documents: Artifact
    holdout: Holdout
    selection: Artifact | None = None
    run: CurationRun | None = None
    with_current: bool = True


def train_adapters(config: RunConfig, display: Display | None = None) -> AdaptedRun:
    """Train an adapter for every language that has data, score it, and register it as candidate.

    Scores are of held-out usage in the language, if there is any, of held-out documents of what was trained on, and of
    other languages, in this order.

    The data are the selection of ``adapt.run``, or of this config's own run, which is curated first where that has not
    been done, or without either the sources with role ``current``. Trainings that exist are reused, interrupted ones
    resumed.

    Parameters
    ----------
    config : RunConfig
        With the section ``adapt``.
    display : Display, optional
        Where progress goes; stderr if not given.

    Returns
    -------
    AdaptedRun

    Raises
    ------
    AdaptationError
        If a language failed; the others are trained, registered and written all the same.
    CompassError
        Any other of the tree in ``compass_ray.errors``.
    """
    with session(storage.absolute(config.output), config.ray, display, config.name, "adapt") as opened:
        return _train(config, opened)


def _train(config: RunConfig, session: Session) -> AdaptedRun:
    from compass_ray.adapt import stage

    run, base = adapted_run(config), open_base(config)
    section, source = base.section, base.source
    if not run.exists():  # one that finds all its artifacts builds no model and starts no cluster
        base.check(session)
    trained_on = training_data(config, section, session)
    usage = _heldout_usage(trained_on, session)
    gathered = data.gather(
        trained_on.documents, trained_on.selection, session, current=trained_on.with_current, usage=usage
    )
    languages = _languages(section, data.languages_of(gathered))
    tokens = data.tokenize(gathered, languages, source, config.seed, session, usage=usage)
    run_identity = _identity(section, base.ref, gathered, source, config.seed)
    run.refuse_other_identity(run_identity)
    adapted, failed = stage.train(tokens, languages, base.settings(config), base.folder, session)
    keeps_text = config.registry.store_text != "ids"
    origin = origin_of(tokens, usage, trained_on.run, languages, session, keeps_text=keeps_text)

    registry = Registry(registry_url(config))
    lines = {}
    for lang, one in adapted.items():
        spoken = base.templates if data.counts_of(tokens, lang)["chats"] else {}
        lineage = lineage_of(config, base, one, trained_on.selection, tokens, spoken)
        version = register(registry, lineage, {**one.files(), **spoken, **origin.files(lang)})
        lines[lang] = {"version": version, "scores": lineage.scores, "documents": lineage.documents}
        run.write_table(f"adapt/{lang}/curve.parquet", one.curve())
        run.write_table(f"adapt/{lang}/scores.parquet", one.score_table())
    body = {
        "identity": run_identity,
        "base": base.ref.to_json(),
        "registry": registry.url,
        "config": config.unexpanded,
        "seed": config.seed,
        "languages": lines,
        "failed": {lang: str(exc) for lang, exc in failed.items()},
        "documents": {lang: data.counts_of(tokens, lang) for lang in languages},
        "stages": {record.stage: record.artifact for record in session.stages},
        "versions": publish.versions(),
    }
    run.write_json(run.RECORD, body)
    _raise(failed, run)
    return run


def preflight(config: RunConfig, display: Display | None = None) -> list[dict[str, Any]]:
    """Estimate what one worker's memory will hold, from the base's config alone.

    Rows have ``what`` and ``bytes``; the total comes last.

    Parameters
    ----------
    config : RunConfig
        With the section ``adapt``.
    display : Display, optional
        Where it is said which layers get an update; stderr if not given.

    Raises
    ------
    ConfigError, ResourcesMissing
        If there is no such base, a training on it would fail, or the packages that training needs are not there.
    """
    from compass_ray.adapt.layers import config_of
    from compass_ray.adapt.preflight import describe, estimate
    from compass_ray.adapt.shapes import check_base

    check_packages()
    section = adapt_section(config)
    base_config = config_of(section.base, section.revision)
    (display or Display()).say(f"adapt: {check_base(base_config, section)}")
    return describe(estimate(base_config, section))


def adapted_run(config: RunConfig) -> AdaptedRun:
    """Make a handle on what :func:`train_adapters` has written, or will write, for a config."""
    return AdaptedRun(paths.runs_path(storage.absolute(config.output), config.name))


def registry_url(config: RunConfig) -> str:
    """Tell where this config registers adapters."""
    given = config.registry.path
    return storage.absolute(given) if given else paths.registry_path(storage.absolute(config.output))


def training_data(config: RunConfig, section: AdaptConfig, session: Session) -> TrainingData:
    """Find, or make, what will be trained on.

    Raises
    ------
    ArtifactMissing
        If ``adapt.run`` has not finished.
    ConfigError
        If its records are those of another version.
    """
    if section.run is not None or config.sample is not None:
        made = section.run is None
        run = curate_in(config, session) if made else CurationRun(storage.absolute(str(section.run)))
        documents, sampled, selection = run.artifacts("ingest", "sample", "select")
        if (found := documents.identity["schema_version"]) != records.SCHEMA_VERSION:
            raise ConfigError(
                f"adapt.run: {run.path} holds records of version {found}, this compass_ray reads version "
                f"{records.SCHEMA_VERSION}; curate again with this one, or adapt with the one that made it"
            )
        holdout = Holdout(sampled.identity["seed"], sampled.identity["holdout_fraction"])
        return TrainingData(documents, holdout, selection, run, sampled.identity["config"]["with_current"])
    plan = ingestion.plan(config.sources, config.ingest, session.output)
    manifest = ingestion.ingest(plan, config.ingest, session)
    quarantined = ingestion.quarantine(plan.artifact, session)
    folder = run_of(config)
    publish.write_quarantine(folder, quarantined)
    publish.write_ingest(folder, plan, manifest)
    ingestion.check_usable(manifest, config.ingest, ("current",), plan.sizes)
    return TrainingData(plan.artifact, Holdout(config.seed, config.holdout_fraction))


def _heldout_usage(trained_on: TrainingData, session: Session) -> Artifact | None:
    documents = trained_on.documents
    keys = ingestion.shards_with(documents.manifest(), "usage")
    return heldout_usage(documents, keys, trained_on.holdout, session)


def _languages(section: AdaptConfig, found: Mapping[str, int]) -> list[str]:
    if not found:
        raise DataError(
            "adapt: no document to train on; check sources with role current, or the run and its sample.with_current"
        )
    wanted = list(found) if section.languages is None else section.languages
    if unknown := [lang for lang in wanted if lang not in found]:
        raise ConfigError(
            f"adapt.languages: no document to train on for {', '.join(unknown)}; there are some for {', '.join(found)}"
        )
    return wanted


def _identity(section: AdaptConfig, base: BaseRef, gathered: Artifact, source: TokenizerSource, seed: int) -> str:
    """Hash all that any language's adapter follows from. Which languages were asked for is no part of it."""
    return publish.fingerprint(
        {
            "adapt": identity(section),
            "base": base.weights_hash,
            "documents": gathered.fingerprint,
            "tokenizer": source.fingerprint(),
            "seed": seed,
        }
    )


def lineage_of(
    config: RunConfig,
    base: BaseModel,
    one: Adapted,
    selection: Artifact | None,
    tokens: Artifact,
    templates: Mapping[str, bytes],
    parent: str | None = None,
    update: Mapping[str, Any] | None = None,
) -> Lineage:
    """Write down where a trained adapter comes from.

    Parameters
    ----------
    templates : mapping of str to bytes
        Files of the chat template that its conversations were rendered in, if there were any.
    parent : str, optional
        The version that it goes on from.
    update : mapping, optional
        How it goes on.
    """
    scores = one.score_table().drop_columns(["adapter"]).to_pylist()
    counts = data.counts_of(tokens, one.lang)
    documents = {name: counts[name] for name in ("train", "heldout", "dropped", "selected", "truncated")}
    return Lineage(
        base=base.ref,
        lang=one.lang,
        version=one.adapter.fingerprint,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        code_version=__version__,
        parent=parent,
        selection=None if selection is None else selection.fingerprint,
        config={
            "adapt": identity(base.section),
            "seed": config.seed,
            "chat_template": digest(b"\0".join(templates.values())) if templates else None,
            **({} if update is None else {"update": dict(update)}),
        },
        scores={"heldout": scores, "training": one.adapter.manifest().receipts["curve"].summary},
        documents={**documents, "heldout_usage": counts["usage"]["heldout"]},
    )


def register(registry: Registry, lineage: Lineage, files: Mapping[str, bytes]) -> str:
    """Add a version unless it is there, and make it the candidate: what was asked for last is what is to be decided on.

    A training has one version, made once.
    """
    if lineage.version not in registry.versions(lineage.base.key, lineage.lang):
        registry.add(lineage, files)
    registry.set_candidate(lineage.base.key, lineage.lang, lineage.version)
    return lineage.version


def _raise(failed: Mapping[str, CompassError], run: AdaptedRun) -> None:
    if failed:
        reasons = "\n".join(f"  {lang}: {type(exc).__name__}: {exc}" for lang, exc in sorted(failed.items()))
        raise AdaptationError(
            f"{len(failed)} of {len(failed) + len(run.languages)} languages have no adapter:\n{reasons}\n"
            f"the others are done; {run.path}/adapt.json has all of it, and the same command goes on from here"
        )
