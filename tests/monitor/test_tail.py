"""P-values below what permutations can show: near those of far more permutations, and never too small."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import chi, norm

from compass_ray.divergence import jsd
from compass_ray.monitor.tail import permutation_p_value

DRAWS = 4_999


def distances(rng: np.random.Generator, together: NDArray[np.int64], size: int, draws: int) -> NDArray[np.float64]:
    """Jensen-Shannon distances of counts that were permuted between two usages."""
    windows = rng.multivariate_hypergeometric(together, size, size=draws, method="marginals")
    return np.sqrt(jsd((together - windows) / (together.sum() - size), windows / size))


def test_what_permutations_found_too_has_their_share() -> None:
    null = np.arange(999.0)
    assert permutation_p_value(null, 998.0) == 2 / 1000
    assert permutation_p_value(null, -1.0) == 1
    assert permutation_p_value(np.zeros(199), 1.0) == 1 / 200  # too few for a tail


@pytest.mark.parametrize(
    ("together", "size"),
    [([60, 40], 40), ([150, 100, 50], 100), ([190, 100, 60, 50, 40, 30], 150), ([15] * 40, 285), ([18, 10, 7], 15)],
)
def test_the_tail_is_near_that_of_a_million_permutations_and_not_below_it(together: list[int], size: int) -> None:
    rng = np.random.default_rng(0)
    counts = np.array(together)
    many = np.sort(np.concatenate([distances(rng, counts, size, 100_000) for _ in range(10)]))
    for share in (1e-4, 1e-5):
        found = many[-int(share * len(many))]
        truth = np.mean(many >= found - 1e-12)
        told = [permutation_p_value(distances(rng, counts, size, DRAWS), found) for _ in range(20)]
        fitted = [value for value in told if value < 1 / (DRAWS + 1)]
        assert np.median(told) >= truth
        assert not fitted or truth / 2 <= min(fitted) <= max(fitted) <= 20 * truth


@pytest.mark.parametrize("null", [norm(), chi(1), chi(5), chi(100)])
def test_the_fall_is_slower_than_that_of_normal_and_chi_statistics(null: object) -> None:
    quantiles = null.isf((np.arange(DRAWS) + 0.5) / DRAWS)  # type: ignore[attr-defined]
    for p_value in (1e-5, 1e-7, 1e-9):
        told = permutation_p_value(quantiles, float(null.isf(p_value)))  # type: ignore[attr-defined]
        assert p_value < told < 1 / (DRAWS + 1)
        assert told < p_value**0.6


def test_a_statistic_of_few_values_has_no_steep_tail_by_their_ties() -> None:
    """4,994 of 4,999 found one of two values, the larger of them a thousand times."""
    null = np.repeat([0.0, 1.0, 1.1], [3994, 1000, 5])
    assert permutation_p_value(null, 1.3) > 0.01 * 1 / 5000
    assert permutation_p_value(np.ones(DRAWS), 2.0) == 1 / (DRAWS + 1)
