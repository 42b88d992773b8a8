"""Replay is drawn by the clusters that usage asks for, whatever the buffer holds of them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray.adapt.examples import Example
from compass_ray.adapt.packing import make_packs
from compass_ray.update.buffer import document_weights, pack_chances


def clusters(numbers: list[int | None]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(numbers, pa.int32())])


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.lists(st.floats(0.01, 1), min_size=4, max_size=4))
def test_each_cluster_of_the_buffer_has_its_share_of_usage(numbers: list[int], shares: list[float]) -> None:
    weights = document_weights(clusters([*numbers]), np.array(shares))
    there = sorted(set(numbers))
    found = np.array([weights[np.array(numbers) == number].sum() for number in there])
    wanted = np.array(shares)[there]
    assert found == pytest.approx(wanted / wanted.sum())
    for number in there:
        assert np.ptp(weights[np.array(numbers) == number]) == 0


def test_outliers_and_documents_of_no_cluster_weigh_as_others_do_on_average() -> None:
    weights = document_weights(clusters([0, 0, 1, 2, None]), np.array([0.6, 0.4]))
    assert weights[3] == weights[4] == pytest.approx(weights[:3].mean())
    assert weights.sum() == pytest.approx(1)


@pytest.mark.parametrize("shares", [[0.0, 0.0], [0.0, 1.0]])
def test_where_usage_lies_in_no_cluster_of_the_buffer_all_weigh_the_same(shares: list[float]) -> None:
    assert document_weights(clusters([0, 0, 2, None]), np.array(shares)).tolist() == [0.25] * 4


def test_a_pack_is_drawn_as_often_as_its_documents_together() -> None:
    def example(length: int) -> Example:
        return Example(np.arange(length, dtype=np.int32), np.ones(length, dtype=bool), length, False)

    packs = make_packs([example(5), example(3), example(4), example(2)], 8)
    weights = np.array([0.1, 0.2, 0.3, 0.4])
    found = pack_chances(packs, weights)
    assert found.sum() == pytest.approx(1)
    assert found.tolist() == [pytest.approx(weights[packs.documents_of(pack)].sum()) for pack in range(len(packs))]
