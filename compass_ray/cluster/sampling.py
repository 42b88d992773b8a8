"""Which rows a codebook is found with, and what they weigh: all of them, or a bounded sample.

k-means holds them where their shards are read. The sweep and HDBSCAN have to see all of them at once: tasks read them
out of the shards and one task joins them in the order of ids, so they have the same bits for any number of workers and
no row passes the driver. Cost: ``4·d`` bytes a row.
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
from compass_ray.centering import LanguageMeans
from compass_ray.cluster import kernels
from compass_ray.cluster.fit import ShardRows
from compass_ray.holdout import heldout_mask
from compass_ray.runtime.threads import set_threads
from compass_ray.vectors import finite_rows

ROLE_MASS = {"pool": 0.5, "usage": 0.25, "current": 0.25}

FITTED_BY = ("doc_id", "content_id", "role", "lang")
"""Columns that say whether a row is in the sample, and with what weight."""

Group = tuple[str, str]
"""Role and language of a row."""


@dataclass(frozen=True)
class Design:
    """How rows are sampled, by their role and language.

    Attributes
    ----------
    weights : mapping of (role, language) to float
        What a row weighs in the sample.
    chances : mapping of (role, language) to float
        The chance that it is in the sample, in (0, 1].
    seed : int
    holdout_fraction : float
        Share of the usage documents that are never in it.
    """

    weights: Mapping[Group, float]
    chances: Mapping[Group, float]
    seed: int
    holdout_fraction: float

    def weights_of(self, rows: pa.Table) -> NDArray[np.float64]:
        """Compute each row's weight in the sample, shape (n,), 0 outside it. Rows have the columns of ``FITTED_BY``."""
        draws = seeding.uniform(records.ids_to_numpy(rows["doc_id"]), self.seed, "fit")
        drawn = (draws < by_group(rows, self.chances)) & ~heldout_mask(rows, self.seed, self.holdout_fraction)
        return np.where(drawn, by_group(rows, self.weights), 0.0)

    def to_json(self) -> dict[str, Any]:
        """Turn the design into plain values."""
        groups = [[*group, weight, self.chances[group]] for group, weight in self.weights.items()]
        return {"groups": groups, "seed": self.seed, "holdout_fraction": self.holdout_fraction}

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> Design:
        """Rebuild the design that :meth:`to_json` gave the values of."""
        weights = {(role, lang): weight for role, lang, weight, _ in body["groups"]}
        chances = {(role, lang): chance for role, lang, _, chance in body["groups"]}
        return cls(weights, chances, body["seed"], body["holdout_fraction"])


def design_sample(groups: Mapping[Group, int], rows: int, seed: int, holdout_fraction: float = 0.0) -> Design:
    """Design a sample of about ``rows`` rows not held out, or of all.

    Each is drawn by a chance that follows its weight. So usage is not lost in a large pool: of ten million pool
    documents and a few hundred of usage a sample of a million holds all the usage. A row weighs more for those of its
    group that are not taken.

    Parameters
    ----------
    groups : mapping of (role, language) to int
        How many rows there are, held-out ones too.
    """
    known = {group: count * (1 - holdout_fraction if group[0] == "usage" else 1.0) for group, count in groups.items()}
    weights = kernels.row_weights(known, ROLE_MASS)
    rate, room, left = np.inf, float(rows), 1.0
    if rows < sum(known.values()):
        for weight, group in sorted(((weight, group) for group, weight in weights.items()), reverse=True):
            rate = room / left
            if weight * rate < 1:
                break
            room, left = room - known[group], left - known[group] * weight  # all rows of the group are taken
    chances = {group: min(1.0, weight * rate) for group, weight in weights.items()}
    weights = {group: weight / chances[group] for group, weight in weights.items()}
    return Design(weights, chances, seed, holdout_fraction)


@dataclass(frozen=True)
class Sample:
    """Rows at one place, and what of them is usage and pool; without held-out usage."""

    rows: ShardRows
    inclusion: NDArray[np.float64]  # (n,), the chance that the row had to be in the sample
    roles: NDArray[np.str_]  # (n,)
    target_langs: NDArray[np.str_]  # (n,), empty for the pool
    contents: NDArray[np.uint8]  # (n, 16), equal for equal texts


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
    """Join parts into one sample in the order of ids, however it was split."""
    ids = np.concatenate([part.rows.ids for part in parts])
    words = records.ids_to_words(ids)
    order = np.lexsort((words[:, 1], words[:, 0]))
    x = np.concatenate([part.rows.x for part in parts])[order]
    weights = np.concatenate([part.rows.weights for part in parts])[order]
    return Sample(
        ShardRows(ids[order], x, weights),
        np.concatenate([part.inclusion for part in parts])[order],
        np.concatenate([part.roles for part in parts])[order],
        np.concatenate([part.target_langs for part in parts])[order],
        np.concatenate([part.contents for part in parts])[order],
    )


def _read(embeddings: Artifact, keys: list[str], design: Design, means: LanguageMeans) -> Sample:
    set_threads(1)
    columns = [*FITTED_BY, "target_lang", "vector"]
    tables = (finite_rows(embeddings.read(key, columns)) for key in keys)
    return join([sample_rows(table, design, means) for table in tables])


def known_rows(embeddings: pa.Table, seed: int, holdout_fraction: float) -> pa.Table:
    """Keep the rows that have a vector and are not held out."""
    return finite_rows(embeddings.filter(pa.array(~heldout_mask(embeddings, seed, holdout_fraction))))


def sample_rows(embeddings: pa.Table, design: Design, means: LanguageMeans) -> Sample:
    """Make a shard's part of a sample. It takes the columns of ``FITTED_BY``, target language and vector."""
    rows, table = fitting_rows(embeddings, design, means)
    return Sample(
        rows,
        by_group(table, design.chances),
        np.array(table["role"].to_pylist(), dtype=np.str_),
        np.array([target_lang or "" for target_lang in table["target_lang"].to_pylist()], dtype=np.str_),
        records.ids_to_numpy(table["content_id"]),
    )


def fitting_rows(embeddings: pa.Table, design: Design, means: LanguageMeans) -> tuple[ShardRows, pa.Table]:
    """Select a shard's rows in the sample, and their part of the table."""
    weights = design.weights_of(embeddings)
    kept = weights > 0
    table = embeddings.filter(pa.array(kept))
    return ShardRows(records.ids_to_numpy(table["doc_id"]), means.unit_rows(table), weights[kept]), table


def by_group(rows: pa.Table, values: Mapping[Group, float]) -> NDArray[np.float64]:
    """Look up the value of each row's role and language, shape (n,)."""
    found = np.empty(rows.num_rows)
    roles, langs = (np.array(rows[name].to_pylist(), dtype=np.str_) for name in ("role", "lang"))
    for role in np.unique(roles):
        mine = roles == role
        names, codes = np.unique(langs[mine], return_inverse=True)
        found[mine] = np.array([values[str(role), str(name)] for name in names])[codes]
    return found


def _joined(*parts: Sample) -> tuple[Sample, int]:
    whole = join(parts)
    return whole, len(whole.roles)
