"""The vectors of usage that a run was made for: what new usage is compared with, beside counts by cluster."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc

from compass_ray.artifacts import Artifact
from compass_ray.monitor.vectors import keep_usage
from compass_ray.pipelines.run import CurationRun
from compass_ray.runtime.stage import Session

VECTORS = "reference/vectors.parquet"
"""Where a version of an adapter keeps those of its language."""


def usage_vectors(run: CurationRun, session: Session) -> Artifact:
    """Keep a sample of the vectors of a run's usage, held out or not: a table by language, in the session's cache.

    Raises
    ------
    ArtifactMissing
        If the run has not finished, or its embeddings are no longer in its cache.
    """
    histograms = run.histograms
    usage = histograms.filter(pc.is_in(histograms["role"], pa.array(["usage", "heldout"])))
    counts = usage.group_by("target_lang", use_threads=False).aggregate([("documents", "sum")]).to_pylist()
    documents, embeddings = run.artifacts("ingest", "embed")
    by_lang = {row["target_lang"]: row["documents_sum"] for row in counts if row["documents_sum"]}
    return keep_usage(documents, embeddings, by_lang, run.record["seed"], session)
