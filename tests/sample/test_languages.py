"""How languages share a cluster's quota, and what caps leave of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compass_ray.sample.allocation import proportional_quotas
from compass_ray.sample.languages import LanguageRules, capped_quotas, split_by_language, usable


def alike(capacity: np.ndarray) -> np.ndarray:
    """One tier for all languages, and a floor of nothing."""
    return np.zeros(capacity.shape[1], dtype=np.int64)


@st.composite
def pools(draw: st.DrawFn) -> np.ndarray:
    rows, columns = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    cells = draw(st.lists(st.integers(0, 30), min_size=rows * columns, max_size=rows * columns))
    return np.array(cells).reshape(rows, columns)


@settings(max_examples=50)
@given(capacity=pools(), data=st.data(), temperature=st.sampled_from([0.0, 0.3, 0.5, 1.0]))
def test_a_clusters_languages_sum_to_its_quota_within_their_capacity(
    capacity: np.ndarray, data: st.DataObject, temperature: float
) -> None:
    quota = np.array([data.draw(st.integers(0, int(row.sum()))) for row in capacity])
    split = split_by_language(quota, capacity, capacity**temperature * (capacity > 0), alike(capacity))
    assert split.sum(axis=1).tolist() == quota.tolist()
    assert (split >= 0).all()
    assert (split <= capacity).all()


@pytest.mark.parametrize(
    ("temperature", "expected"), [(1.0, [90, 10]), (0.5, [75, 25]), (0.0, [50, 50])], ids=["pool", "root", "equal"]
)
def test_temperature_goes_from_the_pools_shares_to_equal_ones(temperature: float, expected: list[int]) -> None:
    capacity = np.array([[900, 100]])
    assert split_by_language(np.array([100]), capacity, capacity**temperature, alike(capacity)).tolist() == [expected]


def by_mass(capacity: np.ndarray, budget: int) -> np.ndarray:
    """Clusters in proportion to their number, from 1."""
    return proportional_quotas(np.arange(1.0, len(capacity) + 1), capacity, budget)


def quotas(capacity: np.ndarray, budget: int, in_cluster: float, in_budget: list[int]) -> np.ndarray:
    none = alike(capacity)
    return capped_quotas(
        by_mass, capacity, LanguageRules(capacity.astype(float), none, in_cluster, np.array(in_budget), none), budget
    )


@settings(max_examples=200)
@given(capacity=pools(), data=st.data(), in_cluster=st.sampled_from([0.2, 0.34, 0.5, 0.9, 1.0]))
def test_caps_are_kept_and_as_much_is_allocated_as_they_allow(
    capacity: np.ndarray, data: st.DataObject, in_cluster: float
) -> None:
    budget = data.draw(st.integers(0, int(capacity.sum())))
    in_budget = [data.draw(st.integers(0, budget)) for _ in range(capacity.shape[1])]
    found = quotas(capacity, budget, in_cluster, in_budget)
    assert (found >= 0).all()
    assert (found <= capacity).all()
    assert found.sum() <= budget
    assert (found.sum(axis=0) <= in_budget).all()
    assert (found <= np.ceil(in_cluster * found.sum(axis=1, keepdims=True) + 1)).all()
    if in_cluster == 1:
        assert found.sum() >= min(budget, np.minimum(capacity.sum(axis=0), in_budget).max())


def test_without_caps_the_budget_is_met() -> None:
    capacity = np.array([[5, 9], [3, 0], [40, 2]])
    found = quotas(capacity, 50, 1.0, [50, 50])
    assert found.sum() == 50


def test_what_a_capped_language_gives_back_goes_to_the_others() -> None:
    capacity = np.array([[100, 100], [100, 100]])
    found = quotas(capacity, 90, 1.0, [20, 90])
    assert found.sum() == 90
    assert found.sum(axis=0).tolist() == [20, 70]
    assert found.sum(axis=1).tolist() == [30, 60]


def test_a_cluster_of_one_language_takes_no_more_than_its_caps_allow_and_the_others_refill() -> None:
    capacity = np.array([[100, 100], [100, 0]])
    found = quotas(capacity, 60, 0.5, [60, 60])
    assert found.tolist() == [[30, 29], [1, 0]] or found.tolist() == [[29, 30], [1, 0]]


def test_caps_that_leave_too_little_room_allocate_what_they_can() -> None:
    found = quotas(np.array([[10, 10]]), 20, 1.0, [3, 4])
    assert found.tolist() == [[3, 4]]


@settings(max_examples=200)
@given(capacity=pools(), in_cluster=st.sampled_from([0.2, 0.34, 0.5, 0.9]))
def test_a_usable_quota_is_one_that_the_languages_can_fill_within_the_cap(
    capacity: np.ndarray, in_cluster: float
) -> None:
    def fits(row: np.ndarray, quota: int) -> bool:
        return bool(np.minimum(row, np.ceil(in_cluster * quota - 1e-9)).sum() >= quota)

    expected = [max(quota for quota in range(int(row.sum()) + 1) if fits(row, quota)) for row in capacity]
    assert usable(capacity, in_cluster).tolist() == expected


def test_the_largest_quota_may_lie_above_some_that_do_not_fit() -> None:
    assert usable(np.array([[100, 100]]), 0.4).tolist() == [8]  # 5 and 7 do not fit: 2 + 2, 3 + 3
