"""Curate: files -> an explained selection. The whole data flow in one function."""

from __future__ import annotations

from compass_ray import storage
from compass_ray.config import RunConfig
from compass_ray.errors import ConfigError
from compass_ray.pipelines import publish
from compass_ray.pipelines.clustered import cluster_documents, plan
from compass_ray.pipelines.run import CurationRun
from compass_ray.runtime.progress import Display
from compass_ray.runtime.stage import Session, session
from compass_ray.sample.stage import sample, select


def curate(config: RunConfig, display: Display | None = None) -> CurationRun:
    """Select, for each target language, the pool documents that bring training data closest to usage.

    Every stage is reused if its artifact exists and resumed if it was interrupted, so the same call after a
    crash goes on where it stopped, to the same bytes.

    Parameters
    ----------
    config : RunConfig
    display : Display, optional
        Where progress goes; stderr if not given.

    Returns
    -------
    CurationRun

    Raises
    ------
    CompassError
        Any of the tree in ``compass_ray.errors``. Rows already rejected are in ``quarantine.parquet``.
    """
    with session(storage.absolute(config.output), config.ray, display, config.name, "curate") as opened:
        return curate_in(config, opened)


def curate_in(config: RunConfig, session: Session) -> CurationRun:
    """Curate in a session that other work goes on in; as :func:`curate` otherwise."""
    if config.sample is None:
        raise ConfigError("sample: curate needs this section; give at least sample.budget")
    planned = plan(config)
    run_identity = publish.identity_of(config, planned)
    planned.run.refuse_other_identity(run_identity)

    clustered = cluster_documents(config, planned, session)
    sampled = sample(clustered.inputs, config.sample, session)
    selected = select(clustered.inputs, config.sample, sampled, session)
    publish.write_run(planned, config, run_identity, sampled, selected, clustered, session)
    return CurationRun(planned.run.path, tuple(session.stages))
