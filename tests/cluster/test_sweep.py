"""The choice of the number of clusters: scores by hand and by oracle, and the rule."""

from __future__ import annotations

import numpy as np
import pytest

from compass_ray.cluster.fit import ShardRows
from compass_ray.cluster.kernels import nearest
from compass_ray.cluster.sampling import Sample, join
from compass_ray.cluster.scores import simplified_silhouette, usage_gains
from compass_ray.cluster.sweep import SweepRow, choose, starts, sweep_row, usable
from compass_ray.errors import TooFewSamples
from compass_ray.usage_shares import soft_counts
from compass_ray.vectors import unit_rows

TOPICS = 6


def sample(rows: int = 600, seed: int = 0, *, usage: bool = True) -> Sample:
    """Six tight topics; usage asks about the first alone, the pool holds all alike."""
    rng = np.random.default_rng(seed)
    topics = rng.permutation(np.arange(rows) % TOPICS)
    x = unit_rows(np.eye(TOPICS, 16)[topics] + rng.normal(size=(rows, 16)) * 0.05)
    asked = (topics == 0) & (rng.random(rows) < 0.5) & usage
    ids = rng.integers(0, 256, (rows, 16), dtype=np.uint8)
    made = Sample(
        ShardRows(ids, x, np.full(rows, 1 / rows)),
        np.full(rows, 0.5),
        np.where(asked, "usage", "pool"),
        np.where(asked, "sw", ""),
        ids,
    )
    return join([made])


def row(n_clusters: int, gain: float | None, error: float = 0.1, silhouette: float = 0.1) -> SweepRow:
    return SweepRow(n_clusters, 1.0, silhouette, 0.5, gain, None if gain is None else error)


def test_the_silhouette_is_that_of_distances_to_the_two_nearest_centroids() -> None:
    rng = np.random.default_rng(1)
    x, centroids, weights = unit_rows(rng.normal(size=(300, 8))), unit_rows(rng.normal(size=(5, 8))), rng.random(300)
    distance = np.sort(np.linalg.norm(x[:, None].astype(float) - centroids[None], axis=2), axis=1)
    expected = np.average(1 - distance[:, 0] / distance[:, 1], weights=weights)
    assert simplified_silhouette(x, weights, centroids) == pytest.approx(expected, abs=1e-4)


def nothing(n_clusters: int) -> np.ndarray:
    """No current data of the one target language."""
    return np.zeros((1, n_clusters), dtype=np.int64)


def once(documents: int) -> np.ndarray:
    """No document is there twice."""
    return np.ones(documents, dtype=np.int64)


def one_hot(clusters: np.ndarray, n_clusters: int) -> np.ndarray:
    """Documents that lie at a centroid, far from all others."""
    return np.eye(n_clusters)[clusters]


def test_usage_that_gathers_where_the_pool_is_thin_gains_about_log2_of_the_ratio() -> None:
    clusters, pool = np.zeros(2000, dtype=np.int32), np.array([100, 900])
    target_langs, folds = np.zeros(2000, dtype=np.int32), np.arange(2000, dtype=np.int32) % 5
    gains = usage_gains(clusters, one_hot(clusters, 2), target_langs, once(2000), folds, pool, nothing(2))
    assert gains.mean() == pytest.approx(np.log2(10), abs=0.05)


def test_usage_like_the_pool_gains_nothing_and_scattered_usage_loses() -> None:
    rng = np.random.default_rng(2)
    pool = np.full(50, 100)
    clusters = rng.integers(0, 50, 2000).astype(np.int32)
    shares = soft_counts(0.2 * one_hot(clusters, 50) + rng.normal(size=(2000, 50)) * 0.1, np.full(50, 1 / 50))
    target_langs, folds = np.zeros(2000, dtype=np.int32), np.arange(2000, dtype=np.int32) % 5
    gains = usage_gains(clusters, shares, target_langs, once(2000), folds, pool, nothing(50))
    assert gains.mean() == pytest.approx(0, abs=0.05)
    alone = np.arange(10, dtype=np.int32)  # ten documents in ten clusters foretell none of each other
    target_langs, pool = np.zeros(10, dtype=np.int32), np.full(10, 100)
    assert usage_gains(alone, one_hot(alone, 10), target_langs, once(10), alone % 5, pool, nothing(10)).mean() < 0


def test_a_cluster_without_pool_documents_gains_nothing() -> None:
    clusters = np.array([0] * 20 + [1] * 20, dtype=np.int32)
    folds = np.arange(40, dtype=np.int32) % 5
    shares = one_hot(clusters, 3)
    gains = usage_gains(
        clusters, shares, np.zeros(40, dtype=np.int32), once(40), folds, np.array([0, 10, 990]), nothing(3)
    )
    assert not gains[:20].any()
    assert gains[20:].min() > 1


def test_the_smallest_number_within_one_standard_error_of_the_best_is_chosen_and_explained() -> None:
    rows = [row(10, 0.2), row(50, 0.41, 0.03), row(30, 0.39), row(100, 0.3)]
    assert choose(rows) == (
        30,
        "30 clusters: smallest within one standard error of the best usage gain (0.41 ± 0.03 bits at 50)",
    )


def test_without_usage_silhouette_times_stability_decides() -> None:
    number, why = choose([row(10, None), row(20, None, silhouette=0.4), row(30, None, silhouette=0.3)])
    assert number == 20
    assert why == "20 clusters: best silhouette × stability (0.40 × 0.50); there is no usage to go by"


@pytest.mark.parametrize("usage", [True, False], ids=["by usage", "by shape"])
def test_the_planted_number_of_topics_is_found(usage: bool) -> None:
    whole = sample(usage=usage)
    centers = [starts(whole, 12, seed) for seed in range(4)]
    rows = [sweep_row(whole, centers, number, 0) for number in (2, 3, TOPICS, 12)]
    assert choose(rows)[0] == TOPICS
    assert [row.inertia for row in rows] == sorted((row.inertia for row in rows), reverse=True)


def test_the_first_centers_of_a_larger_number_are_those_of_a_smaller() -> None:
    whole = sample()
    assert starts(whole, 12, 3)[:5].tobytes() == starts(whole, 5, 3).tobytes()


def test_a_sample_joined_from_any_parts_is_the_same() -> None:
    whole = sample()

    def part(index: np.ndarray) -> Sample:
        rows = whole.rows
        return Sample(
            ShardRows(rows.ids[index], rows.x[index], rows.weights[index]),
            whole.inclusion[index],
            whole.roles[index],
            whole.target_langs[index],
            whole.contents[index],
        )

    order = np.random.default_rng(0).permutation(600)
    again = join([part(order[:100]), part(order[100:100]), part(order[100:])])
    assert again.rows.x.tobytes() == whole.rows.x.tobytes()
    assert again.roles.tolist() == whole.roles.tolist()
    assert (nearest(again.rows.x, whole.rows.x[:3])[0] == nearest(whole.rows.x, whole.rows.x[:3])[0]).all()


def test_numbers_that_the_data_cannot_bear_are_left_out_and_none_at_all_is_an_error_with_both_counts() -> None:
    assert usable([10, 20, 30], found=25, rows=1000) == [10, 20]
    assert usable([10, 20, 30], found=1000, rows=100) == [10, 20]
    with pytest.raises(TooFewSamples) as caught:
        usable([10, 20], found=9, rows=80)
    assert str(caught.value) == (
        "cluster.n_clusters: auto tries 10 clusters or more and wants 5 rows for each, but only 80 rows (9 distinct) "
        "were found; set n_clusters, lower cluster.sweep.clusters or add data"
    )
