"""The divergence of two usages from samples of them: its test, its interval, and documents far from every cluster."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import fisher_exact

from compass_ray.divergence import contributions, jsd
from compass_ray.monitor.drift import novelty, shift

K = 40


def zipf(n: int = K) -> NDArray[np.float64]:
    shares = 1 / np.arange(1, n + 1)
    return shares / shares.sum()


def moved(amount: float, n: int = K) -> NDArray[np.float64]:
    """Usage of which a part has gone to the rare end."""
    return (1 - amount) * zipf(n) + amount * zipf(n)[::-1]


def generator(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_samples_of_one_usage_are_far_apart_and_rarely_called_different() -> None:
    """285 documents each over 100 flat clusters: about 0.14 bits, of which none are real."""
    rng = generator(0)
    plugins, p_values, lows = [], [], []
    for _ in range(60):
        one, other = rng.multinomial(285, np.full(100, 0.01), size=2)
        found = shift(one, other, rng)
        plugins.append(found.plugin)
        p_values.append(found.p_value)
        lows.append(found.low)
    assert 0.12 < np.mean(plugins) < 0.16
    assert np.mean(np.array(p_values) <= 0.05) <= 0.15  # 9 of 60 happen once in a thousand times at a level of 0.05
    assert np.mean(np.array(lows) > 0.01) <= 0.05


@pytest.mark.parametrize("amount", [0.1, 0.3, 0.6])
def test_the_interval_holds_the_divergence_of_the_usages_that_samples_were_drawn_from(amount: float) -> None:
    truth = float(jsd(zipf(), moved(amount)))
    rng = generator(1)
    found = [shift(rng.multinomial(1000, zipf()), rng.multinomial(400, moved(amount)), rng) for _ in range(40)]
    assert np.mean([one.low <= truth <= one.high for one in found]) >= 0.85
    assert np.mean([one.low > truth for one in found]) <= 0.1
    assert np.mean([one.jsd for one in found]) == pytest.approx(truth, rel=0.15, abs=0.004)


def test_the_larger_a_change_the_smaller_its_p_value_below_what_permutations_show() -> None:
    found = [
        shift(generator(2).multinomial(500, zipf()), generator(3).multinomial(500, moved(amount)), generator(4))
        for amount in (0.3, 0.5, 0.8)
    ]
    assert 1 / 5000 > found[0].p_value > 1e4 * found[1].p_value > 1e8 * found[2].p_value > 0
    assert found[-1].low > 0.1


def test_between_the_first_draws_and_the_tail_the_p_value_is_that_of_more_draws() -> None:
    before, now = np.array([190, 100, 60, 50, 40, 30]), np.array([30, 30, 22, 23, 23, 22])
    rng, together = generator(0), before + now
    windows = rng.multivariate_hypergeometric(together, now.sum(), size=1_000_000, method="marginals")
    found = shift(before, now, generator(0))
    null = jsd((together - windows) / before.sum(), windows / now.sum())
    truth = np.mean(null >= found.plugin - 1e-12)
    assert 1e-5 < truth < 1e-4
    assert found.p_value == pytest.approx(truth, rel=0.7)
    assert found.p_value != pytest.approx(1 / 5000)


def test_the_p_value_is_never_below_the_probability_of_the_counts_themselves() -> None:
    """Seven documents of each: in one of 3,432 orders all of the one come first."""
    found = shift(np.array([7, 0]), np.array([0, 7]), generator(5))
    assert found.p_value >= 1 / 3432
    found = shift(np.array([9, 0, 0]), np.array([0, 9, 1]), generator(5))
    assert found.p_value >= 2 / 92378


def test_a_billion_documents_are_judged_as_a_million_are() -> None:
    shares = np.array([0.4, 0.3, 0.2, 0.09, 0.0, 0.01])
    others = np.array([0.1, 0.1, 0.1, 0.1, 0.58, 0.02])
    many, few = ([(share * 10**size).astype(np.int64) for share in (shares, others)] for size in (9, 6))
    large, small = shift(*many, generator(0)), shift(*few, generator(0))
    assert large.plugin == pytest.approx(small.plugin, abs=1e-6)
    assert small.low < large.low <= large.jsd <= large.high < small.high
    assert 0 < large.p_value < 1e-100
    assert shift(many[0], many[0], generator(0)).p_value == 1
    assert 0 < shift(many[0], few[1] // 1000, generator(0)).p_value < 1e-10
    rise = novelty(*many)
    assert (rise.share, rise.reference) == pytest.approx((0.02, 0.01))
    assert rise.p_value < 1e-100
    assert novelty(many[0], many[0]).p_value == pytest.approx(0.5, abs=1e-3)
    assert novelty(many[1], many[0]).p_value == pytest.approx(1)


def test_usages_with_no_cluster_in_common_are_one_bit_apart() -> None:
    found = shift(np.array([400, 300, 0, 0]), np.array([0, 0, 200, 100]), generator(5))
    assert found.plugin == pytest.approx(1)
    assert 0.9 < found.low < found.jsd <= found.high <= 1


def test_few_documents_with_no_cluster_in_common_leave_much_open() -> None:
    found = shift(np.array([4, 3, 0, 0, 0, 0]), np.array([0, 0, 0, 2, 1, 0]), generator(7))
    assert found.plugin == pytest.approx(1)
    assert found.low < 0.9
    assert found.high > 0.9


def test_the_same_counts_are_no_distance_apart() -> None:
    counts = generator(6).multinomial(700, zipf())
    found = shift(counts, counts, generator(7))
    assert (found.plugin, found.low, found.jsd) == (0, 0, 0)
    assert found.p_value == 1


def test_the_same_generator_gives_the_same_answer() -> None:
    one, other = generator(8).multinomial(300, zipf(), size=2)
    assert shift(one, other, generator(9)) == shift(one, other, generator(9))


@settings(max_examples=40, deadline=None)
@given(
    pair=st.integers(3, 12).flatmap(lambda n: st.tuples(*[st.lists(st.integers(0, 60), min_size=n, max_size=n)] * 2))
)
def test_whatever_the_counts_the_interval_is_ordered_and_within_zero_and_one(pair: tuple[list[int], list[int]]) -> None:
    one, other = (np.array(values) + np.eye(len(values), dtype=np.int64)[0] for values in pair)
    found = shift(one, other, generator(0))
    assert 0 <= found.low <= found.jsd <= found.high <= 1
    assert 0 < found.p_value <= 1
    bits = contributions(one / one.sum(), other / other.sum())
    assert bits.sum() == pytest.approx(found.plugin, abs=1e-12)
    assert (bits >= -1e-15).all()


@given(far_before=st.integers(0, 40), far_now=st.integers(0, 40))
def test_novelty_is_fishers_exact_test(far_before: int, far_now: int) -> None:
    before, now = np.array([400, 50, far_before]), np.array([150, 60, far_now])
    expected = fisher_exact([[far_now, 210], [far_before, 450]], alternative="greater")
    found = novelty(before, now)
    assert found.p_value == pytest.approx(expected.pvalue, rel=1e-6)
    assert found.low <= found.share - found.reference


def test_the_rise_of_documents_far_from_every_cluster_has_newcombes_interval() -> None:
    """His example (1998, table II, case a): 56 of 70 against 48 of 80 differ by 0.2, and surely by 0.0524."""
    found = novelty(np.array([32, 48]), np.array([14, 56]))
    assert found.share - found.reference == pytest.approx(0.2)
    assert found.low == pytest.approx(0.0524, abs=1e-4)
