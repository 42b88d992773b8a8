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


ROLE_MASS = {"pool": 0.5, "usage": 0.25, "current": 0.25}
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
    groups = {("pool", "en"): 900, ("pool", "sw"): 100, ("usage", "sw"): 50, ("current", "sw"): 10}
    weights = kernels.row_weights(groups, ROLE_MASS)
    mass = {group: weights[group] * count for group, count in groups.items()}
    assert mass["pool", "en"] == pytest.approx(0.5 * 30 / 40)
    assert mass["pool", "sw"] == pytest.approx(0.5 * 10 / 40)
    assert mass["usage", "sw"] == mass["current", "sw"] == pytest.approx(0.25)


def test_absent_roles_give_their_mass_to_the_others_in_proportion() -> None:
    weights = kernels.row_weights({("pool", "en"): 4, ("usage", "sw"): 2, ("current", "sw"): 0}, ROLE_MASS)
    assert weights == pytest.approx({("pool", "en"): 2 / 3 / 4, ("usage", "sw"): 1 / 3 / 2})


# --- left out -----------------------------------------------------------------------------------


def fitted(seed: int, weights: np.ndarray, n_clusters: int = 5) -> tuple[np.ndarray, ...]:
    """Unit rows, mostly at rest in their clusters; their labels, sums by cluster and the centroids along these."""
    x = unit(len(weights), 12, seed)
    centroids = unit(n_clusters, 12, seed + 1)
    for _ in range(30):
        labels = kernels.nearest(x, centroids)[0]
        sums = kernels.partial_sums(x, weights, labels, n_clusters)[0]
        centroids = kernels.new_centroids(sums, centroids)
    return x, labels, sums, centroids


@given(seed=st.integers(0, 10**6), heavy=st.sampled_from([1.0, 30.0, 1e4]))
def test_a_row_that_is_left_out_is_compared_with_the_centroid_of_the_others(seed: int, heavy: float) -> None:
    weights = np.random.default_rng(seed).uniform(0.5, 2, 60)
    weights[:6] *= heavy
    x, labels, sums, centroids = fitted(seed, weights)
    assume((kernels.nearest(x, centroids)[0] == labels).all())
    found = kernels.nearest_leave_one_out(x, weights, centroids, np.linalg.norm(sums, axis=1))
    expected = (x @ centroids.T).astype(np.float64)
    for row, own in enumerate(labels):
        others = (labels == own) & (np.arange(len(x)) != row)
        lowest = expected[row].min()
        rest = weights[others] @ x[others].astype(np.float64)
        expected[row, own] = max(rest @ x[row] / np.linalg.norm(rest), lowest) if others.any() else lowest
    np.testing.assert_allclose(found[2], expected, atol=2e-3)  # of 16 bits
    np.testing.assert_allclose(found[1], expected.max(axis=1), atol=2e-3)
    assert (expected[np.arange(len(x)), found[0]] >= expected.max(axis=1) - 2e-3).all()


def test_a_row_is_left_out_with_its_copies() -> None:
    rng = np.random.default_rng(4)
    x, weights = unit(20, 12, 4), rng.uniform(0.5, 2, 20)
    codes = np.r_[np.arange(20), np.zeros(5, dtype=np.int64), 3]
    copied, weights = x[codes], np.append(weights, rng.uniform(0.5, 2, 6))
    together = np.bincount(codes, weights)
    total = together @ x.astype(np.float64)
    centroids, lengths = unit_rows(total[None]), np.array([np.linalg.norm(total)])
    of_copies = kernels.nearest_leave_one_out(copied, kernels.with_copies(weights, codes), centroids, lengths)[1]
    alone = kernels.nearest_leave_one_out(x, together, centroids, lengths)[1]
    assert of_copies == pytest.approx(alone[codes], abs=1e-5)


@pytest.mark.parametrize(("neighbours", "lighter"), [(1, 1e-3), (5, 1e-4), (100, 1e-6)])
def test_neighbours_that_are_much_lighter_than_a_row_are_still_found(neighbours: int, lighter: float) -> None:
    x, weights, lengths, centroids = beside_a_heavy_row(neighbours, lighter)
    _, similarity, _ = kernels.nearest_leave_one_out(x[:1], weights[:1], centroids, lengths)
    rest = x[1:].astype(np.float64).sum(axis=0)
    assert similarity[0] == pytest.approx(rest @ x[0] / np.linalg.norm(rest), abs=0.01)


def test_what_rounding_leaves_of_a_row_is_no_neighbour() -> None:
    x, weights, lengths, centroids = beside_a_heavy_row(1, 1e-6)
    labels, similarity, _ = kernels.nearest_leave_one_out(x[:1], weights[:1], centroids, lengths)
    assert similarity[0] == pytest.approx((x[:1] @ centroids.T).min())
    assert labels[0] == 0  # no other cluster is nearer


def beside_a_heavy_row(neighbours: int, lighter: float) -> tuple[np.ndarray, ...]:
    """A row with neighbours of a small part of its weight; its cluster's centroid, and one on the other side."""
    rng = np.random.default_rng(neighbours)
    x = unit_rows(np.array([1.0, *[0.0] * 7]) + 0.2 * rng.normal(size=(neighbours + 1, 8)))
    weights = np.array([0.02, *[0.02 * lighter] * neighbours])
    total = weights @ x.astype(np.float64)
    return x, weights, np.full(2, np.linalg.norm(total)), unit_rows(np.stack([total, -total]))


def test_a_row_that_was_not_fitted_is_compared_with_the_centroids_as_they_are() -> None:
    weights = np.random.default_rng(1).uniform(0.5, 2, 60)
    x, _, sums, centroids = fitted(1, weights)
    weights[::2] = 0
    lengths = np.linalg.norm(sums, axis=1)
    labels, similarity, cosines = kernels.nearest_leave_one_out(x, weights, centroids, lengths)
    assert labels[::2].tolist() == kernels.nearest(x, centroids)[0][::2].tolist()
    np.testing.assert_allclose(similarity[::2], kernels.nearest(x, centroids)[1][::2], atol=1e-6)
    assert (similarity[1::2] < kernels.nearest(x, centroids)[1][1::2]).all()
    assert (cosines.dtype, cosines.shape) == (np.float16, (60, 5))
    as_they_are = kernels.nearest_leave_one_out(x, np.ones(60), centroids, np.zeros(5))  # no centroid is a sum
    assert as_they_are[0].tolist() == kernels.nearest(x, centroids)[0].tolist()


def test_a_row_that_a_cluster_was_made_of_goes_elsewhere() -> None:
    centroids = np.eye(3, dtype=np.float32)
    x = unit_rows(np.array([[1, 0, 0], [0.2, 1, 0], [0.1, 0, 1]], dtype=np.float32))
    labels, similarity, cosines = kernels.nearest_leave_one_out(
        x, np.array([2.0, 1.0, 1.0]), centroids, np.array([2.0, 50.0, 50.0])
    )
    assert (cosines[0, 0], similarity[0]) == (0, 0)
    assert labels[1:].tolist() == [1, 2]


def test_rows_are_left_out_in_tiles_as_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    weights = np.random.default_rng(2).uniform(0.5, 2, 60)
    x, _, sums, centroids = fitted(2, weights)
    given_ = (x, weights, centroids, np.linalg.norm(sums, axis=1))
    whole = kernels.nearest_leave_one_out(*given_)
    monkeypatch.setattr(kernels, "TILE_ROWS", 7)
    for one, other in zip(whole, kernels.nearest_leave_one_out(*given_), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-3)
    assert [len(part) for part in kernels.nearest_leave_one_out(x[:0], weights[:0], *given_[2:])] == [0, 0, 0]


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
