"""Weighted spherical k-means in this process: the same bits for any grouping, and a good objective."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.cluster import KMeans

from compass_ray.cluster import kernels
from compass_ray.cluster.fit import Broadcast, KMeansResult, RowGroup, ShardRows, lloyd, seed_centroids
from compass_ray.errors import TooFewSamples
from compass_ray.vectors import unit_rows

N_SHARDS, N_CLUSTERS, N_FEATURES = 8, 6, 16


def shard_rows(x: np.ndarray, weights: np.ndarray, seed: int = 0) -> ShardRows:
    ids = np.random.default_rng([seed, len(x)]).integers(0, 256, (len(x), 16), dtype=np.uint8)
    return ShardRows(ids, unit_rows(x), np.asarray(weights, dtype=np.float64))


def corpus(seed: int, *, rows: int = 60, spread: float = 0.8, features: int = N_FEATURES) -> list[ShardRows]:
    """Shards of unequal size with rows around a few directions; weights are uneven and sum to one."""
    rng = np.random.default_rng(seed)
    topics = rng.normal(size=(N_CLUSTERS + 2, features)) / features**0.5
    sizes = [rows // 2 + int(rng.integers(0, rows)) for _ in range(N_SHARDS)]
    raw = [rng.choice([1.0, 3.0, 20.0], size) * rng.uniform(0.5, 1.5, size) for size in sizes]
    total = sum(weights.sum() for weights in raw)
    shards = []
    for number, (size, weights) in enumerate(zip(sizes, raw, strict=True)):
        x = topics[rng.integers(0, len(topics), size)] + rng.normal(size=(size, features)) * spread / features**0.5
        shards.append(shard_rows(x.astype(np.float32), weights / total, seed=100 * seed + number))
    return shards


def over(groups: Sequence[RowGroup]) -> Broadcast:
    def broadcast(method: str, *args: Any) -> list[Any]:
        return [getattr(group, method)(*args) for group in groups]

    return broadcast


def fit_with(broadcast: Broadcast, *, n_clusters: int = N_CLUSTERS, seed: int = 0) -> KMeansResult:
    initial = seed_centroids(broadcast, n_clusters, N_FEATURES, seed)
    return lloyd(broadcast, initial, max_iterations=50, tol=1e-6)


def grouped(members: Sequence[ShardRows], group_of: Sequence[int]) -> list[RowGroup]:
    """Groups by number; a shard goes to the group it is mapped to, in the order given."""
    return [
        RowGroup([member for member, own in zip(members, group_of, strict=True) if own == group])
        for group in range(max(group_of) + 1)
    ]


CORPUS = corpus(0)


@cache
def undisturbed() -> KMeansResult:
    return fit_with(over([RowGroup(CORPUS)]))


def assert_same_bytes(one: KMeansResult, other: KMeansResult) -> None:
    assert one.centroids.tobytes() == other.centroids.tobytes()
    assert np.array(one.inertia).tobytes() == np.array(other.inertia).tobytes()
    assert one.converged == other.converged


def test_the_corpus_takes_several_iterations_so_that_groupings_could_disagree() -> None:
    assert undisturbed().converged
    assert len(undisturbed().inertia) > 3


@pytest.mark.parametrize("count", [2, 4, 8])
def test_several_groups_give_the_same_bytes_as_one(count: int) -> None:
    fit = fit_with(over([RowGroup(CORPUS[part::count]) for part in range(count)]))
    assert_same_bytes(fit, undisturbed())


@settings(max_examples=30, deadline=None)
@given(
    order=st.permutations(range(N_SHARDS)),
    group_of=st.lists(st.integers(0, 4), min_size=N_SHARDS, max_size=N_SHARDS),
)
def test_any_grouping_and_order_of_shards_gives_the_same_bytes(order: list[int], group_of: list[int]) -> None:
    fit = fit_with(over(grouped([CORPUS[i] for i in order], group_of)))  # some groups may be empty
    assert_same_bytes(fit, undisturbed())


def losing(members: Sequence[Sequence[ShardRows]], lose: Callable[[int], Sequence[int]]) -> Broadcast:
    """A broadcast that replaces some groups by rebuilt ones before its n-th call."""
    groups = [RowGroup(part) for part in members]
    calls = 0

    def broadcast(method: str, *args: Any) -> list[Any]:
        nonlocal calls
        for lost in lose(calls):
            groups[lost] = RowGroup(members[lost])
        calls += 1
        return [getattr(group, method)(*args) for group in groups]

    return broadcast


@pytest.mark.parametrize("call", [1, N_CLUSTERS // 2, N_CLUSTERS - 1, N_CLUSTERS, N_CLUSTERS + 2])
def test_a_group_rebuilt_in_mid_seeding_or_mid_fit_answers_the_same(call: int) -> None:
    parts = [CORPUS[:3], CORPUS[3:]]
    assert_same_bytes(fit_with(losing(parts, lambda n: [1] if n == call else [])), undisturbed())


def test_groups_rebuilt_before_every_call_give_the_same_bytes() -> None:
    parts = [CORPUS[:3], CORPUS[3:4], CORPUS[4:]]
    assert_same_bytes(fit_with(losing(parts, lambda n: range(3))), undisturbed())


def test_a_group_that_is_asked_twice_answers_the_same() -> None:
    groups = [RowGroup(CORPUS[:4]), RowGroup(CORPUS[4:])]

    def twice(method: str, *args: Any) -> list[Any]:
        over(groups)(method, *args)
        return over(groups)(method, *args)

    assert_same_bytes(fit_with(twice), undisturbed())


def test_a_second_fit_on_the_same_groups_gives_the_same_bytes_and_another_seed_others() -> None:
    groups = over([RowGroup(CORPUS[:4]), RowGroup(CORPUS[4:])])
    other = fit_with(groups, seed=1)
    assert other.centroids.tobytes() != undisturbed().centroids.tobytes()
    assert_same_bytes(fit_with(groups), undisturbed())


# What the fit finds


def four_points() -> tuple[ShardRows, np.ndarray]:
    angles = np.deg2rad([0.0, 20.0, 90.0, 110.0])
    x = np.column_stack([np.cos(angles), np.sin(angles)])
    return shard_rows(x, [0.4, 0.1, 0.25, 0.25]), np.array([[1, 0], [0, 1]], dtype=np.float32)


def test_four_points_computed_by_hand() -> None:
    """Clusters {0°, 20°} and {90°, 110°}; inertia is 2·(1 - |S0| - |S1|) with

    |S0| = √(0.4² + 0.1² + 2·0.4·0.1·cos 20°) = 0.4951519 at atan2(0.1 sin 20°, 0.4 + 0.1 cos 20°) = 3.96069°,
    |S1| = 0.5·cos 10° = 0.4924039 at 100°; before the first update it is 0.35·(2 - 2 cos 20°) = 0.0422152.
    """
    rows, initial = four_points()
    fit = lloyd(over([RowGroup([rows])]), initial, max_iterations=10, tol=0)
    assert fit.converged
    assert fit.inertia == pytest.approx([0.0422152, 0.0248884, 0.0248884], abs=1e-6)
    degrees = np.rad2deg(np.arctan2(fit.centroids[:, 1], fit.centroids[:, 0]))
    assert degrees.tolist() == pytest.approx([3.96069, 100.0], abs=1e-3)
    assert fit.lengths.tolist() == pytest.approx([0.4951519, 0.4924039], abs=1e-6)


@pytest.mark.parametrize("seed", range(5))
def test_the_objective_is_that_of_scikit_learn_from_the_same_centroids(seed: int) -> None:
    members = corpus(seed + 10, rows=120)
    x = np.vstack([member.x for member in members])
    weights = np.concatenate([member.weights for member in members])
    broadcast = over([RowGroup(members[:3]), RowGroup(members[3:])])
    initial = seed_centroids(broadcast, N_CLUSTERS, N_FEATURES, seed)
    ours = lloyd(broadcast, initial, max_iterations=200, tol=1e-9)
    theirs = KMeans(N_CLUSTERS, init=initial, n_init=1, max_iter=200, tol=1e-9).fit(x, sample_weight=weights)

    def objective(centroids: np.ndarray) -> float:
        _, similarity = kernels.nearest(x, unit_rows(centroids))
        return kernels.weighted_inertia(similarity, weights)

    assert objective(ours.centroids) == pytest.approx(objective(theirs.cluster_centers_), rel=0.005)
    assert objective(ours.centroids) < 0.95 * objective(initial)


def test_every_lloyd_pass_lowers_the_inertia() -> None:
    inertia = undisturbed().inertia
    assert all(later <= earlier + 1e-12 for earlier, later in pairwise(inertia))


def test_the_converged_inertia_is_that_of_the_centroids_returned() -> None:
    fit = undisturbed()
    total = sum(
        kernels.weighted_inertia(kernels.nearest(member.x, fit.centroids)[1], member.weights) for member in CORPUS
    )
    assert fit.inertia[-1] == pytest.approx(total, abs=1e-12)


def test_centroids_have_length_one() -> None:
    np.testing.assert_allclose(np.linalg.norm(undisturbed().centroids, axis=1), 1, atol=1e-6)


def test_max_iterations_stops_a_fit_that_has_not_converged() -> None:
    broadcast = over([RowGroup(CORPUS)])
    fit = lloyd(broadcast, seed_centroids(broadcast, N_CLUSTERS, N_FEATURES, 0), max_iterations=2, tol=0)
    assert not fit.converged
    assert len(fit.inertia) == 2


def test_a_heavy_row_pulls_its_centroid() -> None:
    rows = shard_rows(np.array([[1.0, 0.0], [0.0, 1.0]]), [0.9, 0.1])
    fit = lloyd(over([RowGroup([rows])]), np.array([[0.6, 0.8]], dtype=np.float32), max_iterations=9, tol=0)
    assert fit.centroids[0].tolist() == pytest.approx([0.9 / 0.82**0.5, 0.1 / 0.82**0.5], abs=1e-6)


def test_lengths_are_those_of_the_sums_that_centroids_are_directions_of() -> None:
    broadcast = over([RowGroup(CORPUS)])
    initial = seed_centroids(broadcast, N_CLUSTERS, N_FEATURES, 0)
    x = np.vstack([member.x for member in CORPUS])
    weights = np.concatenate([member.weights for member in CORPUS])
    for passes in (1, 2, 50):
        fit = lloyd(broadcast, initial, max_iterations=passes, tol=1e-6)
        done = len(fit.inertia) - fit.converged  # a converged fit looks once more and moves nothing
        before = initial
        for _ in range(done):
            sums = kernels.partial_sums(x, weights, kernels.nearest(x, before)[0], N_CLUSTERS)[0]
            before = kernels.new_centroids(sums, before)
        np.testing.assert_allclose(fit.lengths, np.linalg.norm(sums, axis=1), rtol=1e-5)
        np.testing.assert_allclose(fit.centroids, before, atol=1e-5)


# Empty clusters


def test_a_fit_does_not_end_on_a_centroid_that_was_only_moved_to_a_row() -> None:
    """Two centroids at one place leave one empty; a tolerance of one would end the fit as soon as it may."""
    rows = shard_rows(np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0], [0.1, 0.9]]), [0.25] * 4)
    start = np.array([[1.0, 0.0], [1.0, 0.0]], dtype=np.float32)
    fit = lloyd(over([RowGroup([rows])]), start, max_iterations=20, tol=1.0)
    assert fit.converged
    assert fit.lengths.all()
    stopped = lloyd(over([RowGroup([rows])]), start, max_iterations=1, tol=1.0)
    assert (stopped.converged, (stopped.lengths == 0).sum()) == (False, 1)


def three_directions() -> list[ShardRows]:
    rng = np.random.default_rng(5)
    axes = np.eye(3)[[0, 1, 2]]
    return [
        shard_rows(axis + rng.normal(size=(20, 3)) * 0.05, np.full(20, 1 / 60), seed=i) for i, axis in enumerate(axes)
    ]


@pytest.mark.parametrize("parts", [1, 3])
def test_an_empty_cluster_finds_the_direction_that_has_none(parts: int) -> None:
    members = three_directions()
    broadcast = over([RowGroup(members[part::parts]) for part in range(parts)])
    initial = np.array([[1, 0, 0], [0, 1, 0], -np.ones(3) / 3**0.5], dtype=np.float32)
    fit = lloyd(broadcast, initial, max_iterations=30, tol=1e-6)
    assert fit.converged
    labels = [np.unique(kernels.nearest(member.x, fit.centroids)[0]).tolist() for member in members]
    assert labels == [[0], [1], [2]]


def test_no_cluster_stays_empty_and_the_fit_is_the_same_for_any_grouping() -> None:
    away = np.tile(-CORPUS[0].x[:1], (N_CLUSTERS - 1, 1))
    initial = np.vstack([CORPUS[0].x[:1], away])
    fits = [
        lloyd(over(grouped(CORPUS, group_of)), initial, max_iterations=50, tol=1e-6)
        for group_of in ([0] * 8, [0, 1, 2, 3, 0, 1, 2, 3])
    ]
    assert_same_bytes(*fits)
    assert fits[0].converged
    used = {int(label) for member in CORPUS for label in kernels.nearest(member.x, fits[0].centroids)[0]}
    assert used == set(range(N_CLUSTERS))


def test_an_empty_cluster_moves_to_the_single_farthest_row_first() -> None:
    x = np.array([[1.0, 0.0], [0.9, 0.1], [-0.8, 0.6], [0.0, 1.0]])
    rows = shard_rows(x, np.full(4, 0.25))
    away = np.array([0.0, -1.0], dtype=np.float32)
    fit = lloyd(over([RowGroup([rows])]), np.stack([rows.x[0], away]), max_iterations=1, tol=0)
    assert fit.centroids[1].tobytes() == rows.x[2].tobytes()


def test_farthest_rows_are_the_same_for_any_grouping_and_ties_go_to_the_lower_id() -> None:
    centroids = undisturbed().centroids
    whole = RowGroup(CORPUS).farthest(centroids, 5)
    parts = [point for group in grouped(CORPUS, [0, 1, 2, 0, 1, 2, 0, 1]) for point in group.farthest(centroids, 5)]
    assert [p[:2] for p in sorted(parts, key=lambda p: p[:2])[:5]] == [p[:2] for p in whole]
    alike = unit_rows(np.array([[1.0, 1.0, 0.0], [1.0, -1.0, 0.0], [1.0, 0.0, 1.0]]))
    same = ShardRows(np.array([[9] * 16, [3] * 16, [5] * 16], dtype=np.uint8), alike, np.ones(3) / 3)
    ties = RowGroup([same]).farthest(np.array([[1, 0, 0]], dtype=np.float32), 2)
    assert [point[1] for point in ties] == [bytes([3] * 16), bytes([5] * 16)]


@pytest.mark.parametrize("parts", [1, 2])
def test_two_empty_clusters_never_move_to_one_place(parts: int) -> None:
    """The farthest row is there five times, in both shards."""
    x = np.array([[1.0, 0.0], [0.9, 0.1], [-1.0, 0.0], [-1.0, 0.0], [0.0, 1.0]])
    members = [shard_rows(x, np.full(5, 0.1), seed=seed) for seed in (0, 1)]
    away = np.tile(np.array([[0.0, -1.0]], dtype=np.float32), (2, 1))
    broadcast = over([RowGroup(members[part::parts]) for part in range(parts)])
    fit = lloyd(broadcast, np.vstack([members[0].x[:1], away]), max_iterations=1, tol=0)
    assert sorted(map(tuple, fit.centroids[1:].tolist())) == [(-1.0, 0.0), (0.0, 1.0)]


def test_a_group_without_rows_adds_nothing() -> None:
    empty, centroids = RowGroup([]), undisturbed().centroids
    assert empty.race(centroids[:0], 0) is None
    assert empty.farthest(centroids, 3) == []
    assert [part.shape for part in empty.step(centroids)] == [(N_CLUSTERS, N_FEATURES), (N_CLUSTERS,), (1,)]
    assert not any(part.any() for part in empty.step(centroids))


# Seeding


def test_the_first_center_is_drawn_by_weight() -> None:
    weights = np.array([0.5, 0.3, 0.15, 0.05])
    rows = shard_rows(np.eye(4), weights)
    group = RowGroup([rows])
    none = np.empty((0, 4), dtype=np.float32)
    wins = [int(np.argmax(group.race(none, seed)[2])) for seed in range(3000)]
    assert stats.chisquare(np.bincount(wins, minlength=4), 3000 * weights).pvalue > 1e-3


def test_the_next_center_is_drawn_by_weight_times_squared_distance() -> None:
    angles = np.deg2rad([0.0, 60.0, 90.0, 180.0])
    x, weights = np.column_stack([np.cos(angles), np.sin(angles)]), np.array([0.4, 0.3, 0.2, 0.1])
    rows = shard_rows(x, weights)
    expected = weights * (2 - 2 * np.cos(angles))
    names = [rows.ids[i].tobytes() for i in range(4)]
    group = RowGroup([rows])
    wins = [names.index(group.race(rows.x[:1], seed)[1]) for seed in range(3000)]
    counts = np.bincount(wins, minlength=4)
    assert counts[0] == 0
    assert stats.chisquare(counts[1:], 3000 * expected[1:] / expected.sum()).pvalue > 1e-3


def test_centers_are_rows_of_the_data_and_differ() -> None:
    centers = seed_centroids(over([RowGroup(CORPUS)]), 12, N_FEATURES, 3)
    rows = {row.tobytes() for member in CORPUS for row in member.x}
    assert {center.tobytes() for center in centers} <= rows
    assert len({center.tobytes() for center in centers}) == 12


def too_few(distinct: np.ndarray, wanted: int) -> str:
    x = np.repeat(distinct, 5, axis=0)
    rows = shard_rows(x, np.full(len(x), 1 / len(x)))
    with pytest.raises(TooFewSamples) as caught:
        seed_centroids(over([RowGroup([rows])]), wanted, distinct.shape[1], 0)
    return str(caught.value)


def test_fewer_distinct_rows_than_clusters_is_an_error_that_counts_them() -> None:
    assert too_few(np.eye(3), 4) == (
        "cluster.n_clusters: 4 clusters need as many distinct documents, but only 3 were found; "
        "lower n_clusters, add data or raise cluster.fit_rows"
    )


@pytest.mark.parametrize("seed", range(4))
def test_fewer_distinct_rows_than_clusters_is_an_error_for_rows_whose_length_rounds_below_one(seed: int) -> None:
    distinct = np.random.default_rng(seed).normal(size=(5, 33))
    assert "6 clusters need as many distinct documents, but only 5 were found" in too_few(distinct, 6)


def test_as_many_clusters_as_distinct_rows_is_no_error() -> None:
    rows = shard_rows(np.eye(4), np.full(4, 0.25))
    centers = seed_centroids(over([RowGroup([rows])]), 4, 4, 0)
    assert sorted(centers.tolist()) == sorted(np.eye(4).tolist())
