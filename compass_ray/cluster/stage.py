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

from compass_ray import records, seeding, storage
from compass_ray.artifacts import Artifact, Receipt, artifact
from compass_ray.cluster import centering, kernels, outliers, sweep
from compass_ray.cluster.codebook import KEY, Codebook, open_codebook, read_codebook
from compass_ray.cluster.config import ClusterConfig, SweepConfig
from compass_ray.cluster.fit import RowGroup, ShardRows, lloyd, seed_centroids
from compass_ray.configbase import identity
from compass_ray.errors import TooFewSamples
from compass_ray.runtime.stage import Session, map_keys
from compass_ray.runtime.threads import set_threads

VERSION = 2
SWEEP = "sweep"
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
    embeddings: Artifact,
    space: Mapping[str, str],
    config: ClusterConfig,
    seed: int,
    session: Session,
    holdout_fraction: float,
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
    holdout_fraction : float
        Share of target documents that ``n_clusters: auto`` may not look at.

    Raises
    ------
    TooFewSamples
        If there are fewer documents than clusters.
    """
    body: dict[str, Any] = {
        "version": VERSION,
        "embeddings": embeddings.fingerprint,
        "space": dict(space),
        "config": identity(config),
        "seed": seed,
    }
    if config.n_clusters == "auto":
        body["holdout_fraction"] = holdout_fraction
    else:
        del body["config"]["sweep"]
    target = artifact(session.output, "codebook", body)
    keys = [KEY]
    if space["center"] == "language":
        keys.append(centering.KEY)
    if config.n_clusters == "auto":
        keys.append(SWEEP)
    manifest = session.complete(
        target, keys, lambda missing: _make_codebook(missing, embeddings, target, config, seed, holdout_fraction)
    )
    if config.n_clusters == "auto":
        session.display.say(manifest.receipts[KEY].summary["chosen"])
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
    missing: list[str],
    embeddings: Artifact,
    target: Artifact,
    config: ClusterConfig,
    seed: int,
    holdout_fraction: float,
) -> Iterator[Receipt]:
    """The means first, if there are to be any; an interrupted fit computes them again, to the same bits."""
    means = centering.LanguageMeans({})
    if target.identity["space"]["center"] == "language":
        keys = list(embeddings.manifest().receipts)
        means = centering.language_means(map_keys(_language_sums, keys, embeddings))
    if centering.KEY in missing:
        yield means.write(target)
    if KEY not in missing:
        return
    if config.n_clusters != "auto":
        yield _fit(embeddings, means, target, config, seed, config.n_clusters, {})
        return
    rows = _sweep(embeddings, means, config.sweep, seed, holdout_fraction)
    n_clusters, why = sweep.choose(rows)
    if SWEEP in missing:
        yield target.write(SWEEP, sweep.to_table(rows))
    yield _fit(embeddings, means, target, config, seed, n_clusters, {"chosen": why})


def _sweep(
    embeddings: Artifact, means: centering.LanguageMeans, config: SweepConfig, seed: int, holdout_fraction: float
) -> list[sweep.SweepRow]:
    """Tasks read the sample, draw centers for each seed, and try each number: no row comes to the driver."""
    import ray

    from compass_ray.runtime.cluster import cluster_cpus

    weights = kernels.row_weights(_group_totals(embeddings), ROLE_MASS)
    keys = [key for key, receipt in embeddings.manifest().receipts.items() if receipt.rows]
    count = min(len(keys), cluster_cpus())
    read, join, draw, score = (
        ray.remote(num_cpus=1, max_retries=5)(task) for task in (_sweep_sample, _joined, _starts, _sweep_row)
    )
    shared_means = ray.put(means)
    parts = [
        read.remote(embeddings, keys[part::count], weights, config.rows, seed, holdout_fraction, shared_means)
        for part in range(count)
    ]
    sample, found = join.options(num_returns=2).remote(*parts)
    most = max(config.clusters)
    seeds = [seeding.child_seed(seed, "sweep", str(number)) for number in range(sweep.SEEDS)]
    starts: list[Any] = ray.get([draw.remote(sample, most, one) for one in seeds])
    numbers = sweep.usable(config.clusters, min(map(len, starts)), ray.get(found))
    centers = ray.put(starts)
    rows: list[sweep.SweepRow] = ray.get([score.remote(sample, centers, number, seed) for number in numbers[::-1]])
    return rows


def _sweep_sample(
    embeddings: Artifact,
    keys: list[str],
    weights: Mapping[tuple[str, str], float],
    rows: int,
    seed: int,
    holdout_fraction: float,
    means: centering.LanguageMeans,
) -> sweep.Sample:
    """About ``rows`` rows over all tasks, each with a chance that follows its weight, so that usage is not lost."""
    set_threads(_THREADS)
    parts = []
    for key in keys:
        table = _finite(embeddings.read(key, ["doc_id", "role", "owner", "lang", "vector"]))
        ids = records.ids_to_numpy(table["doc_id"])
        groups = zip(table["role"].to_pylist(), table["lang"].to_pylist(), strict=True)
        weight = np.array([weights[group] for group in groups], dtype=np.float64)
        chance = np.minimum(1.0, rows * weight)
        roles = np.array(table["role"].to_pylist(), dtype=np.str_)
        heldout = (roles == "target") & seeding.heldout(ids, seed, holdout_fraction)
        kept = (seeding.uniform(ids, seed, "sweep") < chance) & ~heldout
        owners = np.array([owner or "" for owner in table["owner"].to_pylist()], dtype=np.str_)
        share = np.where(roles == "target", 1 - holdout_fraction, 1.0)  # what is held out leaves its weight behind
        rows_kept = ShardRows(ids[kept], means.unit_rows(table.filter(pa.array(kept))), (weight / chance / share)[kept])
        parts.append(sweep.Sample(rows_kept, chance[kept], roles[kept], owners[kept]))
    return sweep.join(parts)


def _joined(*parts: sweep.Sample) -> tuple[sweep.Sample, int]:
    whole = sweep.join(parts)
    return whole, len(whole.roles)


def _starts(sample: sweep.Sample, n_clusters: int, seed: int) -> Any:
    set_threads(_THREADS)
    return sweep.starts(sample, n_clusters, seed)


def _sweep_row(sample: sweep.Sample, centers: list[Any], n_clusters: int, seed: int) -> sweep.SweepRow:
    set_threads(_THREADS)
    return sweep.sweep_row(sample, centers, n_clusters, seed)


def _language_sums(key: str, embeddings: Artifact) -> centering.Sums:
    set_threads(_THREADS)
    return centering.language_sums(_finite(embeddings.read(key, ["lang", "vector"])))


def _fit(
    embeddings: Artifact,
    means: centering.LanguageMeans,
    target: Artifact,
    config: ClusterConfig,
    seed: int,
    n_clusters: int,
    why: Mapping[str, str],
) -> Receipt:
    import ray

    from compass_ray.runtime.cluster import cluster_cpus

    groups = _group_totals(embeddings)
    rows = sum(groups.values())
    if rows < n_clusters:
        raise TooFewSamples(
            f"cluster.n_clusters: {n_clusters} clusters cannot be fitted on {rows} documents; lower it or add data"
        )
    if config.fit_rows < n_clusters:
        raise TooFewSamples(
            f"cluster.fit_rows: {n_clusters} clusters cannot be fitted on {config.fit_rows} rows "
            f"(of {rows} documents); raise it or lower cluster.n_clusters"
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
    initial = seed_centroids(broadcast, n_clusters, n_features, seed)
    fit = lloyd(broadcast, initial, max_iterations=config.max_iterations, tol=config.tol)
    for actor in actors:
        ray.kill(actor)
    counts = map_keys(_similarities, keys, embeddings, Codebook(fit.centroids, means, {}, -1.0))
    thresholds, default = outliers.thresholds(counts, config)
    summary = {"inertia": fit.inertia, "converged": fit.converged, "rows": rows, "sampling_rate": rate, **why}
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


def _similarities(key: str, embeddings: Artifact, codebook: Codebook) -> outliers.Counts:
    set_threads(_THREADS)
    table = _finite(embeddings.read(key, ["role", "lang", "vector"]))
    return outliers.count_similarities(table, kernels.nearest(codebook.means.unit_rows(table), codebook.centroids)[1])


def _assign_shard(key: str, embeddings: Artifact, codebook: Codebook, target: Artifact) -> Receipt:
    set_threads(_THREADS)
    table = _finite(embeddings.read(key))
    labels, similarity = kernels.nearest(codebook.means.unit_rows(table), codebook.centroids)
    limits = [codebook.threshold(lang) for lang in table["lang"].to_pylist()]
    outlier = similarity < np.array(limits, dtype=np.float64)
    assigned = table.drop_columns(["vector"])
    for name, values in (("cluster", labels), ("similarity", similarity), ("outlier", outlier)):
        assigned = assigned.append_column(name, pa.array(values))
    return target.write(key, assigned.cast(records.ASSIGNMENT), {"outliers": int(outlier.sum())})


def _finite(table: pa.Table) -> pa.Table:
    return table.filter(table["vector"].is_valid())
