"""Dense regions: planted ones are found, and the validity index is the published one in any number of dimensions."""

from __future__ import annotations

import numpy as np
import pytest

from compass_ray.cluster.config import HdbscanConfig
from compass_ray.cluster.density import dbcv, dense_clusters, principal_axes
from compass_ray.errors import TooFewSamples
from compass_ray.vectors import unit_rows

TOPICS = 4


def regions(rows: int = 400, noise: int = 30, features: int = 64, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows in four dense regions, and rows that lie anywhere, labelled -1."""
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(rows) % TOPICS, np.full(noise, -1)])
    around = np.eye(TOPICS, features)[labels] + rng.normal(size=(rows + noise, features)) * 0.02
    x = np.where((labels < 0)[:, None], rng.normal(size=(rows + noise, features)), around)
    return unit_rows(x), labels


def test_planted_regions_are_found_with_one_of_their_rows_as_centroid_and_the_rest_is_noise() -> None:
    x, labels = regions()
    found = dense_clusters(x, np.full(len(x), 1 / len(x)), HdbscanConfig(min_cluster_size=40, components=8))
    assert len(found.medoids) == TOPICS
    rows = [int(np.flatnonzero((x == medoid).all(axis=1))[0]) for medoid in found.medoids]
    assert sorted(labels[rows]) == list(range(TOPICS))
    assert found.noise_fraction == pytest.approx(30 / 430, abs=0.03)
    assert found.dbcv > 0.5


def test_a_medoid_is_the_member_most_similar_to_all_by_their_weights() -> None:
    x, labels = regions(noise=0)
    weights = np.random.default_rng(1).random(len(x)) ** 4
    found = dense_clusters(x, weights, HdbscanConfig(min_cluster_size=10, components=8))
    for medoid in found.medoids:
        members = x[labels == labels[(x == medoid).all(axis=1)][0]].astype(float)
        similarity = (members @ members.T) @ weights[labels == labels[(x == medoid).all(axis=1)][0]]
        assert (members[similarity.argmax()] == medoid).all()


def test_twice_the_same_rows_give_the_same_bytes() -> None:
    x, _ = regions()
    config = HdbscanConfig(min_cluster_size=10, components=8)
    one, other = (dense_clusters(x, np.ones(len(x)), config) for _ in range(2))
    assert one.medoids.tobytes() == other.medoids.tobytes()
    assert one.dbcv == other.dbcv


def test_the_index_agrees_with_that_of_the_hdbscan_package() -> None:
    """Expected values: ``hdbscan.validity.validity_index`` of hdbscan 0.8.44."""
    rng = np.random.default_rng(0)
    for features, clusters, expected in ((2, 3, 0.3235206532905314), (5, 4, 0.7106154789538734)):
        centers = rng.normal(size=(clusters, features)) * 3
        labels = rng.integers(0, clusters, 200)
        x = centers[labels] + rng.normal(size=(200, features)) * 0.4
        labels[:10] = -1
        assert dbcv(x, labels) == pytest.approx(expected, abs=1e-9)


def test_the_index_by_hand_is_that_of_two_pairs() -> None:
    """Core distances are the pairs' distances 1 and 2, without inner points all count: (8 - 1) / 8 and (8 - 2) / 8."""
    x = np.array([[0.0, 0.0], [1.0, 0.0], [9.0, 0.0], [11.0, 0.0]])
    assert dbcv(x, np.array([0, 0, 1, 1])) == pytest.approx((7 / 8 + 6 / 8) / 2)


def test_hundreds_of_dimensions_and_equal_rows_leave_the_index_finite() -> None:
    x, labels = regions(features=384)
    rows = np.vstack([x, x[:40], x[:40]]).astype(float) * 1e-3
    labels = np.concatenate([labels, labels[:40], labels[:40]])
    assert 0.5 < dbcv(rows, labels) < 1
    assert dbcv(rows, np.random.default_rng(0).permutation(labels)) < 0
    alike = np.repeat([[0.0, 1.0], [1.0, 0.0]], 5, axis=0)
    assert dbcv(alike, np.repeat([0, 1], 5)) == 1.0


def test_principal_axes_keep_distances_where_nothing_is_dropped() -> None:
    x, _ = regions(features=6)
    reduced = principal_axes(x, 15)
    assert reduced.shape == x.shape
    before, after = (np.linalg.norm(y[:50, None] - y[None, :50], axis=2) for y in (x.astype(float), reduced))
    assert after == pytest.approx(before, abs=1e-6)
    variance = reduced.var(axis=0)
    assert (np.diff(variance) <= 0).all()


def test_too_few_rows_or_no_regions_say_what_was_found_and_what_to_do() -> None:
    x, _ = regions()
    with pytest.raises(TooFewSamples) as few:
        dense_clusters(x[:20], np.ones(20), HdbscanConfig(min_cluster_size=15))
    assert str(few.value) == (
        "cluster.hdbscan: two clusters of min_cluster_size 15 need 30 rows, but 20 were sampled; lower it, raise "
        "cluster.hdbscan.rows or add data"
    )
    scattered = unit_rows(np.random.default_rng(0).normal(size=(300, 64)))
    with pytest.raises(
        TooFewSamples, match=r"\d dense regions were found in 300 rows with min_cluster_size 100; lower"
    ):
        dense_clusters(scattered, np.ones(300), HdbscanConfig(min_cluster_size=100))
