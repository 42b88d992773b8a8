"""Update: usage that has drifted -> the gap between it and what champions know -> candidates that go on from them.

Training begins with the champion's weights, and ends in a candidate: champions stay what they are until a gate, or a
person, promotes it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

import pyarrow as pa

from compass_ray import paths, records, storage
from compass_ray.adapt import data
from compass_ray.adapt.config import LoraConfig
from compass_ray.artifacts import Artifact
from compass_ray.config import RunConfig
from compass_ray.configbase import identity
from compass_ray.errors import AdaptationError, ClusterError, CompassError, ConfigError
from compass_ray.pipelines import publish
from compass_ray.pipelines.adapt import lineage_of, register, registry_url
from compass_ray.pipelines.base_model import BaseModel, open_base
from compass_ray.pipelines.champion import Champion
from compass_ray.pipelines.gap import Gap, curate_gap
from compass_ray.pipelines.monitor import monitor_in
from compass_ray.pipelines.monitored import MonitoredRun
from compass_ray.pipelines.reference import TRAINED, UNSEEN, VersionReference, origin_of
from compass_ray.pipelines.retention import retain
from compass_ray.pipelines.updated import UpdatedRun
from compass_ray.registry.lineage import check_base
from compass_ray.registry.names import AdapterRef
from compass_ray.registry.store import Registry
from compass_ray.registry.version import AdapterVersion
from compass_ray.runtime.progress import Display
from compass_ray.runtime.stage import Session, session
from compass_ray.update.methods import METHODS

_FOLDER = "update"

_MOST_NOVEL = 0.5
"""Share of new usage that may lie far from every cluster. Beyond it a frozen codebook says too little of it."""

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
    _check_bases(config, base)
    monitored = monitor_in(config, session)
    champions, unchanged = _champions(config, monitored, registry, base, session.output)
    done: dict[str, Any] = {}
    failed: dict[str, CompassError] = {}
    if champions:
        base.check(session)
    unseen = _unseen(registry, base)
    for (_, since), group in _groups(champions, monitored).items():
        try:
            made, lost, empty = _update_group(config, base, group, unseen, since, registry, run, session)
        except (ConfigError, ClusterError):  # which is no matter of one language
            raise
        except CompassError as exc:
            lost, made, empty = dict.fromkeys(group, exc), {}, {}
        done, failed, unchanged = done | made, failed | lost, unchanged | empty
    for lang, why in unchanged.items():
        session.display.say(f"update: {lang} stays as it is: {why}")
    body = {
        "method": config.update.method,
        "languages": done,
        "unchanged": unchanged,
        "failed": {lang: f"{type(exc).__name__}: {exc}" for lang, exc in failed.items()},
        "verdicts": monitored.verdicts,
        "registry": registry.url,
        "base": base.ref.to_json(),
        **publish.provenance(config, session),
    }
    run.write_json(run.RECORD, body)
    _raise(failed, len(failed) + len(done))
    return run


def _raise(failed: Mapping[str, CompassError], updated: int) -> None:
    if failed:
        reasons = "\n".join(f"  {lang}: {type(exc).__name__}: {exc}" for lang, exc in sorted(failed.items()))
        raise AdaptationError(
            f"{len(failed)} of {updated} languages were not updated, and their champions are as they were:\n{reasons}\n"
            "the same command goes on from here"
        )


def _check_bases(config: RunConfig, base: BaseModel) -> None:
    asked = config.monitor.base if config.monitor is not None else None
    if asked not in (None, base.ref.key):
        raise ConfigError(f"monitor.base: found '{asked}', but adapt.base is {base.ref.key}; give the same")


def _champions(
    config: RunConfig, monitored: MonitoredRun, registry: Registry, base: BaseModel, output: str
) -> tuple[dict[str, Champion], dict[str, str]]:
    """Find the champions of the languages that are to be updated, and say why others are not."""
    champions, unchanged = {}, {}
    for lang, verdict in monitored.verdicts.items():
        if why := _stays(config, base, lang, verdict, monitored):
            unchanged[lang] = why
        elif registry.aliases(base.ref.key, lang).champion is None:
            others = [place for place, other in registry.places() if other == lang and place != base.ref.key]
            of_others = f" (there are adapters of {', '.join(others)})" if others else ""
            unchanged[lang] = f"no version of it on {base.ref.key} is champion{of_others}; promote one first"
        else:
            version = registry.open(AdapterRef(base.ref.key, lang, "champion"))
            check_base(version.lineage, base.ref)
            if why := _not_to_go_on(version, base):
                unchanged[lang] = why
            else:
                champions[lang] = Champion(VersionReference(version), VersionReference(version).codebook(output))
    return champions, unchanged


def _stays(config: RunConfig, base: BaseModel, lang: str, verdict: str, monitored: MonitoredRun) -> str | None:
    """Say why a language is not updated, if so."""
    wanted, windows = base.section.languages, monitored.record["target_langs"][lang]["windows"]
    if wanted is not None and lang not in wanted:
        return "it is not among adapt.languages"
    if not windows:
        return "there is no new usage of it"
    if config.update.when == "drift" and verdict != "drift":
        return _STAYS[verdict]
    novelty = windows[-1]["novelty"]
    if novelty is not None and novelty["share"] > _MOST_NOVEL:
        return (
            f"{novelty['share']:.0%} of its new usage lies far from every cluster of its champion, so that nothing can "
            "be selected for it there; curate with a new codebook, train a new adapter and promote it"
        )
    return None


def _not_to_go_on(version: AdapterVersion, base: BaseModel) -> str | None:
    """Say why a training with this config cannot go on from a champion, if so."""
    made, asked = version.lineage.config["adapt"]["lora"], identity(base.section.lora)
    if differ := [name for name in LoraConfig.model_fields if made.get(name) != asked.get(name)]:
        found = ", ".join(f"{name} {made.get(name)}" for name in differ)
        return (
            f"its champion has {found}, adapt.lora another; an update goes on with its champion's layers: give the "
            "same, or train a new adapter (compass-ray adapt)"
        )
    if not {TRAINED, UNSEEN} <= version.lineage.files.keys():
        return (
            "its champion does not say what it was trained on: it was made without a selection, or by an earlier "
            "compass_ray; train a new one (compass-ray adapt) and promote it"
        )
    return None


def _unseen(registry: Registry, base: BaseModel) -> pa.Array:
    """List the contents that no champion of this base was to see: what one is measured on no other trains on."""
    ids = []
    for place, lang in registry.places():
        if place == base.ref.key and registry.aliases(place, lang).champion is not None:
            version = registry.open(AdapterRef(place, lang, "champion"))
            ids += [VersionReference(version).unseen] if UNSEEN in version.lineage.files else []
    return records.unique_ids(ids)


def _groups(
    champions: Mapping[str, Champion], monitored: MonitoredRun
) -> dict[tuple[str, datetime | None], dict[str, Champion]]:
    """Put languages together that have a codebook and the beginning of new usage in common."""
    groups: dict[tuple[str, datetime | None], dict[str, Champion]] = {}
    for lang, champion in champions.items():
        told = monitored.record["target_langs"][lang]
        since = told["since"] or told["windows"][-1]["start"]
        moment = None if since is None else datetime.fromisoformat(since)
        groups.setdefault((champion.codebook.fingerprint, moment), {})[lang] = champion
    return groups


def _update_group(
    config: RunConfig,
    base: BaseModel,
    champions: Mapping[str, Champion],
    unseen: pa.Array,
    since: datetime | None,
    registry: Registry,
    run: UpdatedRun,
    session: Session,
) -> tuple[dict[str, Any], dict[str, CompassError], dict[str, str]]:
    """Update languages over one codebook.

    Returns
    -------
    done, failed, empty : dict by language
        What came out, what failed and why, and what has nothing new to train on.
    """
    from compass_ray.adapt import stage

    method = METHODS[config.update.method]
    gap = curate_gap(config, champions, unseen, since, session)
    gathered = data.gather(
        gap.documents,
        gap.selection,
        session,
        current=method.from_base,
        usage=gap.usage,
        recalled=gap.recalled,
        unseen=gap.unseen,
    )
    there = data.languages_of(gathered)
    empty = {lang: "the pool holds nothing new for it" for lang in champions if lang not in there}
    able = [champions[lang] for lang in champions if lang in there]
    retained, failed = retain(config, base, able, gap, registry, session)
    languages = list(retained)
    if not languages:
        return {}, failed, empty
    tokens = data.tokenize(gathered, languages, base.source, config.seed, session, usage=gap.usage)
    starts = {lang: one.start for lang, one in retained.items() if one.start is not None}
    purposes = {lang: _purpose(gap, champions[lang]) for lang in languages}
    adapted, lost = stage.train(tokens, languages, base.settings(config), base.folder, session, starts, purposes)
    keeps_text = config.registry.store_text != "ids"
    origin = origin_of(tokens, gap.usage, gap.run, languages, session, keeps_text=keeps_text)
    done = {}
    for lang, one in adapted.items():
        champion = champions[lang]
        known = champion.version.lineage.version
        how = {**identity(config.update), "champion": known, "fisher": retained[lang].fisher}
        chats = data.counts_of(tokens, lang)["chats"] or (not method.from_base and champion.version.chat_templates)
        spoken = base.templates if chats else {}
        parent = None if method.from_base else known
        lineage = lineage_of(config, base, one, gap.selection, tokens, spoken, parent, how)
        files = origin.files(lang, champion.reference, continues=not method.from_base)
        done[lang] = {
            "version": register(registry, lineage, {**one.files(), **spoken, **files}),
            "champion": known,
            "goes_on": not method.from_base,
            "missing": _missing(gap, gathered, champion, lang),
            "curation": gap.run.path,
            "certificate": gap.run.certificate[lang],
            "scores": lineage.scores,
            "documents": lineage.documents,
        }
        run.write_table(f"{lang}/curve.parquet", one.curve())
        run.write_table(f"{lang}/scores.parquet", one.score_table())
    return done, {**failed, **lost}, empty


def _purpose(gap: Gap, champion: Champion) -> str:
    """Hash what a candidate is made for: the same tokens for other held-out usage are another version."""
    usage = None if gap.usage is None else gap.usage.fingerprint
    return publish.fingerprint(
        {"gap": gap.run.record["identity"], "usage": usage, "champion": champion.version.lineage.version}
    )


def _missing(gap: Gap, gathered: Artifact, champion: Champion, lang: str) -> int:
    """Count what the champion was trained on and a new adapter is not, since no source has it any more."""
    if gap.recalled is None:
        return 0
    drawn: int = gap.run.record["selected"][lang]
    known: int = champion.reference.trained.num_rows
    return max(0, known + drawn - data.languages_of(gathered)[lang])
