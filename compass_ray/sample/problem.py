"""The selection problem of one target language, as arrays; built from a merged histogram."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from compass_ray.usage_shares import Observed, effective_number

_USAGE = ("usage", "former")


@dataclass(frozen=True)
class Problem:
    """Counts that decide a target language's quotas: of documents, or of tokens in :meth:`in_tokens`.

    K is the number of clusters, L the number of pool languages; index K of the (K + 1,) arrays is
    the outlier bin.
    """

    target_lang: str
    languages: tuple[str, ...]
    usage: NDArray[np.int64]  # (K + 1,), without the held-out part
    heldout: NDArray[np.int64]  # (K + 1,)
    current: NDArray[np.int64]  # (K + 1,)
    capacity: NDArray[np.int64]  # (K, L), eligible pool documents
    other_usage: NDArray[np.int64]  # (K,), usage documents of all other target languages, without the held-out part
    soft_counts: NDArray[np.float64]  # (K,), those of all target languages, each shared among clusters near and common
    current_tokens: NDArray[np.int64]  # (K + 1,)
    capacity_tokens: NDArray[np.int64]  # (K, L)
    own_soft_counts: NDArray[np.float64]  # (K,), what this target language's documents add to it: see shares.Observed
    usage_tokens: NDArray[np.int64]  # (K,), tokens of all target languages' usage documents, without the held-out part
    distance: NDArray[np.float64]  # (K, K), between centroids
    # Over distinct documents, of how often each is there; 0 where nobody counted.
    usage_squares: NDArray[np.int64] | int = 0  # (K + 1,)
    heldout_squares: int = 0
    current_squares: int = 0

    @property
    def usage_effective(self) -> float:
        """How many independent documents the usage documents are worth, outliers included."""
        return effective_number(self.usage, int(np.sum(self.usage_squares)))

    @property
    def observed(self) -> Observed:
        """The usage documents, without outliers, as the estimate of usage takes them."""
        squares = np.broadcast_to(self.usage_squares, self.usage.shape)[:-1]
        return Observed(self.usage[:-1], squares, self.soft_counts, self.own_soft_counts)

    @property
    def current_worth(self) -> NDArray[np.float64]:
        """Current documents by cluster without outliers, together as many as they are worth, shape (K,)."""
        worth = effective_number(self.current, self.current_squares) / max(1, int(self.current.sum()))
        return self.current[:-1].astype(np.float64) * worth

    @property
    def heldout_effective(self) -> float:
        """How many independent documents the held-out ones are worth."""
        return effective_number(self.heldout, self.heldout_squares)

    @property
    def cluster_capacity(self) -> NDArray[np.int64]:
        """Eligible pool documents by cluster, shape (K,)."""
        by_cluster: NDArray[np.int64] = self.capacity.sum(axis=1)
        return by_cluster

    @property
    def own(self) -> NDArray[np.bool_]:
        """Which of the pool's languages is the target language's, shape (L,); none if the pool lacks it."""
        return np.array([lang == self.target_lang for lang in self.languages], dtype=bool)

    def in_tokens(self) -> Problem:
        """Copy the problem, with current data and capacities in tokens. Usage and held-out documents stay documents."""
        return replace(self, current=self.current_tokens, capacity=self.capacity_tokens)

    def with_capacity(self, capacity: NDArray[np.int64]) -> Problem:
        """Copy the problem, with less to draw from."""
        return replace(self, capacity=capacity)


def build_problems(
    histogram: pa.Table,
    soft_counts: NDArray[np.float64],
    own_soft_counts: Mapping[str, NDArray[np.float64]],
    distance: NDArray[np.float64],
) -> list[Problem]:
    """Make one problem for each target language with usage documents, in alphabetical order.

    Parameters
    ----------
    histogram : Table of schema HISTOGRAM
        Merged over all shards.
    soft_counts : ndarray of shape (n_clusters,), float64
        Usage documents of all target languages, shared among clusters; see
        :func:`compass_ray.usage_shares.soft_counts`.
    own_soft_counts : mapping of target language to ndarray of shape (n_clusters,), float64
        See :class:`compass_ray.usage_shares.Observed`; target languages without usage documents may be missing.
    distance : ndarray of shape (n_clusters, n_clusters), float64
        Between centroids; see :func:`compass_ray.sample.transport.centroid_distances`.
    """
    n_clusters = len(distance)
    usage = histogram.filter(pc.is_in(histogram["role"], pa.array(_USAGE)))
    heldout = _where(histogram, role="heldout")
    target_langs = sorted({*usage["target_lang"].to_pylist(), *heldout["target_lang"].to_pylist()})
    pool = _where(histogram, role="pool")
    languages = tuple(sorted(set(pool["lang"].to_pylist())))
    by_target_lang = {
        target_lang: _counts(_where(usage, target_lang=target_lang), n_clusters) for target_lang in target_langs
    }
    all_usage = _counts(usage, n_clusters)

    def eligible(target_lang: str, measure: str) -> NDArray[np.int64]:
        left = _by_language(pool, n_clusters, languages, measure)
        for role in ("ineligible", "near_usage"):
            left -= _by_language(_where(histogram, role=role, target_lang=target_lang), n_clusters, languages, measure)
        return left

    return [
        Problem(
            target_lang=target_lang,
            languages=languages,
            usage=by_target_lang[target_lang],
            heldout=_counts(_where(heldout, target_lang=target_lang), n_clusters),
            current=_counts(_where(histogram, role="current", target_lang=target_lang), n_clusters),
            capacity=eligible(target_lang, "documents"),
            other_usage=(all_usage - by_target_lang[target_lang])[:n_clusters],
            soft_counts=soft_counts,
            own_soft_counts=own_soft_counts.get(target_lang, np.zeros(n_clusters)),
            current_tokens=_counts(_where(histogram, role="current", target_lang=target_lang), n_clusters, "tokens"),
            capacity_tokens=eligible(target_lang, "tokens"),
            usage_tokens=_counts(usage, n_clusters, "tokens")[:n_clusters],
            distance=distance,
            usage_squares=_counts(_where(usage, target_lang=target_lang), n_clusters, "squares"),
            heldout_squares=_squares(_where(heldout, target_lang=target_lang)),
            current_squares=_squares(_where(histogram, role="current", target_lang=target_lang)),
        )
        for target_lang in target_langs
    ]


def role_counts(histogram: pa.Table, role: str, n_clusters: int) -> NDArray[np.int64]:
    """Count the documents of a role by cluster, shape (n_clusters,).
    They are of all target languages and without outliers.
    """
    return _counts(_where(histogram, role=role), n_clusters)[:n_clusters]


def near_usage_count(histogram: pa.Table, target_lang: str) -> int:
    """Count the pool documents that a target language may not have only because they nearly repeat its usage."""
    return int(pc.sum(_where(histogram, role="near_usage", target_lang=target_lang)["documents"]).as_py() or 0)


def _where(table: pa.Table, **values: str) -> pa.Table:
    for name, value in values.items():
        table = table.filter(pc.equal(table[name], value))
    return table


def _squares(table: pa.Table) -> int:
    return int(pc.sum(table["squares"]).as_py() or 0)


def _counts(table: pa.Table, n_clusters: int, measure: str = "documents") -> NDArray[np.int64]:
    counts = np.zeros(n_clusters + 1, dtype=np.int64)
    np.add.at(counts, table["cluster"].to_numpy(), table[measure].to_numpy())
    return counts


def _by_language(table: pa.Table, n_clusters: int, languages: Sequence[str], measure: str) -> NDArray[np.int64]:
    counts = np.zeros((n_clusters + 1, len(languages)), dtype=np.int64)
    position = {lang: index for index, lang in enumerate(languages)}
    columns = [position[lang] for lang in table["lang"].to_pylist()]
    np.add.at(counts, (table["cluster"].to_numpy(), columns), table[measure].to_numpy())
    return counts[:n_clusters]  # outliers are never drawn
