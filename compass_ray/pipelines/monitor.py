"""Monitor: new usage -> has it moved away from the usage that adapters were made for?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc

from compass_ray import paths, storage
from compass_ray.cluster.device import device_for
from compass_ray.cluster.stage import assign
from compass_ray.config import RunConfig
from compass_ray.embed.stage import embed
from compass_ray.errors import ConfigError, DataError
from compass_ray.monitor.config import MonitorConfig
from compass_ray.monitor.judge import comparable, judge
from compass_ray.monitor.stage import count_dates, count_windows
from compass_ray.monitor.vectors import compare_usage
from compass_ray.pipelines import publish
from compass_ray.pipelines.ingested_usage import ingest_usage
from compass_ray.pipelines.monitored import WINDOWS, MonitoredRun
from compass_ray.pipelines.reference_usage import ReferenceUsage, reference_usage
from compass_ray.runtime.progress import Display
from compass_ray.runtime.stage import Session, session

_FOLDER = "monitor"
"""In the folder of the run that it watches: what that has written stays as it is, its status too."""
_USAGE = "monitor.usage"


def monitor_usage(config: RunConfig, display: Display | None = None) -> MonitoredRun:
    """Compare new usage with the usage that a selection, or the adapters of a registry, were made for.

    New usage goes the way that documents go, through the same encoder and to the clusters of the reference, which stay
    as they are. Nothing is remembered between calls: which windows count follows from timestamps, so that the same
    files give the same answer.

    Parameters
    ----------
    config : RunConfig
        With the section ``monitor``, and the ``embed`` of the reference.
    display : Display, optional
        Where progress goes; stderr if not given.

    Returns
    -------
    MonitoredRun

    Raises
    ------
    CompassError
        Any of the tree in ``compass_ray.errors``.
    """
    with session(storage.absolute(config.output), config.ray, display, config.name, "monitor", _FOLDER) as opened:
        return monitor_in(config, opened)


def monitor_in(config: RunConfig, session: Session) -> MonitoredRun:
    """Monitor in a session that other work goes on in; as :func:`monitor_usage` otherwise."""
    from compass_ray.runtime.cluster import cluster_gpus

    section = config.monitor
    if section is None:
        raise ConfigError("monitor: this command needs the section; give at least monitor.usage")
    run = MonitoredRun(paths.runs_path(session.output, config.name, _FOLDER))
    reference = reference_usage(config, section, session)
    known = reference.usages
    device = device_for(config.cluster.device, lambda: cluster_gpus(config.ray))

    documents = ingest_usage(section.usage, _USAGE, config, session, run)
    if section.period != "all" or section.as_of is not None:
        _check_dated(count_dates(documents, section.period, section.as_of, session), section)

    embeddings = embed(documents, config.embed, session)
    counted = []
    left_out: Counter[str] = Counter()
    for usage in known:
        assignments = assign(embeddings, usage.codebook, session, device)
        windows, left_out = count_windows(
            documents, assignments, usage.n_clusters, section.period, section.as_of, session
        )
        counted.append(_judged_over(windows, usage, known))
    windows = pa.concat_tables(counted)
    if not section.exemplars:
        place = windows.column_names.index("exemplar")
        windows = windows.set_column(place, "exemplar", pa.nulls(windows.num_rows, pa.string()))
    references = {lang: reference for usage in known for lang, reference in usage.references.items()}
    vectors = {lang: kept for usage in known for lang, kept in usage.vectors.items()}
    enough = {key: count for key, count in comparable(windows, references, section).items() if key[0] in vectors}
    separations = compare_usage(
        documents, embeddings, vectors, enough, section.period, section.as_of, config.seed, session
    )
    body = {
        "reference": section.reference,
        "period": section.period,
        "target_langs": judge(windows, references, section, config.seed, separations, reference.refused),
        "as_of": None if section.as_of is None else section.as_of.isoformat(),
        **{name: left_out[name] for name in ("undated", "later")},
        **publish.provenance(config, session),
    }
    run.write_table(WINDOWS, windows)
    run.write_json(run.RECORD, body)
    return run


def _judged_over(windows: pa.Table, usage: ReferenceUsage, known: Sequence[ReferenceUsage]) -> pa.Table:
    """Keep windows of languages whose reference usage lies over this codebook.

    The first takes those that have none.
    """
    langs = {lang for each in known for lang in each.references}
    mine = pc.is_in(windows["target_lang"], pa.array(sorted(usage.references), pa.string()))
    if usage is known[0]:
        mine = pc.or_(mine, pc.invert(pc.is_in(windows["target_lang"], pa.array(sorted(langs), pa.string()))))
    return windows.filter(mine)


def _check_dated(left_out: Counter[str], section: MonitorConfig) -> None:
    if left_out["dated"]:
        return
    if left_out["later"]:
        raise DataError(
            f"monitor.as_of: all of {left_out['later']:,} documents with a timestamp are dated after {section.as_of}; "
            "give a later moment, or the files of earlier usage"
        )
    if left_out["undated"]:
        raise DataError(
            f"monitor.period: {section.period}, but none of {left_out['undated']} documents has a timestamp; name the "
            "column (monitor.usage.<name>.columns.timestamp) or set the period to all"
        )
