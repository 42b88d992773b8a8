"""From counts of usage to the share that clusters deserve."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import dirichlet_multinomial

from compass_ray.divergence import jsd
from compass_ray.sample.gaps import shares_of
from compass_ray.sample.problem import Problem
from compass_ray.usage_shares import (
    BANDWIDTH,
    CURRENT_SHARE,
    Observed,
    cluster_weights,
    concentration,
    estimate_usage,
    share_interval,
    shrunk_shares,
    soft_counts,
    usage_prior,
)
from compass_ray.vectors import unit_rows

COUNTS = st.lists(st.integers(0, 500), min_size=2, max_size=10)


def similarities(rows: int, clusters: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).uniform(-0.2, 0.8, (rows, clusters))


def even(n_clusters: int) -> np.ndarray:
    return np.full(n_clusters, 1 / n_clusters)


def test_a_document_is_shared_among_clusters_by_similarity_in_its_own_standard_deviations() -> None:
    similarity = similarities(5, 8)
    shares = soft_counts(similarity, even(8))
    assert shares.sum(axis=1) == pytest.approx(np.ones(5))
    assert (shares.argsort(axis=1) == similarity.argsort(axis=1)).all()
    two = soft_counts(np.array([[0.5, 0.3]]), even(2))[0]  # one standard deviation above and below the mean
    assert two[0] / two[1] == pytest.approx(np.exp(2 / BANDWIDTH))


def test_of_two_clusters_as_near_the_commoner_gets_more_of_a_document_in_proportion() -> None:
    weights = np.array([0.6, 0.2, 0.2])
    assert soft_counts(np.array([[0.5, 0.5, 0.5]]), weights)[0] == pytest.approx(weights)
    similarity = similarities(5, 3)
    odds = soft_counts(similarity, weights) / soft_counts(similarity, even(3))
    assert odds[:, 0] / odds[:, 1] == pytest.approx(np.full(5, 3.0))


@given(scale=st.floats(0.01, 1.0), shift=st.floats(-0.5, 0.5))
def test_encoders_with_other_ranges_of_cosines_share_alike(scale: float, shift: float) -> None:
    similarity, weights = similarities(4, 10), np.arange(1, 11) / 55
    assert soft_counts(similarity * scale + shift, weights) == pytest.approx(soft_counts(similarity, weights), abs=1e-6)


def test_a_document_equally_near_to_all_clusters_is_shared_equally_and_none_are_no_rows() -> None:
    assert soft_counts(np.full((1, 4), 0.7, dtype=np.float16), even(4)).tolist() == [[0.25] * 4]
    assert soft_counts(np.empty((0, 4)), even(4)).shape == (0, 4)


def test_clusters_are_as_common_as_pool_and_current_data_say_half_and_half() -> None:
    pool, current, none = np.array([90, 10, 0]), np.array([0, 50, 0]), np.zeros(3, dtype=np.int64)
    assert cluster_weights(pool, current) == pytest.approx([0.45, 0.55, 0.0], abs=0.01)
    assert cluster_weights(pool, none) == pytest.approx([0.9, 0.1, 0.0], abs=0.01)
    assert cluster_weights(none, none).tolist() == pytest.approx([1 / 3] * 3)
    assert cluster_weights(pool, current).min() > 0
    assert cluster_weights(pool, current).sum() == pytest.approx(1)


@given(usage=st.lists(st.floats(0, 500), min_size=2, max_size=10))
def test_the_usage_prior_is_positive_and_sums_to_one(usage: list[float]) -> None:
    base = usage_prior(np.array(usage), np.zeros(len(usage), dtype=np.int64))
    assert (base > 0).all()
    assert base.sum() == pytest.approx(1)


def test_the_usage_prior_is_usage_and_uniform_without_any() -> None:
    assert usage_prior(np.array([30.0, 10.0, 0.0]), np.zeros(3)).tolist() == pytest.approx([0.75, 0.25, 0], abs=1e-3)
    assert usage_prior(np.zeros(4), np.zeros(4)).tolist() == [0.25] * 4


def test_a_part_of_the_usage_prior_is_what_is_trained_on() -> None:
    usage, current = np.array([30.0, 10.0, 0.0]), np.array([0, 0, 50])
    for documents, part in ((1, CURRENT_SHARE / 51), (50, CURRENT_SHARE / 2), (10**6, CURRENT_SHARE)):
        expected = [0.75 * (1 - part), 0.25 * (1 - part), part]
        assert usage_prior(usage, current * documents // 50).tolist() == pytest.approx(expected, abs=1e-3)
    assert usage_prior(usage, current, 0.0).tolist() == usage_prior(usage, 0 * current).tolist()


def population(rng: np.random.Generator, topics: int, rows: int = 4000) -> np.ndarray:
    """Cosines of many documents about some topics with the centroids of 100 clusters all over the sphere."""
    centroids = unit_rows(rng.normal(size=(100, 16)))
    centers = unit_rows(rng.normal(size=(topics, 16)))[rng.integers(0, topics, rows)]
    return np.asarray(unit_rows(centers + rng.normal(size=(rows, 16)) * 0.15) @ centroids.T)


def estimated(own: np.ndarray, others: np.ndarray) -> np.ndarray:
    """The shares of clusters from the cosines of a target language's documents, and of all other target languages'."""
    counts = np.bincount(own.argmax(axis=1), minlength=own.shape[1])
    shares = soft_counts(own, even(own.shape[1]))
    here = np.bincount(own.argmax(axis=1), shares[np.arange(len(own)), own.argmax(axis=1)], minlength=own.shape[1])
    everybody = shares.sum(axis=0) + soft_counts(others, even(own.shape[1])).sum(axis=0)
    return estimate_usage(Observed(counts, counts, everybody, here), np.zeros(own.shape[1]))[0]


@pytest.mark.parametrize("documents", [12, 30, 100])
def test_few_documents_foretell_usage_better_if_what_is_near_them_counts_and_other_target_languages_help(
    documents: int,
) -> None:
    rng = np.random.default_rng(1)
    distances: dict[str, list[float]] = {"observed": [], "alone": [], "together": []}
    for _ in range(20):
        documents_of_all = population(rng, topics=8)
        truth = np.bincount(documents_of_all.argmax(axis=1), minlength=100) / len(documents_of_all)
        own, others = (documents_of_all[rng.integers(0, 4000, n)] for n in (documents, 3 * documents))
        observed = np.bincount(own.argmax(axis=1), minlength=100) / documents
        estimates = {"observed": observed, "alone": estimated(own, own[:0]), "together": estimated(own, others)}
        for name, estimate in estimates.items():
            distances[name].append(float(jsd(truth, estimate)))
    means = {name: float(np.mean(values)) for name, values in distances.items()}
    assert means["together"] <= means["alone"] < means["observed"]


def left_out_one_by_one(shares: np.ndarray, clusters: np.ndarray, copies: np.ndarray, others: np.ndarray) -> float:
    """The α by which documents, each several times there, are best foretold from the rest: the definition, slowly."""

    def log_likelihood(alpha: float) -> float:
        found = 0.0
        for one, cluster in enumerate(clusters):
            rest = np.arange(len(clusters)) != one
            counts = np.bincount(clusters[rest], copies[rest], minlength=shares.shape[1])
            base = usage_prior(copies[rest] @ shares[rest] + others, np.zeros(shares.shape[1]))
            scale = copies.sum() / (copies**2).sum()  # documents are worth less if they are copies
            found += copies[one] * np.log(shrunk_shares(scale * counts, base, alpha)[cluster])
        return found

    return max(np.geomspace(1e-2, 1e6, 400), key=log_likelihood)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("most", [1, 9])
def test_alpha_is_that_by_which_each_document_is_best_foretold_from_the_others(seed: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    documents = population(rng, 3 + 20 * seed, rows=40)
    shares, clusters = soft_counts(documents, even(100)), documents.argmax(axis=1)
    copies, others = rng.integers(1, most + 1, 40), 2.0 * rng.random(100)
    here = shares[np.arange(40), clusters]
    observed = Observed(
        counts=np.bincount(clusters, copies, minlength=100),
        squares=np.bincount(clusters, copies**2, minlength=100),
        soft_counts=copies @ shares + others,
        own=np.bincount(clusters, copies**2 * here, minlength=100),
    )
    _, alpha = estimate_usage(observed, np.zeros(100))
    expected = left_out_one_by_one(shares, clusters, copies, others)
    if most == 1:  # of several documents in a cluster their mean is left out
        assert np.log10(alpha) == pytest.approx(np.log10(expected), abs=0.3)
    else:
        assert np.log10(alpha) == pytest.approx(np.log10(expected), abs=0.7)


@pytest.mark.parametrize("copies", [1, 2, 30])
def test_copies_make_shares_and_no_belief(copies: int) -> None:
    clusters = np.array([0, 0, 0, 1, 1, 2, 5, 6])
    counts = np.bincount(clusters, minlength=10)
    shares = 0.3 * np.eye(10)[clusters] + 0.07
    once = Observed(counts, counts, shares.sum(axis=0), 0.37 * counts)
    again = Observed(counts * copies, counts * copies**2, copies * shares.sum(axis=0), copies**2 * 0.37 * counts)
    for one, other in zip(estimate_usage(once, np.zeros(10)), estimate_usage(again, np.zeros(10)), strict=True):
        assert other == pytest.approx(one, rel=1e-3)


def test_a_single_document_however_often_asked_leaves_the_usage_prior() -> None:
    for copies in (1, 40):
        counts = np.array([0, copies, 0, 0])
        observed = Observed(counts, counts * copies, copies * np.array([0.3, 0.4, 0.2, 0.1]), 0.4 * counts * copies)
        estimate, alpha = estimate_usage(observed, np.zeros(4))
        assert alpha > 1e5
        assert estimate == pytest.approx([0.3, 0.4, 0.2, 0.1], abs=1e-3)


def test_one_current_document_moves_hardly_anything() -> None:
    counts = np.array([40, 28, 0, 0])
    observed = Observed(counts, counts, counts + 0.5, 0.9 * counts)
    (without, _), (few, _) = (estimate_usage(observed, current) for current in (np.zeros(4), np.array([0, 0, 0, 1])))
    assert few[3] - without[3] < 0.005  # 0.2 of the base before


def likelihood(alpha: float, counts: np.ndarray, base: np.ndarray) -> float:
    return float(dirichlet_multinomial.logpmf(counts, alpha * base, counts.sum()))


@pytest.mark.parametrize("soft_counts", [0.5, 5.0, 50.0])
def test_alpha_has_the_largest_dirichlet_multinomial_likelihood(soft_counts: float) -> None:
    rng = np.random.default_rng(7)
    base = rng.dirichlet(np.full(40, 2.0))
    counts = rng.multinomial(300, rng.dirichlet(soft_counts * base))
    alpha = concentration(counts, base)
    best = likelihood(alpha, counts, base)
    assert all(likelihood(float(other), counts, base) <= best + 1e-6 for other in np.geomspace(1e-2, 1e6, 300))


def test_counts_that_could_be_a_sample_of_the_base_are_shrunk_and_others_hardly() -> None:
    rng = np.random.default_rng(0)
    base = np.full(50, 1 / 50)
    like_base = concentration(rng.multinomial(300, base), base)
    unlike = concentration(np.r_[150, 150, np.zeros(48, dtype=np.int64)], base)
    assert like_base > 300
    assert unlike < 10
    assert 1e-2 <= unlike < like_base <= 1e6 * 1.001


@given(counts=COUNTS.filter(any), alpha=st.floats(1e-2, 1e6))
def test_shrunk_mass_sums_to_one_and_lies_between_shares_and_base(counts: list[int], alpha: float) -> None:
    observed = np.array(counts)
    base = usage_prior(observed[::-1].astype(float), np.zeros(len(observed)))
    estimate = shrunk_shares(observed, base, alpha)
    shares = observed / observed.sum()
    assert estimate.sum() == pytest.approx(1)
    assert (estimate >= np.minimum(shares, base) - 1e-12).all()
    assert (estimate <= np.maximum(shares, base) + 1e-12).all()


def test_shrunk_mass_by_hand() -> None:
    assert shrunk_shares(np.array([6, 2]), np.array([0.25, 0.75]), 8.0).tolist() == [0.5, 0.5]


def test_the_interval_holds_the_mass_and_narrows_with_more_documents() -> None:
    base = np.full(4, 0.25)
    widths = []
    for times in (1, 100):
        counts = np.array([10, 20, 30, 40]) * times
        estimate = shrunk_shares(counts, base, 5.0)
        low, high = share_interval(counts, estimate)
        assert (low < estimate).all()
        assert (estimate < high).all()
        widths.append((high - low).max())
    assert widths[1] == pytest.approx(widths[0] / 10, rel=0.15)


def test_the_interval_is_the_binomial_one() -> None:
    """With 400 documents a share of ½ has a standard error of 0.025."""
    low, high = share_interval(np.array([200, 200]), np.array([0.5, 0.5]))
    assert (high - low).tolist() == pytest.approx([2 * 1.96 * 0.025] * 2, rel=0.05)


def test_the_interval_of_a_cluster_that_nobody_asked_starts_at_zero_and_has_a_width() -> None:
    low, high = share_interval(np.array([0, 100]), np.array([0.01, 0.99]))
    assert low[0] == 0
    assert 0.01 < high[0] < 0.04
    assert 0.96 < low[1] < 0.99
    assert high[1] == 1


def test_an_estimate_outside_is_taken_in() -> None:
    low, high = share_interval(np.array([0, 1000]), np.array([0.2, 0.8]))
    assert high[0] == 0.2
    assert low[1] == 0.8


def test_without_documents_the_interval_is_everything() -> None:
    low, high = share_interval(np.zeros(3, dtype=np.int64), np.full(3, 1 / 3))
    assert (low.tolist(), high.tolist()) == ([0, 0, 0], [1, 1, 1])


@pytest.mark.parametrize("documents", [285, 1000, 10_000])
def test_intervals_cover_the_truth_and_shrinking_brings_the_estimate_nearer_on_average(documents: int) -> None:
    """A light version of ``benchmarks/coverage.py``."""
    rng = np.random.default_rng(0)
    covered, shrunk_jsd, raw_jsd = [], [], []
    for topics in (3, 10, 30, 100) * 3:
        all_documents = population(rng, topics, rows=20_000)
        truth = np.bincount(all_documents.argmax(axis=1), minlength=100) / len(all_documents)
        own = all_documents[rng.integers(0, len(all_documents), documents)]
        counts = np.bincount(own.argmax(axis=1), minlength=100)
        estimate = estimated(own, own[:0])
        low, high = share_interval(counts, estimate)
        covered.append(((low <= truth) & (truth <= high)).mean())
        shrunk_jsd.append(float(jsd(estimate, truth)))
        raw_jsd.append(float(jsd(counts / documents, truth)))
    assert 0.93 < np.mean(covered) < 0.99
    assert np.mean(shrunk_jsd) < np.mean(raw_jsd)


def problem(usage: list[int], current: list[int], capacity: list[int]) -> Problem:
    return Problem(
        target_lang="sw",
        languages=("sw",),
        usage=np.array([*usage, 3]),
        heldout=np.zeros(len(usage) + 1, dtype=np.int64),
        current=np.array([*current, 0]),
        capacity=np.array(capacity)[:, None],
        other_usage=np.zeros(len(usage), dtype=np.int64),
        soft_counts=np.array(usage, dtype=np.float64),
        own_soft_counts=np.array(usage, dtype=np.float64),
        current_tokens=10 * np.array([*current, 0]),
        capacity_tokens=10 * np.array(capacity)[:, None],
        usage_tokens=10 * np.array(usage),
        distance=1.0 - np.eye(len(usage)),
    )


def test_clusters_that_no_document_can_serve_leave_the_problem_and_are_reported() -> None:
    estimate = shares_of(problem([50, 40, 10], [0, 0, 5], [9, 0, 0]))
    assert estimate.usage[1] == 0
    assert (estimate.usage[[0, 2]] > 0).all()  # a pool, or current documents
    assert estimate.usage.sum() == pytest.approx(1)
    assert 0.2 < estimate.unreachable < 0.5
    assert estimate.low[1] == estimate.high[1] == 0


def test_a_deficit_is_target_above_current_and_never_negative() -> None:
    estimate = shares_of(problem([500, 500], [90, 10], [9, 9]))
    assert estimate.deficit.tolist() == pytest.approx([0, estimate.usage[1] - 0.1])
    assert estimate.current is not None


def test_without_current_data_the_deficit_is_the_target() -> None:
    estimate = shares_of(problem([3, 1], [0, 0], [9, 9]))
    assert estimate.current is None
    assert estimate.deficit.tolist() == estimate.usage.tolist()
