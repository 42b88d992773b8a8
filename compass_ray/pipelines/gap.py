"""What champions lack for new usage: a selection from the pool over their own codebook.

It is curated as any selection is, for new usage and, in part, for the usage that the champions were made for. What they
were trained on counts as current data and is not drawn again.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa

from compass_ray import paths
from compass_ray.adapt.usage import heldout_usage
from compass_ray.artifacts import Artifact
from compass_ray.config import RunConfig
from compass_ray.errors import ConfigError
from compass_ray.holdout import Holdout
from compass_ray.ingest import stage as ingestion
from compass_ray.monitor.config import MonitorConfig, UsageConfig
from compass_ray.pipelines import publish
from compass_ray.pipelines.champion import Champion
from compass_ray.pipelines.clustered import cluster_documents, plan
from compass_ray.pipelines.run import CurationRun
from compass_ray.runtime.stage import Session
from compass_ray.sample.config import SampleConfig
from compass_ray.sample.history import History
from compass_ray.sample.stage import sample, select
from compass_ray.update.methods import METHODS


@dataclass(frozen=True)
class Gap:
    """What is curated for an update.

    Attributes
    ----------
    run : CurationRun
    documents, selection : Artifact
    usage : Artifact or None
        What the run holds out.
    recalled : mapping of str to Array of ids, or None
        Where training begins anew, contents that champions were trained on, by language; current data apart, which are
        among the documents then.
    unseen : Array of ids
        Contents that earlier adapters were not to see, and these are not.
    """

    run: CurationRun
    documents: Artifact
    selection: Artifact
    usage: Artifact | None
    recalled: Mapping[str, pa.Array] | None
    unseen: pa.Array


def curate_gap(
    config: RunConfig,
    champions: Mapping[str, Champion],
    unseen: pa.Array,
    since: datetime | None,
    session: Session,
) -> Gap:
    """Select what champions over one codebook lack for usage since a moment.

    The run lies in ``<output>/runs/<name>/update/curation-<hash>``, and is like any other.

    Raises
    ------
    CompassError
        What a curation raises.
    """
    derived = _config_of(config, champions, since)
    if derived.sample is None:
        raise ConfigError("sample: update needs the section")
    planned = plan(derived)
    trained = {lang: champion.reference.trained for lang, champion in champions.items()}
    anew = METHODS[config.update.method].from_base
    if anew:  # current data are read again, and count where they are
        trained = {lang: rows.filter(rows["selected"]) for lang, rows in trained.items()}
    history = History(
        usage={lang: champion.reference.usage_counts for lang, champion in champions.items()},
        trained=trained,
        unseen=unseen,
        new_fraction=config.update.new_fraction,
    )
    identity = publish.fingerprint(
        {"curation": publish.identity_of(derived, planned), "history": history.fingerprint()}
    )
    run = CurationRun(paths.runs_path(session.output, config.name, "update", f"curation-{identity[:8]}"))
    planned = replace(planned, run=run)
    clustered = cluster_documents(derived, planned, session)
    clustered = replace(clustered, inputs=replace(clustered.inputs, history=history))
    sampled = sample(clustered.inputs, derived.sample, session)
    selected = select(clustered.inputs, derived.sample, sampled, session)
    publish.write_run(planned, derived, identity, sampled, selected, clustered, session)
    documents = planned.ingest.artifact
    keys = ingestion.shards_with(documents.manifest(), "usage")
    usage = heldout_usage(documents, keys, Holdout(config.seed, config.holdout_fraction), session)
    recalled = {lang: rows["content_id"].combine_chunks() for lang, rows in trained.items()} if anew else None
    return Gap(run, documents, selected, usage, recalled, unseen)


def _config_of(config: RunConfig, champions: Mapping[str, Champion], since: datetime | None) -> RunConfig:
    """Derive the config of the curation: the pool, new usage, and the champions' codebook."""
    section, asked = config.monitor, config.sample
    if section is None or asked is None:
        raise ConfigError("monitor, sample: update needs the sections")
    roles = ("pool", "current") if METHODS[config.update.method].from_base else ("pool",)
    sources: dict[str, Any] = {name: source for name, source in config.sources.items() if source.role in roles}
    for name, usage in section.usage.items():
        if usage.columns.timestamp or section.period == "all":  # else it is in no window
            sources[free_name(name, sources)] = _within(usage, since, section)
    (codebook,) = {champion.codebook.url for champion in champions.values()}
    budget = {} if config.update.budget is None else {"budget": config.update.budget, "budget_tokens": None}
    sample = SampleConfig.model_validate({**asked.model_dump(exclude_unset=True), **budget})
    if not asked.with_current and METHODS[config.update.method].from_base:
        sources = {name: source for name, source in sources.items() if source.role != "current"}
    return config.model_copy(
        update={
            "sources": sources,
            "cluster": config.cluster.model_copy(update={"codebook": codebook}),
            "sample": sample.model_copy(update={"with_current": True}),  # what champions know counts
        }
    )


def free_name(name: str, taken: Container[str]) -> str:
    """Find a name for a source of new usage that no other source has."""
    while name in taken:
        name = f"usage-{name}"
    return name


def _within(usage: UsageConfig, since: datetime | None, section: MonitorConfig) -> UsageConfig:
    """Bound a source by the windows that were judged, and by its own bounds. ``as_of`` is a part of its window."""
    if not usage.columns.timestamp or section.period == "all":
        return usage
    until = None if section.as_of is None else section.as_of + timedelta(microseconds=1)
    bounds = {
        "since": max(filter(None, (since, usage.since)), default=None),
        "until": min(filter(None, (until, usage.until)), default=None),
    }
    return usage.model_copy(update=bounds)
