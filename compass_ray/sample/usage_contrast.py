"""Documents of a cell that lie more towards the target language's usage than others do are likelier to be drawn.

Cost: three passes that read all vectors, and for each target language a product of every pool document with one vector
in two of them.
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
    """What one pass finds: where a target language's usage lies from everything else.

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
    pool and half current data, as in :func:`compass_ray.usage_shares.cluster_weights`. All of a target language's usage
    makes the direction: a cell has too little of it. Usage that cannot be told from the rest pulls nowhere.

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
        """Tell whether one of the two passes is still to be made. There are none if vectors do not matter at all."""
        return self._passes and not isinstance(known, Direction)

    def gather(self, shard: Shard, question: Question, known: Means | None) -> Fixed:
        """Compute a shard's sums in fixed point.

        First they are of vectors of usage, pool and current data with their counts, shape (3, d + 2), and then of the
        pool's squared deviations along the difference with their count, shape (2,).
        """
        if known is None:
            current = (
                shard.current(question.target_lang) if question.problem.current.any() else np.zeros(0, dtype=np.int64)
            )
            parts = [_sum_of(shard, rows) for rows in (shard.usage(question.target_lang), current)]
            found = np.stack([parts[0], _sum_of_pool(shard), parts[1]])
            found[:, -1] *= shards.VECTOR_SUM_SCALE  # squares need twice the room, and stay whole numbers
            return _fixed(found)
        deviations = products(shard.vectors(shard.inside_pool()), known.difference) - known.of_pool
        return _fixed(np.array([deviations @ deviations, len(deviations)]))

    def merge(self, one: Fixed, other: Fixed) -> Fixed:
        """Add up integers, which gives the same in any order."""
        return one + other

    def conclude(self, question: Question, known: Means | None, part: Fixed) -> Means | Direction:
        """Compute the means, then the direction. Where the pool lies in one point there is none."""
        total = shards.from_fixed(part) / shards.VECTOR_SUM_SCALE
        if known is None:
            total[:, -1] /= shards.VECTOR_SUM_SCALE
            return contrast(*total)
        variance = total[0] / total[1] if total[1] else 0.0
        return Direction(known.difference * (known.distance_sq / variance if variance > 0 else 0.0))

    def keys(self, shard: Shard, positions: Positions, target_lang: str, known: Direction) -> Keys:
        """Draw Gumbel noise, and add the log odds over τ if τ is given."""
        if self._temperature is None:
            return noise(shard, positions, target_lang)
        return noise(shard, positions, target_lang) + self.log_weights(shard.vectors(positions), known)

    def nearness(self, shard: Shard, positions: Positions, known: Direction) -> Keys:
        """Compute the log odds alone. They are highest for what lies nearest to usage."""
        return products(shard.vectors(positions), known.vector)

    def log_weights(self, rows: NDArray[np.float32], known: Direction) -> Keys:
        """Compute what is added to the noise of unit vectors, shape (n,)."""
        assert self._temperature is not None, "asked for only where it weighs"  # noqa: S101
        return products(rows, known.vector) / self._temperature


def contrast(usage: Vector, pool: Vector, current: Vector) -> Means:
    """Compute where usage lies from pool and current data.

    The mean product of two *different* documents is that of their true mean with itself; with the documents' products
    with themselves left in, a dozen documents lie far from anything. A document and its copies are one. Of a single
    document nobody can say where others like it lie: as usage it pulls nowhere, and beside usage it has no say.

    Parameters
    ----------
    usage, pool, current : ndarray of shape (d + 2,), float64
        From :func:`sums`; of usage at least one document, of the others there may be none.
    """
    mean = usage[:-2] / usage[-2]
    others = [rows[:-2] / rows[-2] for rows in (pool, current) if _several(rows)]
    squared = [_squared_mean(rows) for rows in (pool, current) if _several(rows)]
    middle = np.mean(others, axis=0) if others else mean
    difference = mean - middle
    distance_sq = 0.0
    if _several(usage) and others:
        of_middle = middle @ middle + sum(
            (square - other @ other) / len(others) ** 2 for square, other in zip(squared, others, strict=True)
        )
        distance_sq = max(0.0, float(_squared_mean(usage) - 2 * mean @ middle + of_middle))
    of_pool = float(pool[:-2] @ difference / pool[-2]) if pool[-2] else 0.0
    return Means(difference, distance_sq, of_pool)


def sums(rows: NDArray[np.float32], codes: NDArray[np.int64]) -> Vector:
    """Add up unit rows, and count them.

    The last value sums, over distinct rows, the squares of how often each is there.

    Parameters
    ----------
    rows : ndarray of shape (n, d), float32
    codes : ndarray of shape (n,), int64
        Equal for copies; see :func:`compass_ray.records.codes_of`.

    Returns
    -------
    ndarray of shape (d + 2,), float64
        Those of parts of the rows add up, if copies are in one part.
    """
    copies = np.bincount(codes).astype(np.float64)
    return np.concatenate([rows.sum(axis=0, dtype=np.float64), [len(rows), copies @ copies]])


def _several(rows: Vector) -> bool:
    """Tell whether the sums are of more than one document and its copies."""
    return bool(rows[-2] ** 2 > rows[-1])


def _squared_mean(rows: Vector) -> float:
    """Estimate the product of the true mean with itself. It goes by the products of different documents."""
    return float((rows[:-2] @ rows[:-2] - rows[-1]) / (rows[-2] ** 2 - rows[-1]))


def products(rows: NDArray[np.float32], vector: Vector) -> Vector:
    """Compute products of rows with a vector, shape (n,). Each is the same whatever other rows are asked for."""
    found = np.empty(len(rows))
    for start in range(0, len(rows), _TILE_ROWS):  # in float64, but not a second copy of all rows
        part = slice(start, start + _TILE_ROWS)
        found[part] = np.einsum("ij,j->i", rows[part].astype(np.float64), vector)
    return found


def to_table(directions: Mapping[str, Direction]) -> pa.Table:
    """Put directions by target language in a table of schema DIRECTION."""
    columns = {"target_lang": list(directions), "vector": [one.vector.tolist() for one in directions.values()]}
    return pa.table(columns, schema=records.DIRECTION)


def from_table(table: pa.Table) -> dict[str, Direction]:
    """Read what :func:`to_table` wrote."""
    return {row["target_lang"]: Direction(np.array(row["vector"])) for row in table.to_pylist()}


def _sum_of(shard: Shard, positions: Positions) -> Vector:
    """Compute the sums of some of a shard's documents."""
    contents = shard.assignments["content_id"].take(pa.array(positions))
    return sums(shard.vectors(positions), records.codes_of(contents))


def _sum_of_pool(shard: Shard) -> Vector:
    """Compute the sums of a shard's pool documents without outliers. They are the same for all target languages."""
    if "sum of pool" not in shard.memo:
        shard.memo["sum of pool"] = _sum_of(shard, shard.inside_pool())
    total: Vector = shard.memo["sum of pool"]
    return total


def _fixed(total: Vector) -> Fixed:
    return shards.to_fixed(total * shards.VECTOR_SUM_SCALE)
