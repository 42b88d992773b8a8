"""From files to assignments: what every selection from one config starts from."""

from __future__ import annotations

from compass_ray import paths, storage
from compass_ray.cluster.codebook import read_codebook
from compass_ray.cluster.device import device_for
from compass_ray.cluster.stage import CodebookSpec, assign, fit_codebook, frozen_codebook
from compass_ray.config import RunConfig
from compass_ray.embed.meaning import Meaning
from compass_ray.embed.stage import embed, fit_meaning, vector_space
from compass_ray.errors import DataError
from compass_ray.ingest import stage as ingestion
from compass_ray.pipelines import publish
from compass_ray.pipelines.planned import Clustered, Plan
from compass_ray.pipelines.run import CurationRun
from compass_ray.runtime.stage import Session
from compass_ray.sample.stage import SampleInputs
from compass_ray.sample.transport import centroid_distances


def plan(config: RunConfig) -> Plan:
    """List files and check the encoder, a frozen codebook and the device.

    Raises
    ------
    EmptyInput, FingerprintMismatch, ResourcesMissing
    """
    output = storage.absolute(config.output)
    space = vector_space(config.embed, config.ingest.view)
    frozen = frozen_codebook(config.cluster, space)
    device = device_for(config.cluster.device, lambda: _cluster_gpus(config))
    ingest = ingestion.plan(config.sources, config.ingest, output)
    return Plan(CurationRun(paths.runs_path(output, config.name)), ingest, space, frozen, device)


def _cluster_gpus(config: RunConfig) -> float:
    from compass_ray.runtime.cluster import cluster_gpus

    return cluster_gpus(config.ray)


def _fit_copies(config: RunConfig, session: Session) -> Meaning | None:
    """Fit how translations are told, where the config looks for them and does not say."""
    if config.sample is None or not config.sample.fits_copies:
        return None
    fitted = fit_meaning(config.embed, session)
    session.display.say(
        f"copies: texts of two languages say the same above a cosine of {fitted.similarity:.3f} (fitted on "
        f"{fitted.sentences} sentences in {fitted.languages} languages: {fitted.found_fraction:.0%} of translations "
        f"found, {fitted.false_fraction:.1%} of sentences taken for another)"
    )
    return fitted


def cluster_documents(config: RunConfig, planned: Plan, session: Session) -> Clustered:
    """Ingest, embed and cluster; finished stages are reused.

    Raises
    ------
    DataError
        If too many rows are broken, or a role is empty; the run's ``quarantine.parquet`` and ``ingest.json`` are then
        written.
    """
    documents = planned.ingest.artifact
    manifest = ingestion.ingest(planned.ingest, config.ingest, session)
    quarantined = ingestion.quarantine(documents, session)
    publish.write_ingest(planned.run, planned.ingest, manifest)
    try:
        ingestion.check_usable(manifest, config.ingest, ("pool", "usage"), planned.ingest.sizes)
    except DataError:
        publish.write_quarantine(planned.run, quarantined)  # so that the user can see what is wrong
        raise

    embeddings = embed(documents, config.embed, session)
    fitting = CodebookSpec(config.cluster, planned.space, config.seed, config.holdout_fraction, planned.device)
    codebook = planned.frozen or fit_codebook(embeddings, fitting, session)
    copies = _fit_copies(config, session)
    target_langs = {
        target_lang for role, target_lang, _ in ingestion.document_counts(manifest) if role == "usage" and target_lang
    }
    inputs = SampleInputs(
        documents=documents,
        embeddings=embeddings,
        assignments=assign(embeddings, codebook, session, planned.device),
        target_langs=tuple(sorted(target_langs)),
        distance=centroid_distances(read_codebook(codebook).centroids),
        seed=config.seed,
        holdout_fraction=config.holdout_fraction,
        copy_similarity=None if copies is None else copies.similarity,
    )
    return Clustered(quarantined, embeddings, codebook, copies, inputs)
