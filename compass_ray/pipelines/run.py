"""A finished run, as a handle on its folder."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from compass_ray import paths, storage
from compass_ray.artifacts import Artifact, open_artifact
from compass_ray.errors import ConfigError
from compass_ray.pipelines.run_folder import RunFolder
from compass_ray.runtime.stage_record import StageRecord
from compass_ray.runtime.status import Status as Status
from compass_ray.runtime.status import read_status

if TYPE_CHECKING:
    import ray.data

    from compass_ray.config import RunConfig


@dataclass(frozen=True)
class CurationRun(RunFolder):
    """What ``curate`` returns: tables are read from the run's folder when asked for.

    Attributes
    ----------
    path : str
        ``<output>/runs/<name>``, local or ``s3://``.
    stages : tuple of StageRecord
        What each stage did in this process; empty for a run that was only opened.
    """

    stages: tuple[StageRecord, ...] = field(default=(), compare=False)

    RECORD = "run.json"
    COMMAND = "curate"
    HOLDS = "a run"

    @property
    def gaps(self) -> pa.Table:
        """The gap table, schema ``records.GAP``: target languages in order, largest deficit first."""
        return self.read_table("gaps.parquet")

    @property
    def unmet(self) -> pa.Table:
        """What usage asks for and the pool lacks, schema ``records.UNMET``: most first."""
        return self.read_table("unmet.parquet")

    @property
    def histograms(self) -> pa.Table:
        """Documents and tokens by target language, role, language and cluster, schema ``records.HISTOGRAM``."""
        return self.read_table("histograms.parquet")

    @property
    def ingested(self) -> dict[str, Any]:
        """What became of every row read: ``rows`` by source and outcome, ``mojibake`` by source.

        ``notes`` say by source what of documents was not read, or not there. ``dialects`` says how csv and tsv files
        were read: by source, with the number of files and the first of them; ``left_out`` which files were not, and
        ``splits`` what was made of them. Where a file could not be read and nobody could count its rows, ``estimated``
        has source and outcome.

        With ``ingest.decontaminate`` also ``contaminated`` rows by evaluation file, and ``evaluations``: how many
        ``texts`` and ``ngrams`` each has, and how many texts are ``too_short`` to be compared.
        """
        return self.read_json("ingest.json")

    @property
    def certificate(self) -> dict[str, Any]:
        """Divergence from held-out usage before, after and at random, by target language."""
        return self.read_json("certificate.json")

    def artifacts(self, *stages: str) -> list[Artifact]:
        """Open the outputs of some stages, in the cache beside the run's folder.

        Raises
        ------
        ArtifactMissing
            If the run has not finished, or one of them is no longer there.
        """
        made, output = self.record["stages"], paths.output_of(self.path)
        return [open_artifact(paths.cache_path(output, made[stage]["artifact"])) for stage in stages]

    @property
    def languages(self) -> list[str]:
        """The target languages that have a selection."""
        return sorted(self.certificate)

    def selection(self, lang: str) -> ray.data.Dataset:
        """Read the selected documents of one target language as a Ray Dataset.

        Raises
        ------
        ConfigError
            If the run selected nothing for that language.
        """
        if lang not in self.languages:
            raise ConfigError(f"{self.path}: no selection for '{lang}'; there is one for {', '.join(self.languages)}")
        import ray.data

        filesystem, folder = storage.arrow_filesystem(storage.join(self.path, "selection", lang))
        context = ray.data.DataContext.get_current().copy()
        context.use_datasource_v2 = False  # it starts 32 actors for the footers, whatever the number of files
        with ray.data.DataContext.current(context):
            return ray.data.read_parquet(folder, filesystem=filesystem, file_extensions=["parquet"])


def run_of(config: RunConfig) -> CurationRun:
    """Locate the run that a config names, finished or not."""
    return CurationRun(paths.runs_path(storage.absolute(config.output), config.name))


def status_of(path: str) -> Status:
    """Read how far a run is, as its driver has last written.

    The run in the folder need not have finished.

    Raises
    ------
    ArtifactMissing
        If no run has ever started there.
    """
    return read_status(storage.absolute(path))
