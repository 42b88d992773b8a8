"""Per-shard counts that add up: who has how many documents in which cluster."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from compass_ray import records
from compass_ray.holdout import heldout_mask
from compass_ray.usage_shares import soft_counts

SOFT_COUNT_UNIT = 2.0**-20
"""Documents that one unit of :func:`shard_spread` is."""

_KEYS = ["target_lang", "role", "lang", "cluster"]
_COUNTS = ["documents", "tokens", "squares"]


def pool_mask(assignments: pa.Table) -> NDArray[np.bool_]:
    """Mark the pool rows that are no outliers. Whether a target language may have them does not matter."""
    inside: NDArray[np.bool_] = np.asarray(
        pc.and_(pc.equal(assignments["role"], "pool"), pc.invert(assignments["outlier"]))
    )
    return inside


def eligible_mask(
    assignments: pa.Table, near_usage: pa.Table, target_lang: str, trained: pa.Array | None = None
) -> NDArray[np.bool_]:
    """Mark the pool rows of a shard that may be drawn for a target language.

    Outliers may not; nor may a row that would be trained on twice, or leak usage into training: one whose content
    equals a current row of this target language or any usage row, held out or not, and one that nearly repeats a usage
    row of this target language.

    Parameters
    ----------
    assignments : Table of schema ASSIGNMENT
    near_usage : Table of schema NEAR_USAGE
        Of the same shard.
    trained : Array of ids, optional
        Contents that the target language's adapter was trained on before.
    """
    repeats = _repeats(assignments, target_lang, trained)
    return pool_mask(assignments) & ~repeats & ~_near(assignments, near_usage, target_lang)


def _repeats(assignments: pa.Table, target_lang: str, trained: pa.Array | None) -> NDArray[np.bool_]:
    """Mark rows with the content of usage, of the target language's current rows, or of what was trained on before.
    Equal content is always in one shard.
    """
    role = assignments["role"]
    seen = pc.or_(
        pc.equal(role, "usage"),
        pc.and_(pc.equal(role, "current"), pc.fill_null(pc.equal(assignments["target_lang"], target_lang), False)),
    )
    known = pc.unique(assignments["content_id"].filter(seen))
    mask = pc.is_in(assignments["content_id"], value_set=known)
    if trained is not None:
        mask = pc.or_(mask, pc.is_in(assignments["content_id"], value_set=trained))
    return np.asarray(mask)


def _near(assignments: pa.Table, near_usage: pa.Table, target_lang: str) -> NDArray[np.bool_]:
    """Mark the rows that nearly repeat usage of the target language."""
    of_target_lang = near_usage.filter(pc.equal(near_usage["target_lang"], target_lang))
    return np.asarray(pc.is_in(assignments["doc_id"], value_set=of_target_lang["doc_id"].combine_chunks()))


def shard_histogram(
    assignments: pa.Table,
    near_usage: pa.Table,
    target_langs: Sequence[str],
    n_clusters: int,
    seed: int,
    holdout_fraction: float,
    trained: Mapping[str, pa.Array] | None = None,
) -> pa.Table:
    """Count one shard.

    Parameters
    ----------
    assignments : Table of schema ASSIGNMENT
    near_usage : Table of schema NEAR_USAGE
        Of the same shard.
    trained : mapping of target language to Array of ids, optional
        Contents that adapters were trained on before.

    Returns
    -------
    Table of schema HISTOGRAM
        Usage rows that are held out count as role ``heldout``; pool rows that a target language may not draw count
        again, with that target language: those that repeat rows exactly as role ``ineligible``, other near copies of
        its usage as ``near_usage``. Cluster ``n_clusters`` is the outlier bin.
    """
    heldout = pa.array(heldout_mask(assignments, seed, holdout_fraction))
    bin_number = pc.if_else(assignments["outlier"], pa.scalar(n_clusters, pa.int32()), assignments["cluster"])
    rows = pa.table(
        {
            "target_lang": assignments["target_lang"],
            "role": pc.if_else(heldout, "heldout", assignments["role"]),
            "lang": assignments["lang"],
            "cluster": bin_number,
            "documents": pa.array(np.ones(assignments.num_rows, dtype=np.int64)),
            "tokens": assignments["tokens"].cast(pa.int64()),
            "squares": _copies(assignments),  # of n copies each row gives n
        }
    )
    inside = pool_mask(assignments)
    parts = [rows]
    for target_lang in target_langs:
        repeats = _repeats(assignments, target_lang, (trained or {}).get(target_lang))
        near = _near(assignments, near_usage, target_lang) & ~repeats
        for role, mask in (("ineligible", repeats), ("near_usage", near)):
            barred = rows.filter(pa.array(inside & mask))
            barred = barred.set_column(0, "target_lang", pa.array([target_lang] * barred.num_rows, pa.string()))
            parts.append(barred.set_column(1, "role", pa.array([role] * barred.num_rows, pa.string())))
    return merge(parts)


def _copies(assignments: pa.Table) -> NDArray[np.int64]:
    """Count how often each row's text is there for its role and target language. Copies are always in one shard."""
    keys = (
        assignments[name].combine_chunks().dictionary_encode("encode") for name in ("role", "target_lang", "content_id")
    )
    code = np.zeros(assignments.num_rows, dtype=np.int64)
    for key in keys:
        code = code * max(1, len(key.dictionary)) + key.indices.to_numpy()
    _, position, counts = np.unique(code, return_inverse=True, return_counts=True)
    return counts[position]


def shard_spread(
    assignments: pa.Table, weights: NDArray[np.float64], seed: int, holdout_fraction: float
) -> tuple[NDArray[np.int64], dict[str, NDArray[np.int64]]]:
    """Share each usage document of a shard among near and common clusters.

    Held-out rows and outliers stay out. The units are ``2^-20`` documents, in whole numbers, so that sums are the same
    in any order.

    Parameters
    ----------
    assignments : Table
        Columns content_id, role, target language, cluster, outlier and similarities of schema ASSIGNMENT.
    weights : ndarray of shape (n_clusters,), float64
        From :func:`compass_ray.usage_shares.cluster_weights`.

    Returns
    -------
    soft_counts : ndarray of shape (n_clusters,), int64
        Of all target languages.
    own : mapping of target language to ndarray of shape (n_clusters,), int64
        What its documents of a cluster add there, each as often as there are copies of it.
    """
    known = np.asarray(pc.equal(assignments["role"], "usage")) & ~np.asarray(assignments["outlier"])
    rows = assignments.filter(pa.array(known & ~heldout_mask(assignments, seed, holdout_fraction)))
    similarity = rows["similarities"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    shares = soft_counts(similarity.reshape(rows.num_rows, len(weights)), weights)
    clusters = rows["cluster"].to_numpy()
    here = _copies(rows) * shares[np.arange(rows.num_rows), clusters]
    target_langs = np.array(rows["target_lang"].to_pylist(), dtype=np.str_)
    own = {
        str(target_lang): _units(np.bincount(clusters, here * (target_langs == target_lang), minlength=len(weights)))
        for target_lang in np.unique(target_langs)
    }
    return _units(shares.sum(axis=0)), own


def _units(documents: NDArray[Any]) -> NDArray[np.int64]:
    return np.rint(documents / SOFT_COUNT_UNIT).astype(np.int64)


def merge(histograms: Iterable[pa.Table]) -> pa.Table:
    """Add up histograms. The sum is the same whatever their order and grouping."""
    rows = pa.concat_tables([table.select(records.HISTOGRAM.names).cast(records.HISTOGRAM) for table in histograms])
    total = rows.group_by(_KEYS).aggregate([(name, "sum") for name in _COUNTS])
    total = total.rename_columns({f"{name}_sum": name for name in _COUNTS})
    ordered = total.sort_by([(key, "ascending") for key in _KEYS])
    return ordered.select(records.HISTOGRAM.names).cast(records.HISTOGRAM).combine_chunks()
