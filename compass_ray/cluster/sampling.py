"""A bounded sample of the embeddings, for what has to see all its rows at once: the sweep and HDBSCAN.

Tasks read it out of the shards and one task joins it in the order of ids, so it has the same bits for any number of
workers and no row passes the driver. Cost: ``4·d`` bytes a row, about ``rows`` of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from compass_ray import records, seeding
from compass_ray.artifacts import Artifact
from compass_ray.cluster.centering import LanguageMeans
from compass_ray.cluster.fit import ShardRows
from compass_ray.runtime.threads import set_threads
from compass_ray.vectors import finite_rows


@dataclass(frozen=True)
class Sample:
    """Fitting rows, and what of them is usage and pool; without held-out usage."""

    rows: ShardRows
    inclusion: NDArray[np.float64]  # (n,), the chance that the row had to be in the sample
    roles: NDArray[np.str_]  # (n,)
    owners: NDArray[np.str_]  # (n,), empty for the pool


@dataclass(frozen=True)
class Design:
    """How a sample is drawn: about ``rows`` rows in all, by the weight of a row of each (role, language)."""

    weights: Mapping[tuple[str, str], float]
    rows: int
    seed: int
    holdout_fraction: float


def collect(embeddings: Artifact, means: LanguageMeans, design: Design) -> tuple[Any, int]:
    """Draw a sample by Ray tasks.

    Returns
    -------
    sample : ObjectRef of Sample
    found : int
        Its rows.
    """
    import ray

    from compass_ray.runtime.cluster import cluster_cpus

    keys = embeddings.manifest().keys_with_rows
    count = min(len(keys), cluster_cpus())
    read, joined = (ray.remote(num_cpus=1, max_retries=5)(task) for task in (_read, _joined))
    shared = ray.put(means)
    parts = [read.remote(embeddings, keys[part::count], design, shared) for part in range(count)]
    sample, found = joined.options(num_returns=2).remote(*parts)
    return sample, ray.get(found)


def join(parts: Sequence[Sample]) -> Sample:
    """One sample in the order of ids, however it was split."""
    ids = np.concatenate([part.rows.ids for part in parts])
    words = records.ids_to_words(ids)
    order = np.lexsort((words[:, 1], words[:, 0]))
    x = np.concatenate([part.rows.x for part in parts])[order]
    weights = np.concatenate([part.rows.weights for part in parts])[order]
    return Sample(
        ShardRows(ids[order], x, weights),
        np.concatenate([part.inclusion for part in parts])[order],
        np.concatenate([part.roles for part in parts])[order],
        np.concatenate([part.owners for part in parts])[order],
    )


def weights_of(embeddings: pa.Table, weights: Mapping[tuple[str, str], float]) -> NDArray[np.float64]:
    """The weight of each row by its role and language, shape (n,)."""
    groups = zip(embeddings["role"].to_pylist(), embeddings["lang"].to_pylist(), strict=True)
    return np.array([weights[group] for group in groups], dtype=np.float64)


def _read(embeddings: Artifact, keys: list[str], design: Design, means: LanguageMeans) -> Sample:
    set_threads(1)
    columns = ["doc_id", "role", "owner", "lang", "vector"]
    return join([sample_rows(finite_rows(embeddings.read(key, columns)), design, means) for key in keys])


def sample_rows(embeddings: pa.Table, design: Design, means: LanguageMeans) -> Sample:
    """A shard's part of a sample, each row with a chance that follows its weight, so that usage is not lost among the
    pool.
    """
    ids = records.ids_to_numpy(embeddings["doc_id"])
    weight = weights_of(embeddings, design.weights)
    chance = np.minimum(1.0, design.rows * weight)
    roles = np.array(embeddings["role"].to_pylist(), dtype=np.str_)
    heldout = (roles == "target") & seeding.heldout(ids, design.seed, design.holdout_fraction)
    kept = (seeding.uniform(ids, design.seed, "sweep") < chance) & ~heldout
    owners = np.array([owner or "" for owner in embeddings["owner"].to_pylist()], dtype=np.str_)
    share = np.where(roles == "target", 1 - design.holdout_fraction, 1.0)  # what is held out leaves its weight behind
    shard = ShardRows(ids[kept], means.unit_rows(embeddings.filter(pa.array(kept))), (weight / chance / share)[kept])
    return Sample(shard, chance[kept], roles[kept], owners[kept])


def _joined(*parts: Sample) -> tuple[Sample, int]:
    whole = join(parts)
    return whole, len(whole.roles)
