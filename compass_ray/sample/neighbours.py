"""Nearest neighbours of usage among pool documents: exact, or by an approximate index of faiss.

All vectors are unit rows, so that products are cosines.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from compass_ray import records
from compass_ray.errors import ResourcesMissing
from compass_ray.vectors import distinct_rows

Method = Literal["exact", "faiss"]
Rows = NDArray[np.float32]

TILE_ROWS = 1024
_LINKS = 32
_EFFORT = 128
"""Links and search depth of the HNSW graph (Malkov & Yashunin, 2018)."""


@dataclass(frozen=True)
class Neighbours:
    """The rows nearest to each target, most similar first, ties to the lower id; padded with -inf and zeros.

    Attributes
    ----------
    similarity : ndarray of shape (m, k), float32
    ids : ndarray of shape (m, k, 16), uint8
    """

    similarity: Rows
    ids: NDArray[np.uint8]


def best_similarity(x: Rows, targets: Rows, method: Method) -> Rows:
    """Find each row's highest cosine with any target.

    Parameters
    ----------
    x : ndarray of shape (n, d), float32
    targets : ndarray of shape (m, d), float32

    Returns
    -------
    ndarray of shape (n,), float32
        -inf without targets. Exact: ``2·n·m·d`` FLOP, TILE_ROWS × m at a time.
    """
    if not len(targets) or not len(x):
        return np.full(len(x), -np.inf, dtype=np.float32)
    if method == "faiss":
        best: Rows = _index(targets[distinct_rows(targets)[0]]).search(np.ascontiguousarray(x), 1)[0][:, 0]
        return best
    parts = [(x[start : start + TILE_ROWS] @ targets.T).max(axis=1) for start in range(0, len(x), TILE_ROWS)]
    return np.concatenate(parts)


def nearest_rows(targets: Rows, x: Rows, ids: NDArray[np.uint8], k: int, method: Method) -> Neighbours:
    """Find the ``k`` rows of ``x`` nearest to each target.

    Parameters
    ----------
    targets : ndarray of shape (m, d), float32
    x : ndarray of shape (n, d), float32
    ids : ndarray of shape (n, 16), uint8
    k : int
    """
    if method == "faiss" and len(x) and len(targets):
        return _approximate(targets, x, ids, k)
    parts = [Neighbours(np.empty((len(targets), 0), dtype=np.float32), np.empty((len(targets), 0, 16), dtype=np.uint8))]
    for start in range(0, len(x), TILE_ROWS):
        products = targets @ x[start : start + TILE_ROWS].T
        tile = np.broadcast_to(ids[start : start + TILE_ROWS], (*products.shape, 16))
        parts = [merge_nearest([*parts, Neighbours(products, tile)], k)]
    return merge_nearest(parts, k)


def _approximate(targets: Rows, x: Rows, ids: NDArray[np.uint8], k: int) -> Neighbours:
    """Find nearest rows as :func:`nearest_rows`, from an index of distinct rows.
    Equal ones would link to each other and hide the rest.
    """
    first, group = distinct_rows(x)
    distinct = x[first]
    order = np.lexsort((*records.ids_to_words(ids).T[::-1], group))
    sizes = np.bincount(group)
    starts = np.cumsum(sizes) - sizes
    similarity, index = _index(distinct).search(np.ascontiguousarray(targets), min(k, len(distinct)))
    found = np.full((len(targets), k), -np.inf, dtype=np.float32), np.zeros((len(targets), k, 16), dtype=np.uint8)
    for row, (near, groups) in enumerate(zip(similarity, index, strict=True)):
        near, groups = near[groups >= 0], groups[groups >= 0]
        equal = np.minimum(sizes[groups], k)
        within = np.arange(equal.sum()) - np.repeat(np.cumsum(equal) - equal, equal)
        rows = (np.repeat(starts[groups], equal) + within)[:k]
        found[0][row, : len(rows)] = np.repeat(near, equal)[:k]
        found[1][row, : len(rows)] = ids[order[rows]]
    return _sorted(*found, k)


def merge_nearest(parts: Iterable[Neighbours], k: int) -> Neighbours:
    """Keep the ``k`` nearest of several parts. They are the same in any order and grouping of parts."""
    listed = list(parts)
    similarity = np.concatenate([part.similarity for part in listed], axis=1)
    return _sorted(similarity, np.concatenate([part.ids for part in listed], axis=1), k)


def _sorted(similarity: Rows, ids: NDArray[np.uint8], k: int) -> Neighbours:
    words = records.ids_to_words(ids)
    order = np.lexsort((words[..., 1], words[..., 0], -similarity), axis=1)[:, :k]
    rows = np.arange(len(similarity))[:, None]
    missing = max(0, k - similarity.shape[1])
    return Neighbours(
        np.pad(similarity[rows, order], ((0, 0), (0, missing)), constant_values=-np.inf),
        np.pad(ids[rows, order], ((0, 0), (0, missing), (0, 0))),
    )


def round_robin(neighbours: Neighbours, count: int) -> NDArray[np.uint8]:
    """Let each target in turn take its nearest row that nobody has taken.

    Returns
    -------
    ndarray of shape (n, 16), uint8
        Ids in the order in which they were taken: ``count``, or fewer where the lists end before.
    """
    targets = zip(neighbours.similarity, neighbours.ids, strict=True)
    lists = [iter([bytes(row) for row in ids[similarity > -np.inf]]) for similarity, ids in targets]
    taken: dict[bytes, None] = {}
    while lists and len(taken) < count:
        going = []
        for waiting in lists:
            free = next((row for row in waiting if row not in taken), None)
            if free is None:
                continue
            going.append(waiting)
            taken[free] = None
            if len(taken) == count:
                break
        lists = going
    return np.frombuffer(b"".join(taken), dtype=np.uint8).reshape(-1, 16)


def _index(x: Rows) -> Any:
    """Build a graph over rows. One thread builds it, so it is the same every time."""
    try:
        import faiss
    except ImportError as exc:
        raise ResourcesMissing(
            "sample.neighbours: 'faiss' needs faiss; pip install 'compass_ray[cpu]', or use 'exact'"
        ) from exc
    faiss.omp_set_num_threads(1)
    index = faiss.IndexHNSWFlat(x.shape[1], _LINKS, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction = _EFFORT
    index.hnsw.efSearch = _EFFORT
    index.add(np.ascontiguousarray(x))
    return index
