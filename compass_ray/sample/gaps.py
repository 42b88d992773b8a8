"""Shares of usage, deficits and the gap table of one target language."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from compass_ray import records
from compass_ray.sample.problem import Problem
from compass_ray.usage_shares import estimate_usage, share_interval

Vector = NDArray[np.float64]

_BALANCE = ("asked", "moved_out", "moved_in", "unmet")


@dataclass(frozen=True)
class Shares:
    """What a target language's usage asks of each cluster; all arrays of shape (n_clusters,)."""

    usage: Vector  # shrunk, sums to one; zero where unreachable, unless what a cluster lacks may come from others
    low: Vector
    high: Vector
    current: Vector | None  # None without current data
    alpha: float
    unreachable: float  # share of usage of clusters with neither current nor pool documents

    def in_tokens(self, problem: Problem) -> Shares:
        """Turn shares of documents into shares of tokens.

        A document of a cluster counts by the mean length of usage there. Shrinkage and intervals come from documents,
        which are what was sampled. A cluster without usage has the mean length of all usage.
        """
        documents = (problem.usage + np.append(problem.other_usage, 0))[:-1]
        overall = problem.usage_tokens.sum() / max(1, documents.sum())
        length = np.where(documents > 0, problem.usage_tokens / np.maximum(1, documents), overall)
        scale = length / (self.usage @ length)
        current = problem.current_tokens[:-1]
        return replace(
            self,
            usage=self.usage * scale,
            low=self.low * scale,
            high=np.minimum(1.0, self.high * scale),
            current=current / current.sum() if current.sum() else None,
        )

    @property
    def deficit(self) -> Vector:
        """``max(0, usage - current)``."""
        return self.usage if self.current is None else np.maximum(0.0, self.usage - self.current)


def shares_of(problem: Problem, *, transports: bool = False) -> Shares:
    """Shrink the observed shares, and set aside what no document could ever serve.

    With ``transports`` nothing is set aside: what a cluster lacks is taken from near clusters, or stated as unmet.
    """
    counts = problem.usage[:-1]
    capacity = problem.cluster_capacity
    usage, alpha = estimate_usage(problem.observed, problem.current_worth)
    low, high = share_interval(counts * (problem.usage_effective / max(1, problem.usage.sum())), usage)
    current = problem.current[:-1]
    reachable = (current > 0) | (capacity > 0)
    unreachable = float(usage[~reachable].sum())
    scale = np.ones(len(usage)) if transports else np.where(reachable, 1.0 / max(1e-12, 1.0 - unreachable), 0.0)
    current_shares = current / current.sum() if current.sum() else None
    return Shares(usage * scale, low * scale, np.minimum(1.0, high * scale), current_shares, alpha, unreachable)


def gap_table(
    problem: Problem,
    shares: Shares,
    quota: NDArray[np.int64],
    drawn: NDArray[np.int64],
    balance: Mapping[str, NDArray[np.int64]],
) -> pa.Table:
    """List the gaps of one target language, largest deficit first. Labels are not yet filled in.

    Parameters
    ----------
    problem : Problem
        In the unit of the budget, as all of the arguments.
    quota, drawn : ndarray of shape (n_clusters,), int64
        What each cluster was to give and what came out. The same for a strategy without quotas by cluster.
    balance : mapping of column to ndarray of shape (n_clusters,)
        What clusters ask for and how that is met; empty without cluster quotas.
    """
    n_clusters = len(shares.usage)
    current = [None] * n_clusters if shares.current is None else shares.current.tolist()
    order = np.lexsort((np.arange(n_clusters), -shares.usage, -shares.deficit))
    table = pa.table(
        {
            "target_lang": [problem.target_lang] * n_clusters,
            "cluster": np.arange(n_clusters, dtype=np.int32),
            "label": pa.nulls(n_clusters, pa.string()),
            "exemplar": pa.nulls(n_clusters, pa.string()),
            "p_usage": shares.usage,
            "p_usage_low": shares.low,
            "p_usage_high": shares.high,
            "p_current": pa.array(current, pa.float64()),
            "deficit": shares.deficit,
            "capacity": problem.cluster_capacity,
            **{name: pa.array(balance.get(name, [None] * n_clusters), pa.int64()) for name in _BALANCE},
            "quota": quota,
            "drawn": drawn,
        }
    )
    return table.take(pa.array(order)).cast(records.GAP)
