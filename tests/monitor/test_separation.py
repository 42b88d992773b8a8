"""What a classifier of vectors says of two usages: nothing where they are one, and how far apart they are else."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from compass_ray.monitor.separation import Separation, separation
from compass_ray.vectors import unit_rows

DIM = 24


def usage(rng: np.random.Generator, documents: int, moved: float = 0.0) -> NDArray[np.float32]:
    """Vectors around a few topics, moved along one direction."""
    topics = np.random.default_rng(7).standard_normal((6, DIM))
    x = topics[rng.integers(6, size=documents)] + rng.standard_normal((documents, DIM))
    x[:, 0] += moved
    return unit_rows(x)


def found(seed: int, reference: int, new: int, moved: float = 0.0) -> Separation:
    rng = np.random.default_rng(seed)
    return separation(usage(rng, reference), usage(rng, new, moved), rng)


def test_where_nothing_has_moved_the_test_is_significant_as_often_as_it_says() -> None:
    p_values = np.array([found(seed, 60, 40).p_value for seed in range(300)])
    for level in (0.05, 0.1, 0.2):
        assert norm.sf((np.mean(p_values <= level) - level) / np.sqrt(level * (1 - level) / 300)) > 0.001
    assert abs(np.mean([found(seed, 60, 40).auc for seed in range(100)]) - 0.5) < 0.02


def test_the_further_usage_has_moved_the_better_it_is_told_apart() -> None:
    some = [found(1, 300, 200, moved) for moved in (0.0, 0.5, 1.0, 2.0)]
    assert [one.auc for one in some] == sorted(one.auc for one in some)
    assert some[0].p_value > 0.05
    assert some[3].p_value < some[2].p_value < 1 / 5000
    assert some[0].low < 0.5 < 0.7 < some[3].low
    for one in some:
        assert 0 <= one.low < one.auc < one.high <= 1


def test_the_interval_holds_the_auc_that_so_many_documents_let_a_classifier_reach() -> None:
    for moved in (0.0, 1.0):
        several = [found(seed, 80, 60, moved) for seed in range(60)]
        expected = np.mean([one.auc for one in several])
        held = np.mean([one.low <= expected <= one.high for one in several])
        assert held >= 0.9, (moved, held)


def test_vectors_that_are_all_the_same_say_nothing() -> None:
    x = np.tile(unit_rows(np.ones((1, DIM))), (30, 1)).astype(np.float16)
    same = separation(x[:20], x[20:], np.random.default_rng(0))
    assert (same.auc, same.p_value) == (0.5, 1.0)


def test_usages_without_anything_in_common_are_told_apart_for_certain() -> None:
    rng = np.random.default_rng(0)
    x, y = usage(rng, 100), usage(rng, 60)
    x[:, 1], y[:, 1] = 5, -5
    apart = separation(unit_rows(x), unit_rows(y), rng)
    assert (apart.auc, apart.high) == (1.0, 1.0)
    assert apart.p_value < 1e-6
    assert apart.low > 0.8


def test_few_documents_and_lopsided_ones_give_an_answer() -> None:
    for reference, new in ((10, 10), (2000, 10), (10, 300)):
        one = found(3, reference, new)
        assert 0 < one.p_value <= 1
        assert np.isfinite([one.auc, one.low, one.high]).all()


def test_the_same_vectors_and_seed_give_the_same_answer_in_half_precision_too() -> None:
    rng = np.random.default_rng(5)
    x, y = usage(rng, 80).astype(np.float16), usage(rng, 50, 0.5).astype(np.float16)
    first, second = (separation(x, y, np.random.default_rng(1)) for _ in range(2))
    assert first == second
    assert separation(x, y, np.random.default_rng(2)) != first  # other folds, other permutations
