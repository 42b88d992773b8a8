"""Logical shards: the unit of work, of resume, of reduction and of determinism.

A document's shard is given by the high bits of its content hash, and the number of shards by
the size of the input, never by the number of workers. Equal content meets in one shard whatever
its role, so that deduplication and eligibility are local decisions.

Partial sums of different shards are added as fixed-point integers. Integer addition is
associative, so actors may add up their shards in any grouping and order and the total has the
same bits: what floating point cannot promise, and what makes the codebook independent of the
number of workers without sending every shard's sums to the driver.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MAX_SHARDS = 1 << 16
_FIXED_SCALE = 2.0**52

VECTOR_SUM_SCALE = 2.0**-22
"""Fixed point ends at 2^10, a sum of unit vectors at their number: scaled by this there is room for 2^32 of them."""


def shard_count(input_bytes: int, shard_bytes: int) -> int:
    """Choose the number of shards, a power of two. It makes shards of at most about ``shard_bytes`` input bytes."""
    wanted = max(1, -(-input_bytes // shard_bytes))
    return min(MAX_SHARDS, 1 << (wanted - 1).bit_length())


def shard_of(content_ids: NDArray[np.uint8], n_shards: int) -> NDArray[np.int32]:
    """Take shard numbers from the high bits of content hashes.

    Parameters
    ----------
    content_ids : ndarray of shape (n, 16), uint8
    n_shards : int
        A power of two, at most ``MAX_SHARDS``.
    """
    high = content_ids[:, 0].astype(np.uint32) << 8 | content_ids[:, 1].astype(np.uint32)
    bits = n_shards.bit_length() - 1
    return (high >> np.uint32(16 - bits)).astype(np.int32)


def shard_keys(n_shards: int) -> list[str]:
    """List the file-name keys of all shards, in order."""
    return [shard_key(shard) for shard in range(n_shards)]


def shard_key(shard: int) -> str:
    """Form the file-name key of one shard."""
    return f"{shard:05d}"


def to_fixed(partial: NDArray[np.float64]) -> NDArray[np.int64]:
    """Round a shard's partial sums to multiples of 2^-52.

    Totals must stay below 2^10 in magnitude; weights that sum to one keep them below one.
    """
    return np.rint(partial * _FIXED_SCALE).astype(np.int64)


def from_fixed(total: NDArray[np.int64]) -> NDArray[np.float64]:
    """Convert a fixed-point total to its float64 value."""
    return total.astype(np.float64) / _FIXED_SCALE
