"""Thresholds of outliers: each language is held against its own rows, if there are enough."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from compass_ray.cluster.config import ClusterConfig
from compass_ray.cluster.outliers import Counts, count_similarities, thresholds

CONFIG = ClusterConfig(outlier_min_rows=200)
ONE_BIN = 2 / 8192 + 1e-6


def shard(role: str, lang: str, low: float, rows: int, planted: int = 0) -> tuple[pa.Table, np.ndarray]:
    """Rows with similarities from ``low`` to ``low + 0.1``, after planted ones far from everything."""
    similarity = np.concatenate([np.full(planted, -0.5), np.linspace(low, low + 0.1, rows)]).astype(np.float32)
    return pa.table({"role": [role] * len(similarity), "lang": [lang] * len(similarity)}), similarity


def counted(*shards: tuple[pa.Table, np.ndarray]) -> list[Counts]:
    return [count_similarities(*one) for one in shards]


USAGE = shard("usage", "sw", 0.8, 1000)


def test_a_language_without_usage_is_held_against_its_own_pool_and_planted_outliers_stand_out() -> None:
    pool = shard("pool", "am", 0.3, 1000, planted=5)
    own, everyone = thresholds(counted(USAGE, pool), CONFIG)
    assert (pool[1] < everyone).mean() == 1, "the global threshold would call all of it outlying"
    outlying = pool[1] < own["am"]
    assert outlying[:5].all()
    assert outlying.mean() == pytest.approx(0.01, abs=0.003)


def test_usage_and_current_come_before_the_pool_where_they_are_enough() -> None:
    own, _ = thresholds(counted(USAGE, shard("pool", "sw", 0.3, 1000)), CONFIG)
    assert own["sw"] == pytest.approx(np.quantile(USAGE[1], 0.01), abs=ONE_BIN)
    few = shard("usage", "sw", 0.8, 199)
    own, everyone = thresholds(counted(few, shard("pool", "sw", 0.3, 1000)), CONFIG)
    assert own["sw"] < 0.31 < everyone


def test_usage_and_current_count_together() -> None:
    own, _ = thresholds(counted(shard("usage", "sw", 0.8, 100), shard("current", "sw", 0.6, 100)), CONFIG)
    assert own["sw"] < 0.61


def test_a_language_with_too_few_rows_of_either_kind_has_the_global_threshold() -> None:
    own, everyone = thresholds(counted(USAGE, shard("pool", "am", 0.3, 199)), CONFIG)
    assert sorted(own) == ["sw"]
    assert everyone == own["sw"]


def test_without_usage_and_current_nothing_is_outlying_but_the_tail_of_each_pool() -> None:
    own, everyone = thresholds(counted(shard("pool", "am", 0.3, 1000)), CONFIG)
    assert everyone == -1.0
    assert own["am"] == pytest.approx(0.301, abs=ONE_BIN)
    assert thresholds([], CONFIG) == ({}, -1.0)


def test_shards_in_any_order_give_the_same_thresholds() -> None:
    parts = counted(USAGE, shard("pool", "sw", 0.3, 300), shard("pool", "am", 0.2, 150), shard("pool", "am", 0.4, 150))
    assert thresholds(parts, CONFIG) == thresholds(parts[::-1], CONFIG)
