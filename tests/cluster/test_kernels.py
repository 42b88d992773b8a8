"""Array functions of spherical k-means, against brute force and hand computation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from compass_ray.cluster import kernels
from compass_ray.vectors import unit_rows


def unit(count: int, features: int = 8, seed: int = 0) -> np.ndarray:
    return unit_rows(np.random.default_rng(seed).normal(size=(count, features)))


def test_nearest_is_the_centroid_of_largest_cosine() -> None:
    x, centroids = unit(500), unit(7, seed=1)
    labels, similarity = kernels.nearest(x, centroids)
    products = x.astype(np.float64) @ centroids.astype(np.float64).T
    assert labels.tolist() == products.argmax(axis=1).tolist()
    np.testing.assert_allclose(similarity, products.max(axis=1), atol=1e-6)
    assert (labels.dtype, similarity.dtype) == (np.int32, np.float32)


def test_ties_go_to_the_lower_id() -> None:
    centroids = np.array([[0, 1], [1, 0], [1, 0], [0, 1]], dtype=np.float32)
    labels, _ = kernels.nearest(np.array([[1, 0], [0, 1]], dtype=np.float32), centroids)
    assert labels.tolist() == [1, 0]


def test_similarity_never_exceeds_one() -> None:
    x = unit(2000, 384)
    _, similarity = kernels.nearest(x, x[:50])
    assert similarity.max() <= 1.0
    assert similarity[:50].min() > 1 - 1e-6


def test_every_tile_is_assigned_and_no_tile_depends_on_the_rows_after_it() -> None:
    x, centroids = unit(2 * kernels.TILE_ROWS + 17, 16), unit(5, 16, seed=1)
    labels, similarity = kernels.nearest(x, centroids)
    assert labels.tolist() == (x @ centroids.T).argmax(axis=1).tolist()
    alone_labels, alone_similarity = kernels.nearest(x[: kernels.TILE_ROWS], centroids)
    assert alone_labels.tobytes() == labels[: kernels.TILE_ROWS].tobytes()
    assert alone_similarity.tobytes() == similarity[: kernels.TILE_ROWS].tobytes()


def test_no_rows_have_no_labels() -> None:
    labels, similarity = kernels.nearest(np.empty((0, 8), dtype=np.float32), unit(3))
    assert labels.shape == similarity.shape == (0,)
    sums, mass = kernels.partial_sums(np.empty((0, 8), dtype=np.float32), np.empty(0), labels, 3)
    assert not sums.any()
    assert mass.tolist() == [0, 0, 0]


@pytest.mark.parametrize("count", [1, 300, kernels.TILE_ROWS + 5])
def test_partial_sums_are_the_weighted_sums_of_each_cluster(count: int) -> None:
    rng = np.random.default_rng(count)
    x, weights = unit(count), rng.random(count)
    labels = rng.integers(0, 4, count).astype(np.int32)
    labels[labels == 2] = 3  # an empty cluster
    sums, mass = kernels.partial_sums(x, weights, labels, 4)
    for cluster in range(4):
        inside = labels == cluster
        np.testing.assert_allclose(sums[cluster], (x[inside] * weights[inside, None]).sum(axis=0), atol=1e-9 * count)
        assert mass[cluster] == pytest.approx(weights[inside].sum())
    assert mass[2] == 0


def test_inertia_is_the_weighted_squared_distance() -> None:
    x, centroids, weights = unit(200), unit(5, seed=1), np.random.default_rng(2).random(200)
    labels, similarity = kernels.nearest(x, centroids)
    distance_sq = ((x.astype(np.float64) - centroids[labels]) ** 2).sum(axis=1)
    assert kernels.weighted_inertia(similarity, weights) == pytest.approx((weights * distance_sq).sum(), rel=1e-5)


def test_new_centroids_are_unit_and_a_sum_of_no_length_keeps_its_centroid() -> None:
    previous = unit(3, 2)
    moved = kernels.new_centroids(np.array([[3.0, 4.0], [0.0, 0.0], [0.0, -1e-9]]), previous)
    np.testing.assert_allclose(moved[0], [0.6, 0.8], rtol=1e-6)
    assert moved[1].tobytes() == previous[1].tobytes()
    assert moved[2].tolist() == [0, -1]
    assert moved.dtype == np.float32


ROLE_MASS = {"pool": 0.5, "target": 0.25, "current": 0.25}
GROUPS = st.dictionaries(
    st.tuples(st.sampled_from(sorted(ROLE_MASS)), st.sampled_from(["sw", "hi", "en", "zh"])),
    st.integers(0, 10**6),
    min_size=1,
).filter(lambda groups: sum(groups.values()) > 0)


@given(groups=GROUPS)
def test_all_row_weights_sum_to_one(groups: dict[tuple[str, str], int]) -> None:
    weights = kernels.row_weights(groups, ROLE_MASS)
    assert sum(weights[group] * count for group, count in groups.items() if count) == pytest.approx(1)
    assert all(weight > 0 for weight in weights.values())


def test_roles_have_their_mass_and_languages_share_it_by_the_root_of_their_count() -> None:
    groups = {("pool", "en"): 900, ("pool", "sw"): 100, ("target", "sw"): 50, ("current", "sw"): 10}
    weights = kernels.row_weights(groups, ROLE_MASS)
    mass = {group: weights[group] * count for group, count in groups.items()}
    assert mass["pool", "en"] == pytest.approx(0.5 * 30 / 40)
    assert mass["pool", "sw"] == pytest.approx(0.5 * 10 / 40)
    assert mass["target", "sw"] == mass["current", "sw"] == pytest.approx(0.25)


def test_absent_roles_give_their_mass_to_the_others_in_proportion() -> None:
    weights = kernels.row_weights({("pool", "en"): 4, ("target", "sw"): 2, ("current", "sw"): 0}, ROLE_MASS)
    assert weights == pytest.approx({("pool", "en"): 2 / 3 / 4, ("target", "sw"): 1 / 3 / 2})


# --- left out -----------------------------------------------------------------------------------


def fitted(seed: int, rows: int = 60, n_clusters: int = 5) -> tuple[np.ndarray, ...]:
    """Unit rows and weights, random clusters of them, their sums, and centroids that are the directions of these."""
    rng = np.random.default_rng(seed)
    x = unit_rows(rng.normal(size=(rows, 12)))
    weights = rng.uniform(0.1, 3, rows)
    centroids = unit_rows(rng.normal(size=(n_clusters, 12)))
    for _ in range(20):
        labels = kernels.nearest(x, centroids)[0]
        sums = kernels.partial_sums(x, weights, labels, n_clusters)[0]
        centroids = kernels.new_centroids(sums, centroids)
    return x, weights, labels, sums, centroids


@given(seed=st.integers(0, 10**6))
def test_a_row_that_is_left_out_is_compared_with_the_centroid_of_the_others(seed: int) -> None:
    x, weights, labels, sums, centroids = fitted(seed)
    assume((kernels.nearest(x, centroids)[0] == labels).all())  # at rest: centroids are those of these clusters
    cosines = x @ centroids.T
    found = kernels.leave_one_out(cosines, weights, np.linalg.norm(sums, axis=1))
    expected = cosines.copy()
    for row, own in enumerate(labels):
        others = (labels == own) & (np.arange(len(x)) != row)
        if others.any():
            rest = weights[others] @ x[others].astype(np.float64)
            expected[row, own] = max(rest @ x[row] / np.linalg.norm(rest), cosines[row].min())
        else:
            expected[row, own] = cosines[row].min()
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (found <= cosines).all()


def test_a_row_that_was_not_fitted_is_compared_with_the_centroids_as_they_are() -> None:
    x, weights, _, sums, centroids = fitted(1)
    weights[::2] = 0
    cosines = x @ centroids.T
    found = kernels.leave_one_out(cosines, weights, np.linalg.norm(sums, axis=1))
    assert found[::2].tobytes() == cosines[::2].tobytes()
    assert (found[1::2].max(axis=1) <= cosines[1::2].max(axis=1)).all()
    assert (found[1::2] < cosines[1::2]).any(axis=1).all()


def test_a_row_that_a_cluster_was_made_of_goes_elsewhere() -> None:
    centroids = np.eye(3, dtype=np.float32)
    x = unit_rows(np.array([[1, 0, 0], [0.2, 1, 0], [0.1, 0, 1]], dtype=np.float32))
    found = kernels.leave_one_out(x @ centroids.T, np.array([2.0, 1.0, 1.0]), np.array([2.0, 50.0, 50.0]))
    assert found[0, 0] == 0
    assert found[1:].argmax(axis=1).tolist() == [1, 2]


def test_no_rows_are_left_out_of_no_rows() -> None:
    none = np.empty((0, 4), dtype=np.float32)
    assert kernels.leave_one_out(none, np.empty(0), np.ones(4)).shape == (0, 4)


def test_similarity_histograms_of_parts_add_up() -> None:
    similarity = np.random.default_rng(0).uniform(-1, 1, 999).astype(np.float32)
    parts = sum(kernels.similarity_histogram(part) for part in np.array_split(similarity, 7))
    assert parts.tolist() == kernels.similarity_histogram(similarity).tolist()
    assert parts.sum() == 999


def test_the_ends_of_the_range_are_counted() -> None:
    histogram = kernels.similarity_histogram(np.array([-1.0, 1.0, -1.0000001], dtype=np.float32))
    assert (histogram[0], histogram[-1], histogram.sum()) == (2, 1, 3)


@given(
    values=st.lists(st.floats(-1, 1, width=32), min_size=1, max_size=60),
    fraction=st.sampled_from([0.0, 0.01, 0.1, 0.5, 0.9]),
)
def test_at_most_the_fraction_of_rows_lies_below_a_quantile_and_one_bin_higher_it_does_not(
    values: list[float], fraction: float
) -> None:
    similarity = np.array(values, dtype=np.float32)
    limit = kernels.similarity_quantile(kernels.similarity_histogram(similarity), fraction)
    assert (similarity < limit - 1e-9).sum() <= fraction * len(values)
    one_bin = 2 / kernels.SIMILARITY_BINS
    assert (similarity <= limit + one_bin + 1e-9).sum() > fraction * len(values)


def test_the_quantile_of_many_rows_is_numpys_to_one_bin() -> None:
    similarity = np.random.default_rng(0).beta(8, 2, 50_000).astype(np.float32)
    found = kernels.similarity_quantile(kernels.similarity_histogram(similarity), 0.01)
    assert found == pytest.approx(np.quantile(similarity, 0.01), abs=2 / kernels.SIMILARITY_BINS)
