"""How sure a mean gain is: intervals hold what they say, for few documents, blocks of unequal size and skewed gains."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from compass_ray.gate.comparison import Comparison, compare

Sample = tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]

RUNS = 400


def sample(rng: np.random.Generator, documents: int, blocks: int, kind: str, weighted: bool) -> Sample:
    """Gains of mean 0, weights and blocks; blocks are of unequal size, and documents of one are alike."""
    block = np.arange(documents)
    common = np.zeros(documents)
    if blocks:
        sizes = np.arange(1, blocks + 1) ** 1.5
        block = np.repeat(np.arange(blocks), np.maximum(1, np.round(sizes / sizes.sum() * documents)).astype(int))
        common = 0.5 * rng.standard_normal(blocks)[block]
    noise = rng.standard_normal(len(block)) if kind == "normal" else rng.exponential(1, len(block)) - 1
    weights = rng.choice([0.3, 1.0, 3.0], len(block), p=[0.4, 0.4, 0.2]) if weighted else np.ones(len(block))
    return common + noise, weights, block


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("kind", ["normal", "skewed"])
@pytest.mark.parametrize(("documents", "blocks"), [(30, 0), (60, 0), (200, 0), (30, 10), (60, 10), (200, 10)])
def test_intervals_hold_the_truth_as_often_as_they_say(documents: int, blocks: int, kind: str, weighted: bool) -> None:
    held = above = 0
    for number in range(RUNS):
        rng = np.random.default_rng(number)
        found = compare(*sample(rng, documents, blocks, kind, weighted), number, resamples=400)
        held += found.low <= 0 <= found.high
        above += found.low > 0
    assert held / RUNS >= 0.93
    assert above / RUNS <= 0.05, "a candidate that is no better would pass"


def test_intervals_are_not_wider_than_they_need_be() -> None:
    rng = np.random.default_rng(0)
    found = compare(rng.standard_normal(400), np.ones(400), np.arange(400), 0)
    assert found.high - found.low == pytest.approx(2 * 1.96 / 20, rel=0.1)
    assert found.low < found.mean < found.high
    assert (found.documents, found.blocks, found.effective) == (400, 400, pytest.approx(400))


def test_documents_that_came_together_say_less_than_as_many_alone() -> None:
    rng = np.random.default_rng(0)
    gains, weights, block = sample(rng, 200, 10, "normal", False)
    together, alone = (compare(gains, weights, blocks, 0) for blocks in (block, np.arange(len(block))))
    assert together.mean == pytest.approx(alone.mean)
    assert together.high - together.low > 2 * (alone.high - alone.low)
    assert (together.documents, together.blocks) == (len(block), 10)


@pytest.mark.parametrize("gain", [0.0, 0.1, 0.3, -0.2])
def test_gains_that_are_all_alike_prove_nothing(gain: float) -> None:
    noise = np.random.default_rng(0).normal(0, 1e-12, 60)
    found = compare(gain + noise, np.ones(60), np.arange(60), 0)
    assert (found.low, found.high, found.p_worse) == (-math.inf, math.inf, 1.0)
    assert found.mean == pytest.approx(gain, abs=1e-9)
    assert not found.is_bounded
    assert (found.to_json()["low"], found.to_json()["high"]) == (None, None)


@pytest.mark.parametrize("blocks", [1, 2, 3])
def test_a_few_blocks_bound_nothing_however_many_documents_they_hold(blocks: int) -> None:
    rng = np.random.default_rng(0)
    found = compare(1 + 0.01 * rng.standard_normal(300), np.ones(300), np.arange(300) % blocks, 0)
    assert not found.is_bounded


def test_one_document_that_weighs_more_than_all_others_is_not_taken_for_many() -> None:
    weights = np.ones(60)
    weights[0] = 500
    passed = 0
    for number in range(100):
        found = compare(np.random.default_rng(number).standard_normal(60), weights, np.arange(60), 0, resamples=400)
        assert found.effective < 1.3
        passed += found.low > 0
    assert passed <= 5


def test_the_p_value_says_whether_the_mean_is_below_the_threshold() -> None:
    rng = np.random.default_rng(0)
    gains = rng.standard_normal(200) / 10 - 0.1
    p_values = [
        compare(gains, np.ones(200), np.arange(200), 0, threshold=threshold).p_worse for threshold in (-0.2, -0.1, 0.0)
    ]
    assert p_values[0] > 0.99
    assert 0.05 < p_values[1] < 0.95
    assert p_values[2] == pytest.approx(1 / 10_001)


def test_draws_follow_from_the_seed_and_from_what_is_compared() -> None:
    gains, weights, block = sample(np.random.default_rng(0), 60, 10, "skewed", True)
    one = compare(gains, weights, block, 1, "new_usage")
    assert one == compare(gains, weights, block, 1, "new_usage")
    assert one != compare(gains, weights, block, 2, "new_usage")
    assert one != compare(gains, weights, block, 1, "former_usage")


@given(
    gains=st.lists(st.floats(-2, 2), min_size=3, max_size=40),
    factor=st.sampled_from([0.5, 2.0, 8.0]),
    moved=st.floats(-1, 1),
)
@settings(max_examples=40, deadline=None)
def test_the_interval_moves_with_the_gains_and_does_not_know_the_scale_of_weights(
    gains: list[float], factor: float, moved: float
) -> None:
    def interval(values: NDArray[np.float64], weight: float) -> Comparison:
        return compare(values, np.full(len(values), weight), np.arange(len(values)), 0, resamples=400)

    values = np.array(gains)
    one = interval(values, 1.0)
    assert interval(values, factor) == one
    assert one.low <= one.mean <= one.high
    if one.is_bounded and np.ptp(values) > 1e-3:
        other = interval(values + moved, 1.0)
        for end in ("mean", "low", "high"):
            assert getattr(other, end) == pytest.approx(getattr(one, end) + moved, abs=1e-4)
