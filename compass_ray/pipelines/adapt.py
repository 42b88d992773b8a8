"""Adapt: a selection -> one trained, scored and registered adapter per language."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from compass_ray import paths, records, storage
from compass_ray.adapt import data
from compass_ray.adapt.config import AdaptConfig
from compass_ray.adapt.tokenizer import TokenizerSource, base_folder, template_files
from compass_ray.adapt.usage import heldout_usage
from compass_ray.artifacts import Artifact, digest
from compass_ray.config import RunConfig
from compass_ray.configbase import identity
from compass_ray.errors import AdaptationError, CompassError, ConfigError, DataError, ResourcesMissing
from compass_ray.holdout import Holdout
from compass_ray.ingest import stage as ingestion
from compass_ray.models import BaseRef, weights_hash
from compass_ray.pipelines import publish
from compass_ray.pipelines.adapted import AdaptedRun
from compass_ray.pipelines.curate import curate_in
from compass_ray.pipelines.reference import origin_of
from compass_ray.pipelines.run import CurationRun, run_of
from compass_ray.registry.lineage import Lineage
from compass_ray.registry.store import Registry
from compass_ray.runtime.progress import Display
from compass_ray.runtime.stage import Session, session
from compass_ray.version import __version__

_PACKAGES = ("transformers", "peft", "deepspeed")


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
    from compass_ray.adapt.layers import config_of
    from compass_ray.adapt.shapes import check_base
    from compass_ray.adapt.training.track import check_tracker
    from compass_ray.adapt.training.worker import Settings

    section = _section(config)
    _check_packages()
    run = adapted_run(config)
    check_tracker(section.tracker)
    folder = base_folder(section)
    base = BaseRef(section.base if section.revision else folder.name, section.revision, weights_hash(folder))
    source = TokenizerSource(section, _chat_template(section))
    tokenizer, named = source.open()
    pad_token, templates = _pad_token(tokenizer), template_files(named)

    if not run.exists():  # one that finds all its artifacts builds no model and starts no cluster
        n_tokens = max(tokenizer.get_vocab().values()) + 1
        session.display.say(f"adapt: {check_base(config_of(str(folder)), section, n_tokens)}")
        _check_room(section, session)
    trained_on = training_data(config, section, session)
    usage = _heldout_usage(trained_on, session)
    gathered = data.gather(
        trained_on.documents, trained_on.selection, session, current=trained_on.with_current, usage=usage
    )
    languages = _languages(section, data.languages_of(gathered))
    tokens = data.tokenize(gathered, languages, source, config.seed, session, usage=usage)
    settings = Settings(section, base, config.seed, pad_token, config.name)
    run_identity = _identity(section, base, gathered, source, config.seed)
    run.refuse_other_identity(run_identity)
    adapted, failed = stage.train(tokens, languages, settings, folder, session)
    keeps_text = config.registry.store_text != "ids"
    origin = origin_of(tokens, usage, trained_on.run, languages, session, keeps_text=keeps_text)

    registry = Registry(registry_url(config))
    lines = {}
    for lang, one in adapted.items():
        spoken = templates if data.counts_of(tokens, lang)["chats"] else {}
        lineage = _lineage(config, section, base, one, trained_on, tokens, spoken)
        files = {**one.files(), **spoken, **origin.files(lang)}
        version = _register(registry, lineage, files)
        lines[lang] = {"version": version, "scores": lineage.scores, "documents": lineage.documents}
        run.write_table(f"adapt/{lang}/curve.parquet", one.curve())
        run.write_table(f"adapt/{lang}/scores.parquet", one.score_table())
    body = {
        "identity": run_identity,
        "base": {"name": base.name, "revision": base.revision, "weights_hash": base.weights_hash, "key": base.key},
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

    _check_packages()
    section = _section(config)
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


def _section(config: RunConfig) -> AdaptConfig:
    """Read the section and make its paths absolute. Workers run in folders of their own."""
    section = config.adapt
    if section is None:
        raise ConfigError("adapt: this command needs the section; give at least adapt.base")
    tracker = section.tracker
    if tracker.uri is not None and "://" not in tracker.uri:
        tracker = tracker.model_copy(update={"uri": storage.absolute(tracker.uri)})
    local = Path(section.base).expanduser()
    base = str(local.absolute()) if local.is_dir() else section.base
    return section.model_copy(update={"base": base, "tracker": tracker})


def _check_packages() -> None:
    missing = [name for name in _PACKAGES if find_spec(name) is None]
    if missing:
        raise ResourcesMissing(f"training needs {', '.join(missing)}: pip install 'compass_ray[train]'")


def _check_room(section: AdaptConfig, session: Session) -> None:
    """Check that the cluster is large enough for one worker group.

    One too small is found out before anything is read.
    """
    from compass_ray.adapt.training.trainer import group_count

    session.connect()
    group_count(section.workers, 1)


def _chat_template(section: AdaptConfig) -> str | None:
    if section.chat_template is None:
        return None
    try:
        return storage.read_bytes(section.chat_template).decode()
    except (FileNotFoundError, UnicodeDecodeError) as exc:
        raise ConfigError(f"adapt.chat_template: {section.chat_template} cannot be read as UTF-8 text ({exc})") from exc


def _pad_token(tokenizer: Any) -> int:
    """Choose the token for padding.

    Padding is never predicted and never seen, so any token does where there is none for it.
    """
    found = [token for token in (tokenizer.pad_token_id, tokenizer.eos_token_id) if token is not None]
    return int(found[0]) if found else 0


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


def _lineage(
    config: RunConfig,
    section: AdaptConfig,
    base: BaseRef,
    one: Any,
    trained_on: TrainingData,
    tokens: Artifact,
    templates: Mapping[str, bytes],
) -> Lineage:
    scores = one.score_table().drop_columns(["adapter"]).to_pylist()
    counts = data.counts_of(tokens, one.lang)
    documents = {name: counts[name] for name in ("train", "heldout", "dropped", "selected", "truncated")}
    return Lineage(
        base=base,
        lang=one.lang,
        version=one.adapter.fingerprint,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        code_version=__version__,
        selection=None if trained_on.selection is None else trained_on.selection.fingerprint,
        config={
            "adapt": identity(section),
            "seed": config.seed,
            "chat_template": digest(b"\0".join(templates.values())) if templates else None,
        },
        scores={"heldout": scores, "training": one.adapter.manifest().receipts["curve"].summary},
        documents={**documents, "heldout_usage": counts["usage"]["heldout"]},
    )


def _register(registry: Registry, lineage: Lineage, files: Mapping[str, bytes]) -> str:
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
