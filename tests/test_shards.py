"""Logical shards: a function of the input alone, and sums that add up in any order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from compass_ray import shards


@given(input_bytes=st.integers(0, 1 << 50), shard_bytes=st.integers(1 << 10, 1 << 30))
def test_the_shard_count_is_the_smallest_power_of_two_that_fits(input_bytes: int, shard_bytes: int) -> None:
    count = shards.shard_count(input_bytes, shard_bytes)
    assert count & (count - 1) == 0
    assert 1 <= count <= shards.MAX_SHARDS
    if count < shards.MAX_SHARDS:
        assert count * shard_bytes >= input_bytes
    if count > 1:
        assert count // 2 * shard_bytes < input_bytes


@pytest.mark.parametrize(("size", "count"), [(0, 1), (1, 1), (64, 1), (65, 2), (128, 2), (129, 4), (10**12, 65536)])
def test_shard_counts_at_the_edges(size: int, count: int) -> None:
    assert shards.shard_count(size, 64) == count


def test_the_shard_is_the_high_bits_of_the_content_hash() -> None:
    ids = np.zeros((3, 16), dtype=np.uint8)
    ids[:, 0], ids[:, 1], ids[:, 2:] = [0b1010_0000, 0xFF, 0x00], [0b1100_0000, 0xFF, 0x01], 0xEE
    assert shards.shard_of(ids, 1).tolist() == [0, 0, 0]
    assert shards.shard_of(ids, 8).tolist() == [0b101, 7, 0]
    assert shards.shard_of(ids, 1 << 10).tolist() == [0b10_1000_0011, 1023, 0]
    assert shards.shard_of(ids, shards.MAX_SHARDS).tolist() == [0xA0C0, 0xFFFF, 1]


@given(
    ids=npst.arrays(np.uint8, st.tuples(st.integers(0, 20), st.just(16))),
    bits=st.integers(0, 15),
)
def test_doubling_the_shards_splits_every_shard_in_two(ids: np.ndarray, bits: int) -> None:
    coarse, fine = shards.shard_of(ids, 1 << bits), shards.shard_of(ids, 2 << bits)
    assert (fine >> 1).tolist() == coarse.tolist()
    assert ((coarse >= 0) & (coarse < 1 << bits)).all()


def test_shards_of_hashed_content_are_of_equal_size() -> None:
    ids = np.random.default_rng(0).integers(0, 256, (64_000, 16), dtype=np.uint8)
    sizes = np.bincount(shards.shard_of(ids, 64), minlength=64)
    assert abs(sizes - 1000).max() < 200


def test_shard_keys_sort_as_their_numbers() -> None:
    assert shards.shard_keys(3) == ["00000", "00001", "00002"]
    keys = shards.shard_keys(shards.MAX_SHARDS)
    assert keys == sorted(keys)
    assert keys[-1] == "65535" == shards.shard_key(65535)


PARTIALS = st.lists(
    npst.arrays(np.float64, 5, elements=st.floats(-1, 1, allow_subnormal=False)), min_size=1, max_size=12
)


@given(partials=PARTIALS, data=st.data())
def test_fixed_point_sums_have_the_same_bits_in_any_order_and_grouping(
    partials: list[np.ndarray], data: st.DataObject
) -> None:
    fixed = [shards.to_fixed(partial) for partial in partials]
    order = data.draw(st.permutations(range(len(fixed))))
    cut = data.draw(st.integers(0, len(fixed)))
    zero = np.zeros(5, dtype=np.int64)
    left, right = (sum((fixed[i] for i in part), zero) for part in (order[:cut], order[cut:]))
    expected = shards.from_fixed(sum(fixed, zero))
    assert shards.from_fixed(right + left).tobytes() == expected.tobytes()


def test_the_same_sums_in_floating_point_do_depend_on_grouping() -> None:
    """Why fixed point is there: without it this project's guarantee would not hold."""
    values = np.random.default_rng(0).random(1000)
    assert values.sum() != sum(values[::-1].tolist())
    forward = sum(shards.to_fixed(values).tolist())
    assert forward == sum(shards.to_fixed(values)[::-1].tolist())


@given(values=npst.arrays(np.float64, 8, elements=st.floats(-1000, 1000)))
def test_fixed_point_is_exact_to_half_a_unit(values: np.ndarray) -> None:
    error = np.abs(shards.from_fixed(shards.to_fixed(values)) - values)
    assert error.max() <= 2.0**-53 + 1000 * 2.0**-53  # rounding of the fixed value, and of float64 above 2


def test_fixed_point_of_a_small_weight_is_exact_to_2_to_the_minus_53() -> None:
    weight = np.array([1 / 3 * 1e-9])
    assert abs(shards.from_fixed(shards.to_fixed(weight)) - weight)[0] <= 2.0**-53
