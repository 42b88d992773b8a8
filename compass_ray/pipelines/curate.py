"""Curate: files -> an explained selection. The whole data flow in one function."""

from __future__ import annotations

from compass_ray import storage
from compass_ray.cluster.codebook import read_codebook
from compass_ray.cluster.stage import assign, fit_codebook, frozen_codebook
from compass_ray.config import RunConfig
from compass_ray.embed.stage import embed, vector_space
from compass_ray.errors import ConfigError, DataError
from compass_ray.ingest import stage as ingestion
from compass_ray.pipelines import publish
from compass_ray.pipelines.run import CurationRun
from compass_ray.runtime.progress import Display
from compass_ray.runtime.stage import Session
from compass_ray.sample import stage as sampling


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
    if config.sample is None:
        raise ConfigError("sample: curate needs this section; give at least sample.budget")
    output = storage.absolute(config.output)
    session = Session(output, config.ray, display or Display())
    run = CurationRun(storage.join(output, "runs", config.name))

    space = vector_space(config.embed)
    frozen = frozen_codebook(config.cluster, space)
    plan = ingestion.plan(config.sources, config.ingest, config.embed.view, output)
    run_identity = publish.identity_of(config, plan.artifact, space, frozen)
    publish.refuse_other_identity(run, run_identity)

    manifest = ingestion.ingest(plan, config.ingest, session)
    quarantined = ingestion.quarantine(plan.artifact, session)
    try:
        ingestion.check_usable(manifest, config.ingest, ("pool", "target"))
    except DataError:
        publish.write_quarantine(run, quarantined)  # so that the user can see what is wrong
        raise

    embeddings = embed(plan.artifact, config.embed, session)
    codebook = frozen or fit_codebook(
        embeddings, space, config.cluster, config.seed, session, config.target.holdout_fraction
    )
    assignments = assign(embeddings, codebook, session)

    owners = {owner for role, owner, _ in ingestion.document_counts(manifest) if role == "target" and owner}
    inputs = sampling.SampleInputs(
        documents=plan.artifact,
        assignments=assignments,
        owners=tuple(sorted(owners)),
        n_clusters=len(read_codebook(codebook).centroids),
        seed=config.seed,
        holdout_fraction=config.target.holdout_fraction,
        with_current=config.adapt is None or config.adapt.data == "union",
    )
    sampled = sampling.sample(inputs, config.target, config.sample, session)
    selected = sampling.select(inputs, sampled, session)
    publish.write_run(run, config, run_identity, sampled, selected, quarantined, embeddings, codebook, session)
    return CurationRun(run.path, tuple(session.stages))
