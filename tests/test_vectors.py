"""Unit vectors, and their way through Arrow columns."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from compass_ray.vectors import from_column, to_column, unit_rows

ordinary = st.floats(-1e6, 1e6, width=32).map(lambda value: 0.0 if abs(value) < 1e-6 else value)
half = npst.arrays(
    np.float16, npst.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=6), elements=st.floats(-1, 1, width=16)
)


@given(npst.arrays(np.float32, st.tuples(st.integers(0, 6), st.integers(1, 5)), elements=ordinary))
def test_rows_get_length_one_and_keep_their_direction(rows: np.ndarray) -> None:
    before = rows.copy()
    units = unit_rows(rows)
    np.testing.assert_array_equal(rows, before)
    assert (units.dtype, units.shape) == (np.float32, rows.shape)
    np.testing.assert_allclose(np.linalg.norm(units, axis=1), 1, atol=1e-6)
    lengths = np.linalg.norm(rows.astype(np.float64), axis=1)
    live = lengths > 0
    np.testing.assert_allclose(units[live] * lengths[live, None], rows[live], rtol=1e-5, atol=1e-6)


def test_zero_rows_become_the_first_unit_vector() -> None:
    np.testing.assert_array_equal(unit_rows(np.zeros((2, 3))), [[1, 0, 0], [1, 0, 0]])


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_any_float_comes_out_as_float32(dtype: type) -> None:
    units = unit_rows(np.array([[3, 4], [0, 0]], dtype=dtype))
    np.testing.assert_array_equal(units, np.array([[0.6, 0.8], [1, 0]], np.float32))
    assert units.dtype == np.float32


def test_scaling_a_row_by_a_power_of_two_changes_no_bit() -> None:
    rows = np.random.default_rng(0).normal(size=(20, 7)).astype(np.float32)
    assert unit_rows(rows).tobytes() == unit_rows(rows * 1024).tobytes()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite_stay_so_and_harm_no_other(value: float) -> None:
    units = unit_rows(np.array([[value, 1], [3, 4]], dtype=np.float32))
    assert not np.isfinite(units[0]).all()
    np.testing.assert_array_equal(units[1], np.array([0.6, 0.8], np.float32))


@pytest.mark.parametrize("value", [3e38, 1e-44])
def test_the_largest_and_the_smallest_floats_get_length_one_too(value: float) -> None:
    units = unit_rows(np.array([[value, value]], dtype=np.float32))
    np.testing.assert_allclose(units, [[0.5**0.5, 0.5**0.5]], atol=1e-6)


@given(half)
def test_a_column_gives_back_the_vectors_it_was_made_of(vectors: np.ndarray) -> None:
    column = to_column(vectors)
    assert column.type == pa.list_(pa.float16(), vectors.shape[1])
    back = from_column(pa.chunked_array([column]))
    assert back.dtype == np.float16
    np.testing.assert_array_equal(back, vectors)


@given(half, st.data())
def test_slices_and_chunks_of_a_column_read_right(vectors: np.ndarray, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(vectors) - 1))
    column = to_column(vectors)
    chunked = pa.chunked_array([column.slice(0, start), column.slice(start)])
    np.testing.assert_array_equal(from_column(chunked), vectors)
    np.testing.assert_array_equal(from_column(chunked.slice(start)), vectors[start:])


def test_a_column_without_rows_reads_as_no_vectors_of_the_right_length() -> None:
    empty = to_column(np.empty((0, 4), np.float32))
    assert from_column(pa.chunked_array([empty])).shape == (0, 4)
    assert from_column(pa.chunked_array([], type=empty.type)).shape == (0, 4)


def test_all_rows_filtered_away_read_as_no_vectors() -> None:
    table = pa.table({"vector": to_column(np.eye(4))})
    assert from_column(table.filter(pa.array([False] * 4))["vector"]).shape == (0, 4)


def test_missing_rows_are_null_and_the_others_stay_in_place() -> None:
    vectors = np.array([[np.nan, 1], [3, 4], [0, 1]], dtype=np.float32)
    column = to_column(vectors, missing=np.array([True, False, False]))
    assert column.to_pylist() == [None, [3, 4], [0, 1]]
    kept = pa.chunked_array([column]).drop_null()
    np.testing.assert_array_equal(from_column(kept), [[3, 4], [0, 1]])
