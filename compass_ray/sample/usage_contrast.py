"""Documents of a cell that lie more towards the owner's usage than others do are likelier to be drawn.

Cost: two passes that read all vectors, and a product of each pool document with one vector of every owner.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from compass_ray import records, shards
from compass_ray.sample.scorer import Keys, Question, Scorer, noise
from compass_ray.sample.shard import Positions, Shard

Fixed = NDArray[np.int64]

_TILE_ROWS = 4096


@dataclass(frozen=True)
class Direction:
    """From where pool and current data lie to where an owner's usage lies, shape (d,).

    ``scaled``: so long that the pool's products with it have a standard deviation of one.
    """

    vector: NDArray[np.float64]
    scaled: bool

    def products(self, rows: NDArray[np.float32]) -> NDArray[np.float64]:
        """How far rows lie towards usage, shape (n,): each the same whatever other rows are asked for."""
        products = np.empty(len(rows))
        for start in range(0, len(rows), _TILE_ROWS):  # in float64, but not a second copy of all rows
            part = slice(start, start + _TILE_ROWS)
            products[part] = np.einsum("ij,j->i", rows[part].astype(np.float64), self.vector)
        return products


class UsageContrast(Scorer):
    """Weight ``exp(z / τ)``: z is how many standard deviations of the pool a document lies towards usage.

    Were usage and everything else normal with the same spread, their density ratio would be such a function of this
    projection (Fisher, 1936). So documents are importance-sampled inside a cell as clusters are by their quotas, for a
    cell holds what is asked for beside what is not. Everything else is half pool and half current data, as in
    :func:`compass_ray.mass.cluster_weights`. The direction comes from all of an owner's usage: a cell has too little
    of it (measured: docs/selection.md).

    What is known is first nothing, then a direction, then the scaled direction.

    Parameters
    ----------
    temperature : float
        τ: small values take the documents that stand out most, large ones any.
    """

    def __init__(self, temperature: float) -> None:
        self._temperature = temperature

    def missing(self, question: Question, known: Direction | None) -> bool:
        """Two passes."""
        return known is None or not known.scaled

    def gather(self, shard: Shard, question: Question, known: Direction | None) -> Fixed:
        """A shard's sums in fixed point: of vectors of usage, pool and current data with their counts, shape
        (3, d + 1), and then of the pool's products, shape (3,): their number, sum and sum of squares.
        """
        pool = _pool(shard)
        if known is None:
            usage, current = (shard.vectors(rows(question.owner)) for rows in (shard.usage, shard.current))
            sums = [np.append(rows.sum(axis=0, dtype=np.float64), len(rows)) for rows in (usage, pool, current)]
            return _fixed(np.stack(sums))
        products = known.products(pool)
        return _fixed(np.array([len(products), products.sum(), products @ products]))

    def merge(self, one: Fixed, other: Fixed) -> Fixed:
        """Integers add up in any order."""
        return one + other

    def conclude(self, question: Question, known: Direction | None, part: Fixed) -> Direction:
        """The direction, then its scale; a pool that lies in one point has neither."""
        sums = shards.from_fixed(part)
        if known is None:
            means = [one[:-1] / one[-1] for one in sums if one[-1]]  # of usage, which there is, first
            return Direction(means[0] - np.mean(means[1:], axis=0), scaled=False)
        count, total, squares = sums
        deviation = np.sqrt(max(0.0, squares / count - (total / count) ** 2)) if count else 0.0
        scale = 1 / deviation if deviation > 0 else 0.0
        return Direction(known.vector * scale, scaled=True)

    def keys(self, shard: Shard, positions: Positions, owner: str, known: Direction) -> Keys:
        """Gumbel noise, and z over τ."""
        return noise(shard, positions, owner) + self.log_weights(shard.vectors(positions), known)

    def log_weights(self, rows: NDArray[np.float32], known: Direction) -> Keys:
        """What is added to the noise of unit vectors, z over τ, shape (n,)."""
        return known.products(rows) / self._temperature


def to_table(directions: Mapping[str, Direction]) -> pa.Table:
    """Directions by owner, as a table of schema DIRECTION."""
    columns = {"owner": list(directions), "vector": [one.vector.tolist() for one in directions.values()]}
    return pa.table(columns, schema=records.DIRECTION)


def from_table(table: pa.Table) -> dict[str, Direction]:
    """What :func:`to_table` wrote."""
    return {row["owner"]: Direction(np.array(row["vector"]), scaled=True) for row in table.to_pylist()}


def _pool(shard: Shard) -> NDArray[np.float32]:
    """Vectors of a shard's pool documents without outliers: the same for all owners."""
    if "pool vectors" not in shard.memo:
        shard.memo["pool vectors"] = shard.vectors(shard.inside_pool())
    vectors: NDArray[np.float32] = shard.memo["pool vectors"]
    return vectors


def _fixed(sums: NDArray[np.float64]) -> Fixed:
    return shards.to_fixed(sums * shards.VECTOR_SUM_SCALE)
