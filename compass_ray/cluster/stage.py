"""Cluster: embeddings -> codebook and assignments.

The fit runs on long-lived shard actors that hold a memory-bounded sample of rows; one full pass of
tasks then assigns every document. The driver sees K×d sums, K points and counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from compass_ray import records, seeding, storage
from compass_ray.artifacts import Artifact, Receipt, artifact
from compass_ray.cluster import centering, kernels
from compass_ray.cluster.codebook import KEY, Codebook, open_codebook, read_codebook
from compass_ray.cluster.config import ClusterConfig
from compass_ray.cluster.fit import RowGroup, ShardRows, lloyd, seed_centroids
from compass_ray.configbase import identity
from compass_ray.errors import TooFewSamples
from compass_ray.runtime.stage import Session, map_keys
from compass_ray.runtime.threads import set_threads

VERSION = 1
ROLE_MASS = {"pool": 0.5, "target": 0.25, "current": 0.25}
_THREADS = 1


def frozen_codebook(config: ClusterConfig, space: Mapping[str, str]) -> Artifact | None:
    """The codebook that the config names, or None if one is to be fitted.

    Raises
    ------
    FingerprintMismatch
        If it belongs to another encoder or centring.
    """
    return None if config.codebook == "fit" else open_codebook(storage.absolute(config.codebook), space)


def fit_codebook(
    embeddings: Artifact, space: Mapping[str, str], config: ClusterConfig, seed: int, session: Session
) -> Artifact:
    """Fit a codebook to the embeddings.

    Parameters
    ----------
    embeddings : Artifact
    space : mapping
        What makes vectors comparable: the encoder's identity, and ``center``.
    config : ClusterConfig
    seed : int
    session : Session

    Raises
    ------
    TooFewSamples
        If there are fewer documents than clusters.
    """
    body = {
        "version": VERSION,
        "embeddings": embeddings.fingerprint,
        "space": dict(space),
        "config": identity(config),
        "seed": seed,
    }
    target = artifact(session.output, "codebook", body)
    keys = [centering.KEY, KEY] if space["center"] == "language" else [KEY]
    session.complete(target, keys, lambda missing: _make_codebook(missing, embeddings, target, config, seed))
    return target


def assign(embeddings: Artifact, codebook: Artifact, session: Session) -> Artifact:
    """Give every document with a finite vector its nearest cluster."""
    body = {"version": VERSION, "embeddings": embeddings.fingerprint, "codebook": codebook.fingerprint}
    target = artifact(session.output, "assign", body)
    keys = list(embeddings.manifest().receipts)
    session.complete(
        target, keys, lambda missing: map_keys(_assign_shard, missing, embeddings, read_codebook(codebook), target)
    )
    return target


def _make_codebook(
    missing: list[str], embeddings: Artifact, target: Artifact, config: ClusterConfig, seed: int
) -> Iterator[Receipt]:
    """The means first, if there are to be any; an interrupted fit computes them again, to the same bits."""
    means = centering.LanguageMeans({})
    if target.identity["space"]["center"] == "language":
        keys = list(embeddings.manifest().receipts)
        means = centering.language_means(map_keys(_language_sums, keys, embeddings))
    if centering.KEY in missing:
        yield means.write(target)
    if KEY in missing:
        yield _fit(embeddings, means, target, config, seed)


def _language_sums(key: str, embeddings: Artifact) -> centering.Sums:
    set_threads(_THREADS)
    return centering.language_sums(_finite(embeddings.read(key, ["lang", "vector"])))


def _fit(
    embeddings: Artifact, means: centering.LanguageMeans, target: Artifact, config: ClusterConfig, seed: int
) -> Receipt:
    import ray

    from compass_ray.runtime.cluster import cluster_cpus

    groups = _group_totals(embeddings)
    rows = sum(groups.values())
    if rows < config.n_clusters:
        raise TooFewSamples(
            f"cluster.n_clusters: {config.n_clusters} clusters cannot be fitted on {rows} documents; "
            "lower it or add data"
        )
    rate = min(1.0, config.fit_rows / rows)
    weights = {group: weight / rate for group, weight in kernels.row_weights(groups, ROLE_MASS).items()}
    keys = [key for key, receipt in embeddings.manifest().receipts.items() if receipt.rows]
    count = min(len(keys), config.actors or cluster_cpus(), cluster_cpus())
    remote = ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=-1)(FitActor)
    shared_means = ray.put(means)
    actors = [remote.remote(embeddings, keys[part::count], weights, seed, rate, shared_means) for part in range(count)]

    def broadcast(method: str, *args: Any) -> list[Any]:
        shared = [ray.put(value) if isinstance(value, np.ndarray) else value for value in args]
        answers: list[Any] = ray.get([actor.call.remote(method, *shared) for actor in actors])
        return answers

    n_features = int(embeddings.read(keys[0], ["vector"]).schema.field("vector").type.list_size)
    initial = seed_centroids(broadcast, config.n_clusters, n_features, seed)
    fit = lloyd(broadcast, initial, max_iterations=config.max_iterations, tol=config.tol)
    for actor in actors:
        ray.kill(actor)
    thresholds, default = _thresholds(embeddings, keys, Codebook(fit.centroids, means, {}, -1.0), config)
    summary = {"inertia": fit.inertia, "converged": fit.converged, "rows": rows, "sampling_rate": rate}
    return Codebook(fit.centroids, means, thresholds, default).write(target, summary)


def _group_totals(embeddings: Artifact) -> Counter[tuple[str, str]]:
    groups: Counter[tuple[str, str]] = Counter()
    for receipt in embeddings.manifest().receipts.values():
        for role, lang, count in receipt.summary["groups"]:
            groups[role, lang] += count
    return groups


class FitActor:
    """A Ray actor around :class:`RowGroup`; a restarted one reads its shards again."""

    def __init__(
        self,
        embeddings: Artifact,
        keys: list[str],
        weights: dict[tuple[str, str], float],
        seed: int,
        rate: float,
        means: centering.LanguageMeans,
    ) -> None:
        set_threads(_THREADS)
        self._group = RowGroup([_fitting_rows(embeddings, key, weights, seed, rate, means) for key in keys])

    def call(self, method: str, *args: Any) -> Any:
        return getattr(self._group, method)(*args)


def _fitting_rows(
    embeddings: Artifact,
    key: str,
    weights: Mapping[tuple[str, str], float],
    seed: int,
    rate: float,
    means: centering.LanguageMeans,
) -> ShardRows:
    table = _finite(embeddings.read(key, ["doc_id", "role", "lang", "vector"]))
    ids = records.ids_to_numpy(table["doc_id"])
    kept = pa.array(seeding.uniform(ids, seed, "fit") < rate)
    table = table.filter(kept)
    groups = zip(table["role"].to_pylist(), table["lang"].to_pylist(), strict=True)
    row_weights = np.array([weights[group] for group in groups], dtype=np.float64)
    return ShardRows(records.ids_to_numpy(table["doc_id"]), means.unit_rows(table), row_weights)


def _thresholds(
    embeddings: Artifact, keys: list[str], codebook: Codebook, config: ClusterConfig
) -> tuple[dict[str, float], float]:
    """Outlier thresholds by language, from target and current documents alone."""
    totals: dict[str, Any] = {}
    for histograms in map_keys(_similarities, keys, embeddings, codebook):
        for lang, (bins, counts) in histograms.items():
            total = totals.setdefault(lang, np.zeros(kernels.SIMILARITY_BINS, dtype=np.int64))
            total[bins] += counts
    if not totals:
        return {}, -1.0
    tail = 1 - config.outlier_quantile
    own = {
        lang: kernels.similarity_quantile(total, tail)
        for lang, total in sorted(totals.items())
        if total.sum() >= config.outlier_min_rows
    }
    everyone = np.sum(list(totals.values()), axis=0)
    return own, kernels.similarity_quantile(everyone, tail)


def _similarities(key: str, embeddings: Artifact, codebook: Codebook) -> dict[str, tuple[Any, Any]]:
    set_threads(_THREADS)
    table = _finite(embeddings.read(key, ["role", "lang", "vector"]))
    table = table.filter(pc.not_equal(table["role"], "pool"))
    if not table.num_rows:
        return {}
    _, similarity = kernels.nearest(codebook.means.unit_rows(table), codebook.centroids)
    langs = np.array(table["lang"].to_pylist())
    result = {}
    for lang in np.unique(langs):
        histogram = kernels.similarity_histogram(similarity[langs == lang])
        bins = np.flatnonzero(histogram)
        result[str(lang)] = (bins, histogram[bins])
    return result


def _assign_shard(key: str, embeddings: Artifact, codebook: Codebook, target: Artifact) -> Receipt:
    set_threads(_THREADS)
    table = _finite(embeddings.read(key))
    labels, similarity = kernels.nearest(codebook.means.unit_rows(table), codebook.centroids)
    limits = [codebook.thresholds.get(lang, codebook.default_threshold) for lang in table["lang"].to_pylist()]
    outlier = similarity < np.array(limits, dtype=np.float64)
    assigned = table.drop_columns(["vector"])
    for name, values in (("cluster", labels), ("similarity", similarity), ("outlier", outlier)):
        assigned = assigned.append_column(name, pa.array(values))
    return target.write(key, assigned.cast(records.ASSIGNMENT), {"outliers": int(outlier.sum())})


def _finite(table: pa.Table) -> pa.Table:
    return table.filter(table["vector"].is_valid())
