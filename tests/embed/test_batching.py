"""Batches: every text once, never larger than allowed, and a function of the token counts alone."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray.embed.batching import token_batches

counts = st.lists(st.integers(0, 300), max_size=60).map(lambda values: np.array(values, dtype=np.int32))


@given(tokens=counts, batch_tokens=st.integers(1, 500), batch_texts=st.integers(1, 20))
def test_each_text_is_in_one_batch_and_batches_are_bounded(
    tokens: np.ndarray, batch_tokens: int, batch_texts: int
) -> None:
    batches = token_batches(tokens, batch_tokens, batch_texts)
    assert sorted(int(i) for batch in batches for i in batch) == list(range(len(tokens)))
    for batch in batches:
        assert 1 <= len(batch) <= batch_texts
        assert len(batch) == 1 or len(batch) * int(tokens[batch].max()) <= batch_tokens


@given(tokens=counts, batch_tokens=st.integers(1, 500), batch_texts=st.integers(1, 20))
def test_a_batch_ends_only_where_the_next_text_would_not_fit(
    tokens: np.ndarray, batch_tokens: int, batch_texts: int
) -> None:
    batches = token_batches(tokens, batch_tokens, batch_texts)
    for batch, following in pairwise(batches):
        larger = len(batch) + 1
        assert larger > batch_texts or larger * int(tokens[following[0]]) > batch_tokens


@given(counts)
def test_texts_go_shortest_first_and_ties_in_order(tokens: np.ndarray) -> None:
    order = [int(i) for batch in token_batches(tokens, 100, 7) for i in batch]
    assert order == sorted(range(len(tokens)), key=lambda i: (tokens[i], i))


def test_no_texts_are_no_batches() -> None:
    assert token_batches(np.array([], dtype=np.int32), 10, 10) == []


@pytest.mark.parametrize(
    ("tokens", "expected"),
    [
        ([5, 5, 5, 5], [[0, 1], [2, 3]]),  # two of five tokens fill ten
        ([11, 1], [[1], [0]]),  # too long for any batch: alone
        ([1, 1, 1, 1], [[0, 1, 2], [3]]),  # three texts at most
        ([2, 9, 2], [[0, 2], [1]]),
    ],
)
def test_small_cases_by_hand(tokens: list[int], expected: list[list[int]]) -> None:
    batches = token_batches(np.array(tokens, dtype=np.int32), batch_tokens=10, batch_texts=3)
    assert [batch.tolist() for batch in batches] == expected


def test_sizes_beyond_32_bits_do_not_wrap() -> None:
    tokens = np.full(3, 2**31 - 1, dtype=np.int32)
    assert [batch.tolist() for batch in token_batches(tokens, 1 << 20, 8)] == [[0], [1], [2]]
