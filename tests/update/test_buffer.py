"""Replay is drawn by the clusters that usage asks for, whatever the buffer holds of them."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray.adapt.examples import Example
from compass_ray.update.buffer import _packs_by_cluster, cluster_numbers, cluster_weights, pack_chances


def clusters(numbers: list[int | None]) -> pa.ChunkedArray:
    return pa.chunked_array([pa.array(numbers, pa.int32())])


@given(st.lists(st.integers(0, 3), min_size=1, max_size=30), st.lists(st.floats(0.01, 1), min_size=4, max_size=4))
def test_a_cluster_of_the_buffer_is_replayed_as_often_as_usage_lies_there(
    numbers: list[int], shares: list[float]
) -> None:
    weights = cluster_weights(np.array(numbers), np.array(shares))
    there = sorted(set(numbers))
    wanted = np.array(shares)[there]
    assert weights[there] == pytest.approx(wanted / wanted.sum())
    assert weights.sum() == pytest.approx(1)


def test_outliers_have_the_part_that_they_are_of_the_buffer() -> None:
    numbers = cluster_numbers(clusters([0, 0, 1, 2, None]), 2)
    assert numbers.tolist() == [0, 0, 1, 2, 2]
    assert cluster_weights(numbers, np.array([0.6, 0.4])).tolist() == pytest.approx([0.36, 0.24, 0.4])


@pytest.mark.parametrize("shares", [[0.0, 0.0], [0.0, 1.0]])
def test_where_usage_lies_in_no_cluster_of_the_buffer_all_count_as_they_are_there(shares: list[float]) -> None:
    assert cluster_weights(np.array([0, 0, 2, 2]), np.array(shares)).tolist() == [0.5, 0.0, 0.5]


@pytest.mark.parametrize("packing", [True, False])
def test_a_pack_holds_one_cluster_and_documents_are_drawn_as_usage_asks(packing: bool) -> None:
    def example(length: int) -> Example:
        return Example(np.arange(length, dtype=np.int32), np.ones(length, dtype=bool), length, False)

    numbers = np.array([1, 0, 1, 1, 1, 1, 2])
    examples = [example(length) for length in (5, 3, 4, 2, 1, 3, 2)]
    packs, of_cluster = _packs_by_cluster(examples, numbers, 8, packing)
    assert sorted(packs.documents.tolist()) == list(range(7))
    for pack, cluster in enumerate(of_cluster.tolist()):
        members = packs.documents_of(pack)
        assert set(numbers[members].tolist()) == {cluster}
        tokens = packs.tokens[packs.starts[pack] : packs.starts[pack + 1]]
        assert tokens.tolist() == [token for member in members for token in examples[member].tokens.tolist()]
    chances = pack_chances(of_cluster, cluster_weights(numbers, np.array([0.9, 0.1])))
    by_cluster = [chances[of_cluster == cluster].sum() for cluster in range(3)]
    assert by_cluster == pytest.approx([0.9 * 6 / 7, 0.1 * 6 / 7, 1 / 7])
