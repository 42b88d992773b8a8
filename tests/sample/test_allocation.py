"""Quotas: exact, within capacity, and never improved by moving one document."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray.sample.allocation import hypergeometric_quotas, kl_quotas, proportional_quotas


@dataclass(frozen=True)
class Problem:
    usage: np.ndarray
    present: np.ndarray
    capacity: np.ndarray
    budget: int

    def solve(self) -> np.ndarray:
        return kl_quotas(self.usage, self.present, self.capacity, self.budget)

    def objective(self, quotas: np.ndarray) -> float:
        """KL(p ‖ (n + ½ + q) / total) up to constants, to be minimised."""
        return -float((self.usage * np.log(self.present + 0.5 + quotas)).sum())


@st.composite
def problems(draw: st.DrawFn, *, max_clusters: int = 8, max_capacity: int = 30) -> Problem:
    clusters = draw(st.integers(1, max_clusters))
    vector = lambda low, high: np.array(draw(st.lists(st.integers(low, high), min_size=clusters, max_size=clusters)))  # noqa: E731
    usage = vector(1, draw(st.sampled_from([3, 10_000])))
    capacity = vector(0, max_capacity)
    budget = draw(st.integers(0, int(capacity.sum())))
    return Problem(usage / usage.sum(), vector(0, 50).astype(float), capacity, budget)


@given(problem=problems())
def test_quotas_sum_to_the_budget_and_never_exceed_capacity(problem: Problem) -> None:
    quotas = problem.solve()
    assert quotas.sum() == problem.budget
    assert (quotas >= 0).all()
    assert (quotas <= problem.capacity).all()
    assert quotas.dtype == np.int64


@given(problem=problems())
def test_no_feasible_exchange_of_one_document_lowers_the_divergence(problem: Problem) -> None:
    quotas = problem.solve()
    best = problem.objective(quotas)
    for giver, taker in itertools.permutations(range(len(quotas)), 2):
        if quotas[giver] > 0 and quotas[taker] < problem.capacity[taker]:
            moved = quotas.copy()
            moved[giver] -= 1
            moved[taker] += 1
            assert problem.objective(moved) >= best - 1e-12


def greedy(problem: Problem) -> np.ndarray:
    """One document at a time to the cluster of largest gain, ties to the lower cluster."""
    quotas = np.zeros_like(problem.capacity)
    for _ in range(problem.budget):
        gain = problem.usage * np.log1p(1 / (problem.present + 0.5 + quotas))
        quotas[np.argmax(np.where(quotas < problem.capacity, gain, -np.inf))] += 1
    return quotas


@given(problem=problems())
def test_the_objective_is_that_of_plain_greedy(problem: Problem) -> None:
    assert problem.objective(problem.solve()) == pytest.approx(problem.objective(greedy(problem)), abs=1e-12)


@given(problem=problems(max_clusters=4, max_capacity=4))
def test_the_objective_is_that_of_brute_force(problem: Problem) -> None:
    feasible = (
        np.array(quotas)
        for quotas in itertools.product(*(range(c + 1) for c in problem.capacity))
        if sum(quotas) == problem.budget
    )
    best = min(problem.objective(quotas) for quotas in feasible)
    assert problem.objective(problem.solve()) == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize(("budget", "expected"), [(0, [0, 0, 0]), (1, [1, 0, 0]), (2, [1, 1, 0]), (4, [2, 1, 1])])
def test_ties_go_to_the_lower_cluster(budget: int, expected: list[int]) -> None:
    quotas = kl_quotas(np.full(3, 1 / 3), np.zeros(3), np.full(3, 9), budget)
    assert quotas.tolist() == expected


def test_what_is_there_already_counts() -> None:
    """Equal usage; 10 and 4 documents are there, so 8 more go 1 and 7 to make both 11."""
    quotas = kl_quotas(np.array([0.5, 0.5]), np.array([10.0, 4.0]), np.array([99, 99]), 8)
    assert quotas.tolist() == [1, 7]


def test_a_full_cluster_leaves_its_share_to_the_others_in_proportion() -> None:
    quotas = kl_quotas(np.array([0.8, 0.15, 0.05]), np.zeros(3), np.array([10, 1000, 1000]), 410)
    assert quotas[0] == 10
    assert quotas[1:].tolist() == pytest.approx([300, 100], abs=1)


def test_a_million_documents_are_shared_exactly_as_the_continuous_optimum() -> None:
    rng = np.random.default_rng(0)
    usage = rng.dirichlet(np.full(100, 0.3)) + 1e-6
    usage /= usage.sum()
    problem = Problem(usage, rng.integers(0, 1000, 100).astype(float), np.full(100, 10**8), 10**7)
    quotas = problem.solve()
    assert quotas.sum() == 10**7
    served = quotas > 0
    level = (quotas + problem.present + 0.5)[served] / usage[served]
    assert level.max() - level.min() <= 2 / usage[served].min()


@pytest.mark.parametrize("budget", [59, 60])
def test_the_whole_pool_may_be_the_budget_though_a_cluster_is_unreachable(budget: int) -> None:
    """A cluster with neither current nor pool documents has usage 0 and capacity 0."""
    usage, capacity = np.array([0.7, 0.0, 0.3]), np.array([40, 0, 20])
    quotas = kl_quotas(usage, np.array([3.0, 0.0, 0.0]), capacity, budget)
    assert quotas.sum() == budget
    assert (quotas <= capacity).all()
    assert (quotas >= 0).all()


# Proportional quotas


@st.composite
def shares(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, int]:
    cells = draw(st.integers(1, 8))
    weights = draw(st.lists(st.one_of(st.just(0.0), st.floats(1e-6, 1e3)), min_size=cells, max_size=cells))
    capacity = draw(st.lists(st.integers(0, 40), min_size=cells, max_size=cells))
    return np.array(weights), np.array(capacity), draw(st.integers(0, sum(capacity)))


@given(share=shares())
def test_proportional_quotas_sum_to_the_budget_within_capacity(share: tuple[np.ndarray, np.ndarray, int]) -> None:
    weights, capacity, budget = share
    quotas = proportional_quotas(weights, capacity, budget)
    assert quotas.sum() == budget
    assert (quotas >= 0).all()
    assert (quotas <= capacity).all()


@given(share=shares())
def test_a_cell_without_weight_gets_something_only_when_all_weighted_cells_are_full(
    share: tuple[np.ndarray, np.ndarray, int],
) -> None:
    weights, capacity, budget = share
    quotas = proportional_quotas(weights, capacity, budget)
    weighted = weights > 0
    if quotas[~weighted].any():
        assert (quotas[weighted] == capacity[weighted]).all()


@given(share=shares())
def test_proportional_quotas_are_the_rounded_water_level(share: tuple[np.ndarray, np.ndarray, int]) -> None:
    """min(capacity, level * weight), its level found by bisection, differs by less than one document."""
    weights, capacity, budget = share
    weighted = capacity[weights > 0].sum()
    if not 0 < budget < weighted:
        return
    low, high = 0.0, 1e12
    for _ in range(300):
        middle = (low + high) / 2
        low, high = (low, middle) if np.minimum(capacity, middle * weights).sum() > budget else (middle, high)
    exact = np.minimum(capacity, low * weights)
    assert np.abs(proportional_quotas(weights, capacity, budget) - exact).max() < 1 + 1e-6


@pytest.mark.parametrize(
    ("weights", "capacity", "budget", "expected"),
    [
        ([2, 1, 1], [100, 100, 100], 8, [4, 2, 2]),
        ([1, 1, 1], [9, 9, 9], 4, [2, 1, 1]),  # ties to the lower index
        ([1, 2], [9, 9], 2, [1, 1]),  # shares ⅔ and 1⅓
        ([10, 1, 1], [2, 100, 100], 10, [2, 4, 4]),  # what a full cell cannot take goes to the others
        ([1, 0, 0], [2, 3, 9], 6, [2, 1, 3]),  # then by remaining capacity
        ([0, 0], [3, 1], 4, [3, 1]),
        ([1, 1], [0, 5], 3, [0, 3]),
        ([5, 5], [5, 5], 0, [0, 0]),
    ],
)
def test_proportional_quotas_by_hand(weights: list[int], capacity: list[int], budget: int, expected: list[int]) -> None:
    assert proportional_quotas(np.array(weights, float), np.array(capacity), budget).tolist() == expected


def test_shares_that_are_whole_up_to_rounding_are_not_off_by_one() -> None:
    weights = np.array([0.1, 0.2, 0.3, 0.4])
    for budget in range(10, 1000, 10):
        expected = [budget // 10, budget // 5, 3 * budget // 10, 2 * budget // 5]
        assert proportional_quotas(weights, np.full(4, 10**6), budget).tolist() == expected


# Uniform samples


def test_uniform_samples_follow_the_capacities_on_average() -> None:
    capacity = np.array([30, 10, 0, 5, 100, 40])
    draws = hypergeometric_quotas(capacity, 37, np.random.default_rng(0), draws=400)
    assert (draws.sum(axis=1) == 37).all()
    np.testing.assert_allclose(draws.mean(axis=0), capacity * 37 / 185, atol=0.5)


def test_uniform_samples_of_billions_keep_to_budget_and_capacity() -> None:
    capacity = np.array([30, 10, 0, 5]) * 10**9
    draws = hypergeometric_quotas(capacity, 1000, np.random.default_rng(0), draws=5)
    assert (draws.sum(axis=1) == 1000).all()
    assert (draws[:, 2] == 0).all()
