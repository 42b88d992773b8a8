"""Update: usage that has drifted -> the gap between it and what champions know -> candidates that go on from them.

Training begins with the champion's weights, and ends in a candidate: champions stay what they are until a gate, or a
person, promotes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

from compass_ray import paths, storage
from compass_ray.adapt import data
from compass_ray.adapt.config import LoraConfig
from compass_ray.config import RunConfig
from compass_ray.configbase import identity
from compass_ray.errors import AdaptationError, ConfigError
from compass_ray.pipelines import publish
from compass_ray.pipelines.adapt import lineage_of, register, registry_url
from compass_ray.pipelines.base_model import BaseModel, open_base
from compass_ray.pipelines.champion import Champion
from compass_ray.pipelines.gap import curate_gap
from compass_ray.pipelines.monitor import monitor_in
from compass_ray.pipelines.monitored import MonitoredRun
from compass_ray.pipelines.reference import TRAINED, VersionReference, origin_of
from compass_ray.pipelines.retention import starts_of
from compass_ray.pipelines.updated import UpdatedRun
from compass_ray.registry.lineage import check_base
from compass_ray.registry.names import AdapterRef
from compass_ray.registry.store import Registry
from compass_ray.registry.version import AdapterVersion
from compass_ray.runtime.progress import Display
from compass_ray.runtime.stage import Session, session
from compass_ray.update.methods import METHODS

_FOLDER = "update"

_STAYS = {
    "stable": "its usage has not drifted",
    "cooldown": "it has drifted, but its adapter is too young to be updated again (monitor.cooldown)",
    "insufficient": "too little is known of its usage to tell whether it has drifted",
}


def update_adapters(config: RunConfig, display: Display | None = None) -> UpdatedRun:
    """Update the champions of languages whose usage has drifted, each to a candidate.

    Usage is monitored first, against the champions. Where nothing has drifted nothing is done, and that is said. The
    same call goes on where an interrupted one has stopped, and finds what is finished.

    Parameters
    ----------
    config : RunConfig
        With the sections ``monitor`` (``reference: champion``), ``sample`` and ``adapt``, a pool, and ``update``.
    display : Display, optional
        Where progress goes; stderr if not given.

    Returns
    -------
    UpdatedRun

    Raises
    ------
    AdaptationError
        If the training of a language failed; the others are registered and written all the same.
    CompassError
        Any other of the tree in ``compass_ray.errors``.
    """
    _check(config)
    with session(storage.absolute(config.output), config.ray, display, config.name, "update", _FOLDER) as opened:
        return _update(config, opened)


def updated_run(config: RunConfig) -> UpdatedRun:
    """Make a handle on what :func:`update_adapters` has written, or will write, for a config."""
    return UpdatedRun(paths.runs_path(storage.absolute(config.output), config.name, _FOLDER))


def _check(config: RunConfig) -> None:
    missing = [name for name in ("monitor", "sample", "adapt") if getattr(config, name) is None]
    if missing:
        raise ConfigError(f"{', '.join(missing)}: update needs the section{'s' if missing[1:] else ''}")
    if config.monitor is not None and (found := config.monitor.reference) != "champion":
        raise ConfigError(f"monitor.reference: found '{found}', but updates go on with champions; give 'champion'")
    if not any(source.role == "pool" for source in config.sources.values()):
        raise ConfigError("sources: no source has role pool; an update draws its data out of one")


def _update(config: RunConfig, session: Session) -> UpdatedRun:
    run, base, registry = updated_run(config), open_base(config), Registry(registry_url(config))
    monitored = monitor_in(config, session)
    champions, unchanged = _champions(config, monitored, registry, base, session.output)
    lines: dict[str, Any] = {}
    failed: dict[str, str] = {}
    if champions:
        base.check(session)
    for group in _by_codebook(champions):
        done, lost, empty = _update_group(config, base, group, monitored, registry, run, session)
        lines, failed, unchanged = lines | done, failed | lost, unchanged | empty
    for lang, why in unchanged.items():
        session.display.say(f"update: {lang} stays as it is: {why}")
    body = {
        "method": config.update.method,
        "languages": lines,
        "unchanged": unchanged,
        "failed": failed,
        "verdicts": monitored.verdicts,
        "registry": registry.url,
        "base": {**asdict(base.ref), "key": base.ref.key},
        "config": config.unexpanded,
        "seed": config.seed,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "stages": {record.artifact: asdict(record) for record in session.stages},
        "versions": publish.versions(),
    }
    run.write_json(run.RECORD, body)
    if failed:
        reasons = "\n".join(f"  {lang}: {why}" for lang, why in sorted(failed.items()))
        raise AdaptationError(
            f"{len(failed)} of {len(failed) + len(lines)} languages were not updated, and their champions are as they "
            f"were:\n{reasons}\nthe same command goes on from here"
        )
    return run


def _champions(
    config: RunConfig, monitored: MonitoredRun, registry: Registry, base: BaseModel, output: str
) -> tuple[dict[str, Champion], dict[str, str]]:
    """Find the champions of the languages that are to be updated, and say why others are not."""
    champions, unchanged = {}, {}
    for lang, verdict in monitored.verdicts.items():
        if config.update.when == "drift" and verdict != "drift":
            unchanged[lang] = _STAYS[verdict]
        elif registry.aliases(base.ref.key, lang).champion is None:
            others = [place for place, other in registry.places() if other == lang and place != base.ref.key]
            of_others = f" (there are adapters of {', '.join(others)})" if others else ""
            unchanged[lang] = f"no version of it on {base.ref.key} is champion{of_others}; promote one first"
        else:
            version = registry.open(AdapterRef(base.ref.key, lang, "champion"))
            _check_champion(version, base)
            champions[lang] = Champion(VersionReference(version), VersionReference(version).codebook(output))
    return champions, unchanged


def _check_champion(version: AdapterVersion, base: BaseModel) -> None:
    """Refuse a champion that a training with this config cannot go on from.

    Raises
    ------
    IncompatibleAdapter, ConfigError
    """
    check_base(version.lineage, base.ref)
    made, asked = version.lineage.config["adapt"]["lora"], identity(base.section.lora)
    if differ := [name for name in LoraConfig.model_fields if made.get(name) != asked.get(name)]:
        found = ", ".join(f"{name} {made.get(name)}" for name in differ)
        raise ConfigError(
            f"adapt.lora: {version} has {found}, this config another; an update goes on with its champion's layers: "
            "give the same, or train a new adapter (compass-ray adapt)"
        )
    if TRAINED not in version.lineage.files:
        raise ConfigError(
            f"{version}: does not say what it was trained on: it was made without a selection, or by an earlier "
            "compass_ray; train a new one (compass-ray adapt) and promote it"
        )


def _by_codebook(champions: Mapping[str, Champion]) -> list[dict[str, Champion]]:
    groups: dict[str, dict[str, Champion]] = {}
    for lang, champion in champions.items():
        groups.setdefault(champion.codebook.fingerprint, {})[lang] = champion
    return list(groups.values())


def _update_group(
    config: RunConfig,
    base: BaseModel,
    champions: Mapping[str, Champion],
    monitored: MonitoredRun,
    registry: Registry,
    run: UpdatedRun,
    session: Session,
) -> tuple[dict[str, Any], dict[str, str], dict[str, str]]:
    """Update languages over one codebook.

    Returns
    -------
    done, failed, empty : dict by language
        What came out, what failed and why, and what has nothing new to train on.
    """
    from compass_ray.adapt import stage

    gap = curate_gap(config, champions, monitored, session)
    method = METHODS[config.update.method]
    gathered = data.gather(
        gap.documents, gap.selection, session, current=method.from_base, usage=gap.usage, recalled=gap.recalled
    )
    there = data.languages_of(gathered)
    empty = {lang: "the pool holds nothing new for it" for lang in champions if lang not in there}
    languages = [lang for lang in champions if lang in there]
    if not languages:
        return {}, {}, empty
    tokens = data.tokenize(gathered, languages, base.source, config.seed, session, usage=gap.usage)
    starts = starts_of(config, base, [champions[lang] for lang in languages], gap.documents, registry, session)
    adapted, failed = stage.train(tokens, languages, base.settings(config), base.folder, session, starts)
    keeps_text = config.registry.store_text != "ids"
    origin = origin_of(tokens, gap.usage, gap.run, languages, session, keeps_text=keeps_text)
    lines = {}
    for lang, one in adapted.items():
        champion = champions[lang]
        chats = data.counts_of(tokens, lang)["chats"] or champion.version.chat_templates
        spoken = base.templates if chats else {}
        begins = None if method.from_base else champion.version.lineage.version
        lineage = lineage_of(config, base, one, gap.selection, tokens, spoken, begins, identity(config.update))
        files = {**one.files(), **spoken, **origin.files(lang, champion.reference)}
        lines[lang] = {
            "version": register(registry, lineage, files),
            "champion": champion.version.lineage.version,
            "curation": gap.run.path,
            "certificate": gap.run.certificate[lang],
            "scores": lineage.scores,
            "documents": lineage.documents,
        }
        run.write_table(f"{lang}/curve.parquet", one.curve())
        run.write_table(f"{lang}/scores.parquet", one.score_table())
    return lines, {lang: f"{type(exc).__name__}: {exc}" for lang, exc in failed.items()}, empty
