"""A dry run of curation: what the sources hold, without ingesting them. Nothing is written and no Ray is started."""

from __future__ import annotations

from compass_ray import shards
from compass_ray.config import RunConfig
from compass_ray.ingest.survey import Survey as Survey
from compass_ray.ingest.survey import survey_all


def survey_sources(config: RunConfig) -> tuple[list[Survey], int]:
    """Look at every source; cost as in :mod:`compass_ray.ingest.survey`.

    Returns
    -------
    surveys : list of Survey
        In the order of the config.
    n_shards : int
        How many logical shards ingest will write.

    Raises
    ------
    EmptyInput, ConfigError
        If a source matches no file, or a format cannot be told.
    """
    surveys = survey_all(config.sources, config.embed.view)
    return surveys, shards.shard_count(sum(one.weight for one in surveys), config.ingest.shard_bytes)
