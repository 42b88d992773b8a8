"""A dry run of curation: what the sources hold, and what curating them will take. Nothing is written, no Ray is started.

Times are extrapolated from the run's own kernels, timed here on a sample of its own documents: parsing, writing a
shard, encoding, comparing with centroids. What no kernel shows, such as the passes over a shard that sampling makes, is
a multiple of one that is measured; multiples and starts of processes were fitted to runs of 10⁴ to 10⁶ documents
(``benchmarks/preflight.py``, which holds predictions to the truth). Memory is an upper bound in the same sense: sizes
that are known times allowances that no run of the benchmark has exceeded.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from compass_ray import records, shards
from compass_ray.artifacts import to_parquet
from compass_ray.cluster import kernels
from compass_ray.config import RunConfig
from compass_ray.embed.batching import token_batches
from compass_ray.embed.encoder import encoder_from
from compass_ray.embed.stage import actors_for, encode_in_batches
from compass_ray.ingest.shuffle import finish_shard
from compass_ray.ingest.survey import Survey as Survey
from compass_ray.ingest.survey import survey_all
from compass_ray.runtime.threads import set_threads

_ENCODED = 1024
"""Texts that the encoder is timed on."""


@dataclass(frozen=True)
class Prediction:
    """What one stage is expected to take: wall time in seconds, and the peak of all processes together."""

    stage: str
    seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class Preflight:
    """A dry run: sources in the order of the config, shards to be written, and stages in the order they run in."""

    surveys: tuple[Survey, ...]
    n_shards: int
    cpus: int
    stages: tuple[Prediction, ...]


@dataclass(frozen=True)
class Costs:
    """Seconds of one thread of this machine, timed on a sample.

    Attributes
    ----------
    read, write, encode : float
        For one document: from bytes to a document; sorting and writing it; and embedding it.
    compare, race : float
        For one vector: with all centroids; with one.
    """

    read: float
    write: float
    encode: float
    compare: float
    race: float


def preflight(config: RunConfig) -> Preflight:
    """Look at every source, and time the config's encoder and kernels on their first documents.

    Cost: as of :mod:`compass_ray.ingest.survey`, the load of the encoder, and the encoding of a thousand texts.

    Raises
    ------
    EmptyInput, ConfigError
        If a source matches no file, or a format cannot be told.
    ResourcesMissing
        If the encoder is not on this machine.
    """
    surveys = survey_all(config.sources, config.embed.view)
    n_shards = shards.shard_count(sum(one.weight for one in surveys), config.ingest.shard_bytes)
    cpus = config.ray.num_cpus or os.cpu_count() or 1
    return Preflight(tuple(surveys), n_shards, cpus, ())


def _seconds(work: Callable[[], object]) -> float:
    """CPU time of this process, which other programs on the machine do not lengthen."""
    started = time.process_time()
    work()
    return time.process_time() - started


def measure(config: RunConfig, surveys: Sequence[Survey]) -> Costs:
    """Time the kernels of a run on the documents that a survey has read."""
    sample = pa.concat_tables([one.sample for one in surveys])
    rows = max(1, sample.num_rows)
    documents = records.documents_only(sample)
    encoder = encoder_from(config.embed)
    set_threads(config.embed.threads)
    texts = documents["text"].to_pylist()
    tokens = encoder.count_tokens(texts)
    step = max(1, len(texts) // _ENCODED)
    some, counted = texts[::step], tokens[::step]
    batches = token_batches(counted, config.embed.batch_tokens, config.embed.batch_texts)
    encode_in_batches(encoder, some[:8], [np.arange(len(some[:8]))])  # the first call compiles and allocates
    per_token = _seconds(lambda: encode_in_batches(encoder, some, batches)) / max(1, int(counted.sum()))
    set_threads(1)
    x = np.random.default_rng(0).standard_normal((kernels.TILE_ROWS, encoder.dim), dtype=np.float32)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return Costs(
        read=sum(one.seconds for one in surveys) / rows,
        write=_seconds(lambda: to_parquet(finish_shard(sample))) / rows,
        encode=per_token * float(tokens.mean()),
        compare=_seconds(lambda: kernels.nearest(x, x[:100])) / len(x),
        race=_seconds(lambda: kernels.nearest(x, x[:1])) / len(x),
    )
