"""A dry run of curation: what the sources hold, and what curating them will take. Nothing is written, Ray not started.

Times are extrapolated from the run's own kernels, timed here on a sample of its own documents: parsing, writing a
shard, encoding, comparing with centroids, and the start of a process. What none of these shows, such as the passes that
sampling makes over a shard, is a multiple of one that is measured. Multiples and the allowances for memory were fitted
to runs of up to 1,000,000 documents; ``benchmarks/preflight.py`` holds predictions to the truth. Memory is meant as an
upper bound. Both are for a first run, which finds no artifact to reuse, on one machine like this one: of another
cluster only its CPUs can be told, by ``ray.num_cpus``. ``n_clusters: auto`` and HDBSCAN were not among the runs.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from compass_ray import records, shards
from compass_ray.artifacts import to_parquet
from compass_ray.cluster import actors, kernels
from compass_ray.cluster.config import ClusterConfig
from compass_ray.cluster.sweep import SEEDS
from compass_ray.config import RunConfig
from compass_ray.embed import stage as embedding
from compass_ray.embed.batching import token_batches
from compass_ray.embed.kinds import encoder_from
from compass_ray.embed.meaning import PARALLEL_TEXTS
from compass_ray.errors import ConfigError
from compass_ray.ingest.config import MinHash
from compass_ray.ingest.contamination import merged
from compass_ray.ingest.minhash import banding, bucket_hashes
from compass_ray.ingest.near_duplicates import whole_texts
from compass_ray.ingest.near_languages import only_near
from compass_ray.ingest.shuffle import finish_shard
from compass_ray.ingest.survey import EvaluationSurvey, survey_all, survey_evaluations
from compass_ray.ingest.survey import Survey as Survey
from compass_ray.runtime.cluster import worthwhile
from compass_ray.runtime.threads import set_threads

_ENCODED = 1024
"""Texts that the encoder is timed on."""

_SLOW = 32
"""Texts that it is timed on where as many as :data:`_ENCODED` would take longer than :data:`_PATIENCE_S`."""

_PATIENCE_S = 10.0

_ITERATIONS = 40
"""Lloyd passes until convergence at the default tolerance, as seen; fewer if the config allows fewer."""

_CLUSTERS = 100
"""Centroids that comparing is timed with."""

_GIB = 1 << 30
_STARTS = {
    "read": 4.5,
    "minhash": 0.2,
    "ingest": 0.2,
    "embed": 0.8,
    "codebook": 0.7,
    "meaning": 0.5,
    "assign": 0.07,
    "near_usage": 0.07,
    "sample": 1.3,
    "select": 0.07,
}
"""What comes before a stage's first shard, in starts of a process: Ray, workers and their imports. The load of a model
is measured.
"""

_ROUND = 0.015
"""One call to all actors and back, in starts of a process: one for each seed and each Lloyd pass."""

_CROWDED = 1.8
"""How much longer encoding takes where every CPU has an encoder, and none is left to the driver and to Ray."""

_BASE_BYTES = int(1.0 * _GIB)  # the driver and Ray's own processes
_READER_BYTES = int(0.4 * _GIB)  # a worker process that has not imported torch
_ENCODER_BYTES = int(0.9 * _GIB)  # one that has, without the model's weights


@dataclass(frozen=True)
class Prediction:
    """What one stage is expected to take: wall time in seconds, and at most how much memory of all processes."""

    stage: str
    seconds: float
    peak_bytes: int


@dataclass(frozen=True)
class Preflight:
    """A dry run: sources in the order of the config, shards to be written, and stages in the order they run in.

    Rows are compared with the first file of each evaluation.
    """

    surveys: tuple[Survey, ...]
    n_shards: int
    cpus: int
    stages: tuple[Prediction, ...]
    evaluations: tuple[EvaluationSurvey, ...] = ()

    @property
    def near(self) -> dict[str, list[str]]:
        """Languages that usage is selected for and the pool has under neighbouring tags alone, with these."""
        wanted = {lang: None for one in self.surveys if one.role == "usage" for lang in one.target_langs}
        present = {lang: None for one in self.surveys if one.role == "pool" for lang in one.languages}
        return only_near(list(wanted), list(present))

    @property
    def seconds(self) -> float:
        return sum(stage.seconds for stage in self.stages)

    @property
    def peak_bytes(self) -> int:
        return max(stage.peak_bytes for stage in self.stages)


@dataclass(frozen=True)
class Costs:
    """Seconds of one thread of this machine.

    Attributes
    ----------
    start : float
        A process with the libraries that workers need.
    load : float
        The encoder with the libraries it needs, in wall time.
    weights : int
        Bytes of the encoder's weights.
    write, encode : float
        For one document: sorting and writing it; tokenising and embedding it.
    sign : float
        For one document: its MinHash signature; 0 where near-duplicates are not looked for.
    compare, race : float
        For one vector and one centroid: of many that are compared at once; of one alone, as in seeding.
    dim : int
        Length of a vector.
    """

    start: float
    load: float
    write: float
    encode: float
    compare: float
    race: float
    dim: int
    sign: float = 0.0
    weights: int = 0


def preflight(config: RunConfig) -> Preflight:
    """Look at every source, and time the config's encoder and kernels on documents of theirs.

    Cost: that of :mod:`compass_ray.ingest.survey`, the load of the encoder, the encoding of a thousand texts (fewer
    where that takes long), and two starts of a process.

    Raises
    ------
    EmptyInput, ConfigError, SchemaError
        If a source matches no file, or a format cannot be told; if no row that was looked at is a document; if an
        evaluation cannot be read.
    ResourcesMissing
        If the encoder, or the GPU that it is to run on, is not on this machine.
    """
    decontaminate = config.ingest.decontaminate
    looked = survey_evaluations(decontaminate, config.ingest.limits) if decontaminate else []
    compared = None
    if decontaminate:
        tables = {one.name: one.ngrams for one in looked}
        compared = merged(tables, decontaminate.lengths, vowel_marks=decontaminate.vowel_marks)
    surveys = survey_all(config.sources, config.ingest.view, compared)
    n_shards = shards.shard_count(sum(one.weight for one in surveys), config.ingest.shard_bytes)
    cpus = config.ray.num_cpus or os.cpu_count() or 1
    costs = measure(config, surveys)
    stages = predict(config, surveys, n_shards, cpus, costs)
    return Preflight(tuple(surveys), n_shards, cpus, tuple(stages), tuple(looked))


def measure(config: RunConfig, surveys: Sequence[Survey]) -> Costs:
    """Time the kernels of a run on the documents that a survey has read."""
    sample = pa.concat_tables([one.sample for one in surveys])
    texts = records.documents_only(sample)["text"].to_pylist()
    if not texts:
        found = {one.source: one.outcomes for one in surveys}
        raise ConfigError(f"sources: no row that was looked at is a document, but {found}; check columns and languages")
    started = time.monotonic()
    encoder = encoder_from(config.embed)
    load = time.monotonic() - started
    set_threads(config.embed.threads)

    def encode(some: Sequence[str]) -> None:
        tokenized = encoder.tokenize(some)
        batches = token_batches(tokenized.sizes(), config.embed.batch_tokens, config.embed.batch_texts)
        embedding.encode_in_batches(encoder, tokenized.inputs, batches)

    some = texts[:: max(1, len(texts) // _SLOW)]
    per_text = _seconds(partial(encode, some)) / len(some)
    if per_text * _ENCODED <= _PATIENCE_S:
        some = texts[:: max(1, len(texts) // _ENCODED)]
        per_text = _seconds(partial(encode, some)) / len(some)
    longer = _length(surveys) / float(np.mean([len(text) for text in some]))
    set_threads(1)
    x = np.random.default_rng(0).standard_normal((4 * kernels.TILE_ROWS, encoder.dim), dtype=np.float32)
    return Costs(
        start=_start(),
        load=load,
        write=_seconds(lambda: to_parquet(finish_shard(sample))) / sample.num_rows,
        encode=per_text * longer,
        compare=_seconds(lambda: kernels.nearest(x, x[:_CLUSTERS])) / len(x) / _CLUSTERS,
        race=_seconds(lambda: kernels.nearest(x, x[:1])) / len(x),
        dim=encoder.dim,
        weights=encoder.weights_bytes,
        sign=0.0 if config.ingest.minhash is None else _sign(config.ingest.minhash, sample) * longer,
    )


def _start() -> float:
    """Measure CPU time of a process that imports what workers do.
    It is the second of two, when its files are in memory.
    """

    def spent() -> float:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return children.ru_utime + children.ru_stime

    for _ in range(2):
        before = spent()
        subprocess.run([sys.executable, "-c", "import ray, ray.data, compass_ray.sample.stage"], check=True)
    return spent() - before


def _sign(config: MinHash, sample: pa.Table) -> float:
    documents = records.documents_only(sample)
    texts = whole_texts(documents.slice(0, _ENCODED)).to_pylist()
    cut = banding(config.similarity, config.hashes)
    return _seconds(
        lambda: bucket_hashes(texts, [""] * len(texts), config.lengths, cut, vowel_marks=config.vowel_marks)
    ) / len(texts)


def _length(surveys: Sequence[Survey]) -> float:
    """Compute the mean length in characters of the documents of all sources.
    Each source counts for as large as it will be.
    """
    total = sum(
        one.documents * pc.mean(pc.utf8_length(records.documents_only(one.sample)["text"])).as_py()
        for one in surveys
        if one.documents
    )
    return float(total) / max(1, sum(one.documents for one in surveys))


def _seconds(work: Callable[[], object]) -> float:
    """Measure CPU time of this process, which other programs do not lengthen.
    It is of a second call, as the first imports.
    """
    work()
    started = time.process_time()
    work()
    return time.process_time() - started


def predict(config: RunConfig, surveys: Sequence[Survey], n_shards: int, cpus: int, costs: Costs) -> list[Prediction]:
    """Predict what each curation stage takes on so many CPUs of this kind."""
    rows = sum(one.documents for one in surveys)
    read = sum(one.rows * one.row_seconds for one in surveys)
    weight = sum(one.weight for one in surveys)
    shard_bytes = weight / n_shards
    fitted = min(rows, config.cluster.fit_rows)
    n_clusters, sweep = _clusters(config.cluster, costs)
    passes = min(_ITERATIONS, config.cluster.max_iterations)
    compare = n_clusters * costs.compare
    room = max(1, int(cpus // config.embed.num_cpus))
    embedders = worthwhile(n_shards, rows, embedding.ROWS_EACH, room, config.embed.actors)
    fitters = worthwhile(n_shards, fitted, actors.ROWS_EACH, cpus, config.cluster.actors)
    workers = min(cpus, n_shards)
    pool, usage = (_documents(config, surveys, role) for role in ("pool", "usage"))
    vectors_compared = config.sample is None or config.sample.near_duplicates != "off"
    towards_usage = config.sample is not None and config.sample.temperature is not None

    work = {
        "read": 1.2 * (read + rows * costs.write) / cpus,
        "minhash": 1.5 * rows * costs.sign / workers,
        "ingest": 2 * rows * costs.write / workers,
        "embed": (costs.load + rows * (costs.encode + costs.write) / embedders)
        * (_CROWDED if embedders >= cpus else 1.0),
        "codebook": _ROUND * costs.start * (n_clusters + passes)
        + (sweep + 1.5 * rows * (compare + costs.write)) / workers
        + 1.5 * fitted * (n_clusters * costs.race + 1.7 * passes * compare) / fitters,
        "meaning": costs.load + PARALLEL_TEXTS * costs.encode,
        "assign": rows * (compare + 7.5 * costs.write) / workers,
        "near_usage": (vectors_compared * pool * usage * costs.compare / 3 + 5 * rows * costs.write) / workers,
        "sample": (46 if towards_usage else 31) * rows * costs.write / workers,
        "select": rows * costs.write / workers,
    }
    near = config.ingest.minhash
    bands = 0 if near is None else banding(near.similarity, near.hashes).bands
    reading = _BASE_BYTES + cpus * _READER_BYTES
    encoders = embedders * (_ENCODER_BYTES + costs.weights)
    # workers of the stage before end when Ray finds them idle
    left_over = _BASE_BYTES + encoders + (cpus - embedders) * _ENCODER_BYTES
    memory = {
        "read": reading + 5 * weight,
        "minhash": reading + 30 * workers * shard_bytes + 40 * bands * rows,
        "ingest": reading + 30 * workers * shard_bytes,
        "embed": _BASE_BYTES + encoders + 30 * embedders * shard_bytes + (cpus - embedders) * _READER_BYTES,
        "codebook": left_over + fitters * _READER_BYTES + 1.3 * 4 * costs.dim * fitted,
        "meaning": left_over,
        "assign": left_over,
        "near_usage": left_over + 2 * costs.dim * usage,
        "sample": left_over + 1_300 * rows,
        "select": left_over,
    }
    left_out = {"codebook"} if config.cluster.codebook != "fit" else set()
    left_out |= set() if config.sample is not None and config.sample.fits_copies else {"meaning"}
    stages = [stage for stage in work if stage not in left_out]
    seconds = {stage: _STARTS[stage] * costs.start + work[stage] for stage in stages}
    found = [Prediction(stage, seconds[stage], int(memory[stage])) for stage in stages]
    if near is None:  # what is read is what is ingested
        return [replace(found[0], stage="ingest"), *found[3:]]
    return found


def _documents(config: RunConfig, surveys: Sequence[Survey], role: str) -> int:
    return sum(one.documents for one in surveys if config.sources[one.source].role == role)


def _clusters(config: ClusterConfig, costs: Costs) -> tuple[int, float]:
    """Estimate how many clusters to count with, and seconds of finding that number."""
    if config.method == "hdbscan":
        return _CLUSTERS, config.hdbscan.rows**2 * costs.race
    if isinstance(config.n_clusters, int):
        return config.n_clusters, 0.0
    each = config.sweep.rows * SEEDS * (costs.race + _ITERATIONS * costs.compare)
    return max(config.sweep.clusters), sum(config.sweep.clusters) * each
