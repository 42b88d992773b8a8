"""k-means on Ray: long-lived actors hold a memory-bounded part of the rows, the driver sees K×d sums and K points."""

from __future__ import annotations

from typing import Any

import numpy as np

from compass_ray.artifacts import Artifact
from compass_ray.centering import LanguageMeans
from compass_ray.cluster.config import ClusterConfig
from compass_ray.cluster.device import Device, nearest_on
from compass_ray.cluster.fit import KMeansResult, RowGroup, lloyd, seed_centroids
from compass_ray.cluster.sampling import FITTED_BY, Design, fitting_rows
from compass_ray.runtime.threads import set_threads
from compass_ray.vectors import finite_rows

ROWS_EACH = 20_000
"""Fitting rows that are worth the start of another actor, which takes seconds."""


def fit_on_actors(
    embeddings: Artifact,
    means: LanguageMeans,
    design: Design,
    config: ClusterConfig,
    n_clusters: int,
    device: Device,
) -> KMeansResult:
    """Seed and fit to a sample of the rows; the same bytes for any number of actors.

    Raises
    ------
    TooFewSamples
        If there are fewer distinct rows than clusters.
    """
    import ray

    from compass_ray.runtime.cluster import cluster_cpus, room_for, worthwhile

    num_gpus = 1 if device == "gpu" else 0
    keys = embeddings.manifest().keys_with_rows
    room = room_for(1, num_gpus, "cluster.device") if num_gpus else cluster_cpus()
    rows = min(config.fit_rows, embeddings.manifest().rows)
    count = worthwhile(len(keys), rows, ROWS_EACH, room, config.actors)
    remote = ray.remote(num_cpus=1, num_gpus=num_gpus, max_restarts=-1, max_task_retries=-1)(FitActor)
    shared = ray.put(means)
    actors = [remote.remote(embeddings, keys[part::count], design, shared, device) for part in range(count)]

    def broadcast(method: str, *args: Any) -> list[Any]:
        given = [ray.put(value) if isinstance(value, np.ndarray) else value for value in args]
        answers: list[Any] = ray.get([actor.call.remote(method, *given) for actor in actors])
        return answers

    initial = seed_centroids(broadcast, n_clusters, broadcast("n_features")[0], design.seed)
    fit = lloyd(broadcast, initial, max_iterations=config.max_iterations, tol=config.tol)
    for actor in actors:
        ray.kill(actor)
    return fit


class FitActor:
    """A Ray actor around :class:`RowGroup`; a restarted one reads its shards again."""

    def __init__(
        self, embeddings: Artifact, keys: list[str], design: Design, means: LanguageMeans, device: Device
    ) -> None:
        set_threads(1)
        tables = (finite_rows(embeddings.read(key, [*FITTED_BY, "vector"])) for key in keys)
        self._group = RowGroup([fitting_rows(table, design, means)[0] for table in tables], nearest_on(device))

    def call(self, method: str, *args: Any) -> Any:
        return getattr(self._group, method)(*args)
