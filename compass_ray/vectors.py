"""Unit vectors: how they are normalised, and how they travel in Arrow columns (float16)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def scaled_rows(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scale rows of shape (n, d) to length one; rows of zeros, which say nothing, stay."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0))


def unit_rows(vectors: NDArray[Any]) -> NDArray[np.float32]:
    """Scale rows to length one.

    Parameters
    ----------
    vectors : ndarray of shape (n, d), any float

    Returns
    -------
    ndarray of shape (n, d), float32
        Zero rows become the first unit vector, so that every document has a direction;
        non-finite rows stay non-finite.
    """
    rows = vectors.astype(np.float32)
    largest = np.abs(rows).max(axis=1, initial=0)
    empty = largest == 0
    with np.errstate(invalid="ignore"):  # infinite rows become NaN, quietly
        rows /= np.where(empty, 1, largest)[:, None]
        norms = np.sqrt(np.einsum("ij,ij->i", rows, rows, dtype=np.float64))
        rows /= np.where(empty, 1, norms)[:, None].astype(np.float32)
    rows[empty, :1] = 1.0
    return rows


def from_column(column: pa.ChunkedArray) -> NDArray[np.float16]:
    """Turn a vector column without nulls into an array. The shape is (n, d), float16."""
    array = column.combine_chunks()
    values: NDArray[np.float16] = array.flatten().to_numpy(zero_copy_only=False)
    return values.reshape(len(array), column.type.list_size)


def to_column(vectors: NDArray[Any], missing: NDArray[np.bool_] | None = None) -> pa.Array:
    """Turn rows of shape (n, d) into a fixed-size list column of float16. Null where ``missing``."""
    half = np.ascontiguousarray(vectors, dtype=np.float16)
    mask = None if missing is None else pa.array(missing)
    return pa.FixedSizeListArray.from_arrays(pa.array(half.ravel()), half.shape[1], mask=mask)


def finite_rows(embeddings: pa.Table) -> pa.Table:
    """Keep the rows of an embedding table that have a vector. Those whose vector was not finite have none."""
    return embeddings.filter(embeddings["vector"].is_valid())


def distinct_rows(x: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Find where each different row occurs first. Also tells for all rows which of these they are.

    Parameters
    ----------
    x : ndarray of shape (n, d), float32
        Compared byte by byte.

    Returns
    -------
    first : ndarray of shape (m,), int64
    group : ndarray of shape (n,), int64
        Positions in ``first``.
    """
    rows = np.ascontiguousarray(x)
    whole = rows.view(np.dtype((np.void, rows.itemsize * rows.shape[1])))
    _, first, group = np.unique(whole, return_index=True, return_inverse=True)
    return first, group.reshape(-1)
