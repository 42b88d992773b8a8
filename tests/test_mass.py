"""From counts of usage to the mass that clusters deserve."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import dirichlet_multinomial

from compass_ray.mass import base_measure, concentration, mass_interval, shrunk_mass
from compass_ray.sample.divergence import jsd
from compass_ray.sample.gaps import owner_mass
from compass_ray.sample.problem import OwnerProblem

COUNTS = st.lists(st.integers(0, 500), min_size=2, max_size=10)


@given(own=COUNTS, data=st.data())
def test_the_base_measure_is_positive_and_sums_to_one(own: list[int], data: st.DataObject) -> None:
    counts = st.lists(st.integers(0, 500), min_size=len(own), max_size=len(own))
    base = base_measure(np.array(own), np.array(data.draw(counts)), np.array(data.draw(counts)))
    assert (base > 0).all()
    assert base.sum() == pytest.approx(1)


def test_the_base_measure_of_one_owner_alone_is_half_usage_half_pool() -> None:
    none = np.zeros(3, dtype=np.int64)
    base = base_measure(np.array([10, 30, 0]), none, np.array([0, 50, 50]))
    assert base.tolist() == pytest.approx([0.125, 0.625, 0.25], abs=1e-3)
    assert base[2] > base_measure(np.array([10, 30, 0]), none, np.array([50, 50, 0]))[2] > 0


def test_the_pool_counts_less_the_better_other_languages_foretell_the_usage() -> None:
    own, pool = np.array([40, 40, 20, 0, 0]), np.array([10, 10, 10, 500, 500])
    agreeing = base_measure(own, np.array([80, 80, 40, 0, 0]), pool)
    disagreeing = base_measure(own, np.array([0, 0, 0, 100, 0]), pool)
    assert agreeing[3:].sum() < 0.01
    assert disagreeing[4] == pytest.approx(0.5 * 500 / 1030, abs=1e-3)  # a half stays with the pool


def test_the_share_of_other_usage_has_the_largest_likelihood() -> None:
    own, others, pool = np.array([50, 30, 20, 5]), np.array([60, 20, 30, 0]), np.array([10, 10, 10, 100])
    base = base_measure(own, others, pool)
    usage, supply = (own + others) / (own + others).sum(), pool / pool.sum()
    share = (base[0] - supply[0]) / (usage[0] - supply[0])

    def log_likelihood(trial: float) -> float:
        return float((own * np.log(trial * others / others.sum() + (1 - trial) * supply)).sum())

    assert 0.6 < share < 0.99
    assert all(log_likelihood(share) >= log_likelihood(trial) - 0.05 for trial in np.linspace(0.5, 0.999, 100))


@pytest.mark.parametrize("documents", [30, 300])
def test_languages_with_the_same_usage_help_each_other_to_a_mass_nearer_to_the_truth(documents: int) -> None:
    rng = np.random.default_rng(1)
    pool = rng.multinomial(20_000, rng.dirichlet(np.full(100, 2.0)))
    distances: dict[str, list[float]] = {"observed": [], "alone": [], "together": []}
    for _ in range(20):
        truth = np.zeros(100)
        truth[rng.choice(100, 10, replace=False)] = rng.dirichlet(np.full(10, 2.0))
        own, others = rng.multinomial(documents, truth), rng.multinomial(3 * documents, truth)
        for name, known in (("alone", np.zeros_like(own)), ("together", others)):
            base = base_measure(own, known, pool)
            mass = shrunk_mass(own, base, concentration(own, base))
            distances[name].append(float(jsd(truth, mass)))
        distances["observed"].append(float(jsd(truth, own / documents)))
    means = {name: float(np.mean(values)) for name, values in distances.items()}
    assert means["together"] < 0.6 * means["observed"]
    assert means["together"] < 0.6 * means["alone"]


def likelihood(alpha: float, counts: np.ndarray, base: np.ndarray) -> float:
    return float(dirichlet_multinomial.logpmf(counts, alpha * base, counts.sum()))


@pytest.mark.parametrize("spread", [0.5, 5.0, 50.0])
def test_alpha_has_the_largest_dirichlet_multinomial_likelihood(spread: float) -> None:
    rng = np.random.default_rng(7)
    base = rng.dirichlet(np.full(40, 2.0))
    counts = rng.multinomial(300, rng.dirichlet(spread * base))
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
    base = base_measure(observed, observed[::-1], observed)
    mass = shrunk_mass(observed, base, alpha)
    shares = observed / observed.sum()
    assert mass.sum() == pytest.approx(1)
    assert (mass >= np.minimum(shares, base) - 1e-12).all()
    assert (mass <= np.maximum(shares, base) + 1e-12).all()


def test_shrunk_mass_by_hand() -> None:
    assert shrunk_mass(np.array([6, 2]), np.array([0.25, 0.75]), 8.0).tolist() == [0.5, 0.5]


def test_the_interval_holds_the_mass_and_narrows_with_more_documents() -> None:
    base = np.full(4, 0.25)
    widths = []
    for times in (1, 100):
        counts = np.array([10, 20, 30, 40]) * times
        mass = shrunk_mass(counts, base, 5.0)
        low, high = mass_interval(counts, mass)
        assert (low < mass).all()
        assert (mass < high).all()
        widths.append((high - low).max())
    assert widths[1] == pytest.approx(widths[0] / 10, rel=0.15)


def test_the_interval_is_the_binomial_one() -> None:
    """With 400 documents a share of ½ has a standard error of 0.025."""
    low, high = mass_interval(np.array([200, 200]), np.array([0.5, 0.5]))
    assert (high - low).tolist() == pytest.approx([2 * 1.96 * 0.025] * 2, rel=0.05)


def test_the_interval_of_a_cluster_that_nobody_asked_starts_at_zero_and_has_a_width() -> None:
    low, high = mass_interval(np.array([0, 100]), np.array([0.01, 0.99]))
    assert low[0] == 0
    assert 0.01 < high[0] < 0.04
    assert 0.96 < low[1] < 0.99
    assert high[1] == 1


def test_an_estimate_outside_is_taken_in() -> None:
    low, high = mass_interval(np.array([0, 1000]), np.array([0.2, 0.8]))
    assert high[0] == 0.2
    assert low[1] == 0.8


def test_without_documents_the_interval_is_everything() -> None:
    low, high = mass_interval(np.zeros(3, dtype=np.int64), np.full(3, 1 / 3))
    assert (low.tolist(), high.tolist()) == ([0, 0, 0], [1, 1, 1])


def truths(n_clusters: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Distributions of usage of several shapes."""
    zipf = rng.permutation(1 / np.arange(1, n_clusters + 1))
    return {
        "flat": rng.dirichlet(np.full(n_clusters, 5.0)),
        "uneven": rng.dirichlet(np.full(n_clusters, 1.0)),
        "peaked": rng.dirichlet(np.full(n_clusters, 0.2)),
        "zipf": zipf / zipf.sum(),
    }


@pytest.mark.parametrize("documents", [285, 1000, 10_000])
def test_intervals_cover_the_truth_and_shrinking_brings_the_estimate_nearer_on_average(documents: int) -> None:
    """A light version of ``benchmarks/coverage.py``."""
    rng = np.random.default_rng(0)
    covered, shrunk_jsd, raw_jsd = [], [], []
    for _ in range(8):
        for truth in truths(100, rng).values():
            counts = rng.multinomial(documents, truth)
            base = base_measure(counts, counts * 0, rng.multinomial(20_000, 0.7 * truth + 0.003))
            mass = shrunk_mass(counts, base, concentration(counts, base))
            low, high = mass_interval(counts, mass)
            covered.append(((low <= truth) & (truth <= high)).mean())
            shrunk_jsd.append(float(jsd(mass, truth)))
            raw_jsd.append(float(jsd(counts / documents, truth)))
    assert 0.93 < np.mean(covered) < 0.975
    assert np.mean(shrunk_jsd) < np.mean(raw_jsd)


def problem(target: list[int], current: list[int], capacity: list[int]) -> OwnerProblem:
    return OwnerProblem(
        owner="sw",
        languages=("sw",),
        target=np.array([*target, 3]),
        heldout=np.zeros(len(target) + 1, dtype=np.int64),
        current=np.array([*current, 0]),
        capacity=np.array(capacity)[:, None],
        other_targets=np.zeros(len(target), dtype=np.int64),
        current_tokens=10 * np.array([*current, 0]),
        capacity_tokens=10 * np.array(capacity)[:, None],
        usage_tokens=10 * np.array(target),
    )


def test_clusters_that_no_document_can_serve_leave_the_problem_and_are_reported() -> None:
    mass = owner_mass(problem([50, 40, 10], [0, 0, 5], [9, 0, 0]))
    assert mass.target[1] == 0
    assert (mass.target[[0, 2]] > 0).all()  # a pool, or current documents
    assert mass.target.sum() == pytest.approx(1)
    assert 0.2 < mass.unreachable < 0.5
    assert mass.low[1] == mass.high[1] == 0


def test_a_deficit_is_target_above_current_and_never_negative() -> None:
    mass = owner_mass(problem([500, 500], [90, 10], [9, 9]))
    assert mass.deficit.tolist() == pytest.approx([0, mass.target[1] - 0.1])
    assert mass.current is not None


def test_without_current_data_the_deficit_is_the_target() -> None:
    mass = owner_mass(problem([3, 1], [0, 0], [9, 9]))
    assert mass.current is None
    assert mass.deficit.tolist() == mass.target.tolist()
