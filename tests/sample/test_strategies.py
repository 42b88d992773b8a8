"""Every strategy's quotas: within capacity, to the budget, and what each is about."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from compass_ray.configbase import identity
from compass_ray.sample.config import SampleConfig
from compass_ray.sample.gaps import Shares, shares_of
from compass_ray.sample.problem import Problem
from compass_ray.sample.strategies import strategy_of
from compass_ray.sample.traits import TRAITS

CAPACITY = np.array([[30, 10], [0, 0], [5, 0], [100, 40]])
WITHOUT_FEATURES = [name for name in TRAITS if name not in ("langsim",)]


def make_problem(capacity: np.ndarray, *, current: list[int], usage: list[int]) -> tuple[Problem, Shares]:
    """Documents of 10 tokens in the pool and in current data, usage of 3."""
    problem = Problem(
        target_lang="sw",
        languages=("en", "sw"),
        usage=np.array([*usage, 2]),
        heldout=np.array([*usage, 1]),
        current=np.array([*current, 0]),
        capacity=capacity,
        other_usage=np.zeros(len(usage), dtype=np.int64),
        soft_counts=np.array(usage, dtype=np.float64),
        own_soft_counts=np.array(usage, dtype=np.float64),
        current_tokens=10 * np.array([*current, 0]),
        capacity_tokens=10 * capacity,
        usage_tokens=3 * np.array(usage),
        distance=1.0 - np.eye(len(usage)),
    )
    return problem, shares_of(problem)


def quotas(strategy: str, problem: Problem, shares: Shares, **config: Any) -> np.ndarray:
    """The quotas, by default those that fill the budget from whatever clusters have documents."""
    given = {"shortfall": "accept", **config}
    return strategy_of(strategy).quotas(problem, shares, SampleConfig(strategy=strategy, **given))


@pytest.mark.parametrize("strategy", [name for name in WITHOUT_FEATURES if name != "all"])
@pytest.mark.parametrize("current", [[0, 0, 0, 0], [9, 1, 0, 2]], ids=["no current", "current"])
@pytest.mark.parametrize("budget", [1, 50, 184, 185])
def test_every_strategy_meets_the_budget_within_capacity(strategy: str, current: list[int], budget: int) -> None:
    problem, shares = make_problem(CAPACITY, current=current, usage=[30, 5, 10, 1])
    found = quotas(strategy, problem, shares, budget=budget)
    assert found.shape in {(4, 2), (2,), ()}
    assert found.sum() == budget
    assert (found >= 0).all()
    room = {2: CAPACITY, 1: CAPACITY.sum(axis=0), 0: CAPACITY.sum()}[found.ndim]
    assert (found <= room).all()


@pytest.mark.parametrize("strategy", [name for name in WITHOUT_FEATURES if name != "all"])
def test_a_budget_above_the_pool_takes_the_pool(strategy: str) -> None:
    problem, shares = make_problem(CAPACITY, current=[0, 0, 0, 0], usage=[30, 5, 10, 1])
    assert quotas(strategy, problem, shares, budget=1000).sum() == 185


def test_all_is_the_whole_eligible_pool() -> None:
    problem, shares = make_problem(CAPACITY, current=[0, 0, 0, 0], usage=[1, 1, 1, 1])
    assert quotas("all", problem, shares, budget=None) == 185


def test_deficit_gives_nothing_to_a_cluster_that_current_covers() -> None:
    problem, shares = make_problem(np.full((2, 2), 500), current=[90, 10], usage=[50, 50])
    assert quotas("deficit", problem, shares, budget=100).sum(axis=1).tolist() == [0, 100]


def test_unimax_is_equal_over_languages_until_one_is_used_up() -> None:
    problem, shares = make_problem(CAPACITY, current=[0, 0, 0, 0], usage=[1, 1, 1, 1])
    assert quotas("unimax", problem, shares, budget=60).tolist() == [30, 30]
    assert quotas("unimax", problem, shares, budget=120).tolist() == [70, 50]


def test_temperature_weighs_languages_by_size() -> None:
    problem, shares = make_problem(np.array([[80, 20], [10, 0]]), current=[0, 0], usage=[1, 1])
    assert quotas("temperature", problem, shares, budget=14).tolist() == [10, 4]


def test_a_language_cap_holds_in_clusters_and_in_the_budget() -> None:
    problem, shares = make_problem(np.full((2, 2), 500), current=[0, 0], usage=[50, 50])
    found = quotas("kl", problem, shares, budget=100, language_prior="none", max_language_fraction={"en": 0.2})
    assert found.sum(axis=0).tolist() == [20, 80]
    found = quotas("kl", problem, shares, budget=100, max_language_fraction={"swh_Latn": 0.3})
    assert found.sum(axis=0).tolist() == [70, 30]
    found = quotas("kl", problem, shares, budget=100, max_cluster_language_fraction=0.5)
    assert (found == found.sum(axis=1, keepdims=True) / 2).all()


def test_in_tokens_mass_follows_the_length_of_usage() -> None:
    problem, shares = make_problem(np.full((2, 1), 500), current=[0, 0], usage=[60, 60])
    problem = Problem(**{**vars(problem), "usage_tokens": np.array([60 * 30, 60 * 10])})
    found = shares.in_tokens(problem)
    assert found.usage.sum() == pytest.approx(1)
    assert found.usage[0] / found.usage[1] == pytest.approx(3 * shares.usage[0] / shares.usage[1])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"strategy": "dsir", "budget": 5, "max_language_fraction": 0.5}, "needs a strategy with cluster quotas"),
        (
            {"strategy": "nearest", "budget": 5, "similarity_temperature": 0.1},
            "similarity_temperature needs a strategy with",
        ),
        ({"strategy": "langsim", "budget": 5}, "a folder with URIEL's features.npz"),
        ({"budget": 5, "budget_tokens": 5}, "one of budget and budget_tokens"),
        ({}, "one of budget and budget_tokens"),
        ({"strategy": "all", "budget_tokens": 9}, "'all', which takes none"),
        ({"budget": 5, "max_language_fraction": {"sw": 1.5}}, "above 0 and at most at 1"),
        ({"budget": 5, "max_language_fraction": 0}, "above 0 and at most at 1"),
        ({"budget": 5, "max_language_fraction": {"xx_Latn": 0.5}}, "'xx_Latn' is no known language"),
        (
            {"budget": 5, "max_language_fraction": {"en": 0.5, "eng_Latn": 0.4}},
            "'eng_Latn' is 'en', which is there twice",
        ),
        ({"budget": 5, "min_language_fraction": 2}, "min_language_fraction lies above 0 and at most at 1"),
        (
            {"budget": 5, "min_language_fraction": {"en": 0.6}, "max_language_fraction": {"eng_Latn": 0.5}},
            "min_language_fraction asks for 0.6 of 'en', and max_language_fraction allows 0.5",
        ),
        ({"budget": 5, "min_language_fraction": {"en": 0.6, "sw": 0.5}}, "the shares of all languages sum to 1.1"),
        ({"budget": 5, "strategy": "random", "min_language_fraction": 0.5}, "needs a strategy with cluster quotas"),
        ({"budget": 5, "strategy": "random", "language_prior": "near"}, "needs a strategy with cluster quotas"),
        ({"budget": 5, "strategy": "dsir", "shortfall": "stop"}, "shortfall is refuse or accept under 'dsir'"),
        ({"budget": 5, "max_copies": 0}, "a whole number of 1 or more, or 'off'"),
        ({"budget": 5, "max_copies": True}, "a whole number of 1 or more, or 'off'"),
        ({"budget": 5, "transport_reach": 1.5}, "less than or equal to 1"),
        ({"budget": 5, "similarity_temperature": 0}, "a number above 0, or 'off'"),
        ({"budget": 5, "similarity_temperature": True}, "a number above 0, or 'off'"),
        ({"budget": 5, "similarity_temperature": "warm"}, "a number above 0, or 'off'"),
    ],
)
def test_fields_that_a_strategy_cannot_keep_to_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        SampleConfig(**fields)


def test_off_is_off_however_yaml_reads_it_and_stays_so_in_an_identity() -> None:
    for off in ("off", False):
        config = SampleConfig(budget=5, similarity_temperature=off)  # type: ignore[arg-type]
        assert config.similarity_temperature == "off"
        assert SampleConfig.model_validate(identity(config)) == config
    assert SampleConfig(budget=5, similarity_temperature="0.2").similarity_temperature == 0.2  # type: ignore[arg-type]
