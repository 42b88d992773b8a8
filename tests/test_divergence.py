"""Jensen–Shannon divergence in bits, and what a finite sample adds to it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from compass_ray.divergence import jsd


@st.composite
def pairs(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    bins = draw(st.integers(1, 12))
    counts = st.lists(st.integers(0, 1000), min_size=bins, max_size=bins).filter(any)
    p, q = np.array(draw(counts)), np.array(draw(counts))
    return p / p.sum(), q / q.sum()


@given(pair=pairs())
def test_the_divergence_lies_between_zero_and_one_and_is_symmetric(pair: tuple[np.ndarray, np.ndarray]) -> None:
    p, q = pair
    assert 0 <= jsd(p, q) <= 1
    assert float(jsd(p, q)) == pytest.approx(float(jsd(q, p)), abs=1e-15)


@given(pair=pairs())
def test_the_divergence_is_zero_between_equals_only(pair: tuple[np.ndarray, np.ndarray]) -> None:
    p, q = pair
    assert jsd(p, p) == 0
    assert (jsd(p, q) > 0) == (np.abs(p - q).max() > 1e-6)


@given(pair=pairs())
def test_it_is_the_square_of_scipys_distance_in_base_two(pair: tuple[np.ndarray, np.ndarray]) -> None:
    p, q = pair
    assert float(jsd(p, q)) == pytest.approx(float(np.nan_to_num(jensenshannon(p, q, base=2))) ** 2, abs=1e-9)


@pytest.mark.parametrize(
    ("p", "q", "bits"),
    [
        ([1, 0], [0, 1], 1.0),
        ([0.25, 0.75], [0.25, 0.75], 0.0),
        # mixture (¾, ¼): ½·log2(4/3) + ½·(½·log2(2/3) + ½·log2 2) = 0.2075187 + 0.1037594
        ([1, 0], [0.5, 0.5], 0.3112781),
        ([0.5, 0.5, 0, 0], [0, 0, 0.5, 0.5], 1.0),
    ],
)
def test_by_hand_in_bits(p: list[float], q: list[float], bits: float) -> None:
    assert float(jsd(np.array(p), np.array(q))) == pytest.approx(bits, abs=1e-7)


def test_leading_axes_broadcast() -> None:
    rng = np.random.default_rng(0)
    many, one = rng.dirichlet(np.ones(5), size=(3, 4)), rng.dirichlet(np.ones(5))
    values = jsd(many, one)
    assert values.shape == (3, 4)
    assert values[1, 2] == jsd(many[1, 2], one)
