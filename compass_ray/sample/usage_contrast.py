"""Documents of a cell that lie more towards the owner's usage than others do are likelier to be drawn.

Cost: three passes that read all vectors, and for each owner a product of every pool document with one vector in two of
them.
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
Vector = NDArray[np.float64]

_TILE_ROWS = 4096


@dataclass(frozen=True)
class Means:
    """What one pass finds: where an owner's usage lies from everything else.

    Attributes
    ----------
    difference : ndarray of shape (d,), float64
        The mean of usage less the middle of the means of pool and current data.
    distance_sq : float
        Its squared length without the part that is chance of a small sample: 0 where usage could be like the rest.
    of_pool : float
        The product of the pool's mean with ``difference``.
    """

    difference: Vector
    distance_sq: float
    of_pool: float


@dataclass(frozen=True)
class Direction:
    """What two passes find: products with it are log odds that a document is of usage, up to a constant."""

    vector: Vector  # (d,)


class UsageContrast(Scorer):
    """Weight ``exp(log odds / τ)`` of a document to be of usage rather than of everything else.

    Were both normal with the same scatter, the log odds would be the projection on the line between their means, times
    the distance of the means over the variance along it (Fisher, 1936). So documents are importance-sampled inside a
    cell as clusters are by their quotas, for a cell holds what is asked for beside what is not. Everything else is half
    pool and half current data, as in :func:`compass_ray.mass.cluster_weights`. All of an owner's usage makes the
    direction: a cell has too little of it. Usage that cannot be told from the rest pulls nowhere.

    What is known is first nothing, then :class:`Means`, then a :class:`Direction`.

    Parameters
    ----------
    temperature : float or None
        τ: 1 takes the odds as they are, small values the documents that stand out most, large ones any; None all alike.
    nearness : bool
        Whether documents are also asked for nearest to usage first, which needs the passes without a temperature too.
    """

    def __init__(self, temperature: float | None, *, nearness: bool = False) -> None:
        self._temperature, self._passes = temperature, nearness or temperature is not None

    def missing(self, question: Question, known: Means | Direction | None) -> bool:
        """Two passes, if vectors matter at all."""
        return self._passes and not isinstance(known, Direction)

    def gather(self, shard: Shard, question: Question, known: Means | None) -> Fixed:
        """A shard's sums in fixed point: of vectors of usage, pool and current data with their counts, shape
        (3, d + 1), and then of the pool's squared deviations along the difference with their count, shape (2,).
        """
        if known is None:
            current = shard.current(question.owner) if question.problem.current.any() else np.zeros(0, dtype=np.int64)
            parts = [_sum(shard.vectors(rows)) for rows in (shard.usage(question.owner), current)]
            return _fixed(np.stack([parts[0], _sum_of_pool(shard), parts[1]]))
        deviations = products(shard.vectors(shard.inside_pool()), known.difference) - known.of_pool
        return _fixed(np.array([deviations @ deviations, len(deviations)]))

    def merge(self, one: Fixed, other: Fixed) -> Fixed:
        """Integers add up in any order."""
        return one + other

    def conclude(self, question: Question, known: Means | None, part: Fixed) -> Means | Direction:
        """The means, then the direction; where the pool lies in one point there is none."""
        sums = shards.from_fixed(part) / shards.VECTOR_SUM_SCALE
        if known is None:
            return contrast(*sums)
        variance = sums[0] / sums[1] if sums[1] else 0.0
        return Direction(known.difference * (known.distance_sq / variance if variance > 0 else 0.0))

    def keys(self, shard: Shard, positions: Positions, owner: str, known: Direction) -> Keys:
        """Gumbel noise, and the log odds over τ."""
        if self._temperature is None:
            return noise(shard, positions, owner)
        return noise(shard, positions, owner) + self.log_weights(shard.vectors(positions), known)

    def nearness(self, shard: Shard, positions: Positions, known: Direction) -> Keys:
        """The log odds alone: highest for what lies nearest to usage."""
        return products(shard.vectors(positions), known.vector)

    def log_weights(self, rows: NDArray[np.float32], known: Direction) -> Keys:
        """What is added to the noise of unit vectors, shape (n,)."""
        assert self._temperature is not None, "asked for only where it weighs"  # noqa: S101
        return products(rows, known.vector) / self._temperature


def contrast(usage: Vector, pool: Vector, current: Vector) -> Means:
    """Where usage lies from pool and current data.

    The mean product of two *different* documents of usage is that of its true mean with itself; with the documents'
    products with themselves left in, a dozen documents lie far from anything.

    Parameters
    ----------
    usage, pool, current : ndarray of shape (d + 1,), float64
        The sum of unit vectors, and their number; of usage at least one, of the others there may be none.
    """
    count = usage[-1]
    mean = usage[:-1] / count
    others = [rows[:-1] / rows[-1] for rows in (pool, current) if rows[-1]]
    middle = np.mean(others, axis=0) if others else mean
    difference = mean - middle
    distance_sq = 0.0  # of one document nobody can say
    if count > 1:
        between = (usage[:-1] @ usage[:-1] - count) / (count * (count - 1))
        distance_sq = max(0.0, float(between - 2 * mean @ middle + middle @ middle))
    return Means(difference, distance_sq, float(others[0] @ difference) if others else 0.0)


def products(rows: NDArray[np.float32], vector: Vector) -> Vector:
    """Products of rows with a vector, shape (n,): each the same whatever other rows are asked for."""
    found = np.empty(len(rows))
    for start in range(0, len(rows), _TILE_ROWS):  # in float64, but not a second copy of all rows
        part = slice(start, start + _TILE_ROWS)
        found[part] = np.einsum("ij,j->i", rows[part].astype(np.float64), vector)
    return found


def to_table(directions: Mapping[str, Direction]) -> pa.Table:
    """Directions by owner, as a table of schema DIRECTION."""
    columns = {"owner": list(directions), "vector": [one.vector.tolist() for one in directions.values()]}
    return pa.table(columns, schema=records.DIRECTION)


def from_table(table: pa.Table) -> dict[str, Direction]:
    """What :func:`to_table` wrote."""
    return {row["owner"]: Direction(np.array(row["vector"])) for row in table.to_pylist()}


def _sum(rows: NDArray[np.float32]) -> Vector:
    """The sum of rows, and their number, shape (d + 1,)."""
    return np.append(rows.sum(axis=0, dtype=np.float64), len(rows))


def _sum_of_pool(shard: Shard) -> Vector:
    """That of a shard's pool documents without outliers: the same for all owners."""
    if "sum of pool" not in shard.memo:
        shard.memo["sum of pool"] = _sum(shard.vectors(shard.inside_pool()))
    total: Vector = shard.memo["sum of pool"]
    return total


def _fixed(sums: Vector) -> Fixed:
    return shards.to_fixed(sums * shards.VECTOR_SUM_SCALE)
