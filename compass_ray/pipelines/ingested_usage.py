"""Usage, and texts like it, that are read beside a curation: by monitor and by the gate."""

from __future__ import annotations

from collections.abc import Mapping

from compass_ray.artifacts import Artifact
from compass_ray.config import RunConfig
from compass_ray.ingest import stage as ingestion
from compass_ray.ingest.config import SourceConfig
from compass_ray.pipelines import publish
from compass_ray.pipelines.run_folder import RunFolder
from compass_ray.runtime.stage import Session


def ingest_usage(
    sources: Mapping[str, SourceConfig], section: str, config: RunConfig, session: Session, run: RunFolder | None = None
) -> Artifact:
    """Ingest sources of role usage, as a config says, but for what it says of the pool.

    Parameters
    ----------
    sources : mapping of str to SourceConfig
    section : str
        Where the config has them, for messages.
    run : RunFolder, optional
        Where it is written what became of the rows; for texts that are only looked up nowhere.

    Raises
    ------
    DataError
        If too many rows are broken, or none is left.
    """
    ingest = config.ingest.model_copy(update={"decontaminate": None, "minhash": None})  # these are about the pool
    plan = ingestion.plan(sources, ingest, session.output, section)
    manifest = ingestion.ingest(plan, ingest, session)
    if run is not None:
        publish.write_quarantine(run, ingestion.quarantine(plan.artifact, session))
        publish.write_ingest(run, plan, manifest)
    ingestion.check_usable(manifest, ingest, ("usage",), plan.sizes, section)
    return plan.artifact
