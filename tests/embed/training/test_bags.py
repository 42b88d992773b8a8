"""Batches are drawn from bags of tokens: what is drawn, how often, and by what alone it is decided."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray.embed.training.bags import BatchSampler, TokenBags, make_bags


def bags_of(sizes: list[int], length: int = 3, chance: dict[int, float] | None = None) -> TokenBags:
    """Groups of the given sizes, whose texts hold the tokens 10·text, 10·text + 1, ..."""
    texts = sum(sizes)
    weights = np.ones(texts)
    for text, weight in (chance or {}).items():
        weights[text] = weight
    return make_bags(
        [np.arange(10 * text, 10 * text + length, dtype=np.int32) for text in range(texts)],
        np.repeat(np.arange(len(sizes)), sizes),
        np.zeros(texts, dtype=np.int32),
        weights,
    )[0]


def drawn(sampler: BatchSampler, step: int, rank: int = 0) -> list[tuple[int, list[int], list[int]]]:
    """Group and the tokens of both texts, pair by pair."""
    batch = sampler.batch(step, rank)
    sides = [
        [part.tolist() for part in np.split(ids, offsets[1:])]
        for ids, offsets in zip(batch.ids, batch.offsets, strict=True)
    ]
    return list(zip(batch.groups.tolist(), *sides, strict=True))


def test_a_batch_is_a_function_of_seed_step_and_rank_alone() -> None:
    bags = bags_of([3] * 40)
    sampler = BatchSampler(bags, {0: 20}, 0.3, seed=1)
    expected = drawn(sampler, 7, 1)
    for step in range(3):
        sampler.batch(step)
    assert drawn(sampler, 7, 1) == expected
    assert drawn(BatchSampler(bags, {0: 20}, 0.3, seed=1), 7, 1) == expected
    others = [
        drawn(sampler, 8, 1),
        drawn(sampler, 7, 0),
        drawn(BatchSampler(bags, {0: 20}, 0.3, seed=2), 7, 1),
    ]
    assert all(other != expected for other in others)


@given(
    sizes=st.lists(st.integers(2, 5), min_size=1, max_size=8),
    favour=st.integers(1, 50),
    seed=st.integers(0, 1000),
)
def test_two_texts_of_a_group_are_different_texts_of_this_group(sizes: list[int], favour: int, seed: int) -> None:
    bags = bags_of(sizes, chance={0: favour, sum(sizes) - 1: favour})
    sampler = BatchSampler(bags, {0: len(sizes)}, 0.0, seed)
    for step in range(5):
        for group, one, other in drawn(sampler, step):
            texts = [one[0] // 10, other[0] // 10]
            assert texts[0] != texts[1]
            assert all(bags.groups[group] <= text < bags.groups[group + 1] for text in texts)


def test_every_text_keeps_a_token_whatever_is_dropped() -> None:
    sampler = BatchSampler(bags_of([2] * 200, length=4), {0: 200}, 0.99, seed=0)
    kept = [tokens for _, one, other in drawn(sampler, 0) for tokens in (one, other)]
    assert len(kept) == 400
    assert all(len(tokens) >= 1 for tokens in kept)
    assert sum(map(len, kept)) < 500  # of 1600


def test_about_the_configured_fraction_of_tokens_is_dropped() -> None:
    sampler = BatchSampler(bags_of([2] * 200, length=10), {0: 200}, 0.3, seed=0)
    kept = sum(len(one) + len(other) for _, one, other in drawn(sampler, 0))
    assert 0.65 < kept / 4000 < 0.75


def test_without_dropout_all_tokens_are_there_in_order() -> None:
    sampler = BatchSampler(bags_of([3] * 10, length=5), {0: 10}, 0.0, seed=0)
    for _, one, other in drawn(sampler, 0):
        for tokens in (one, other):
            assert tokens == list(range(tokens[0], tokens[0] + 5))
            assert tokens[0] % 10 == 0


def test_groups_are_drawn_without_replacement_and_by_corpus() -> None:
    bags, _ = make_bags(
        [np.array([text], dtype=np.int32) for text in range(60)],
        np.repeat(np.arange(30), 2),
        np.repeat(np.array([0, 1], dtype=np.int32), [40, 20]),
        np.ones(60),
    )
    sampler = BatchSampler(bags, {0: 8, 1: 50}, 0.0, seed=3)
    for step in range(5):
        groups = sampler.batch(step).groups
        assert len(set(groups.tolist())) == len(groups) == 18
        assert sorted(groups[groups >= 20].tolist()) == list(range(20, 30))  # a corpus of 10 gives all it has


def test_a_favoured_text_is_drawn_about_as_much_more_often_as_asked() -> None:
    sampler = BatchSampler(bags_of([10], chance={4: 5.0}), {0: 1}, 0.0, seed=0)
    counts = np.zeros(10)
    for step in range(3000):
        [(_, one, _)] = drawn(sampler, step)
        counts[one[0] // 10] += 1
    others = np.delete(counts, 4)
    assert 4 < counts[4] / others.mean() < 6
    assert others.min() > 0.6 * others.mean()


def test_empty_texts_and_groups_of_one_text_fall_out_and_the_rest_keep_their_numbers() -> None:
    tokens = [[1, 2], [], [3], [4], [5], [], [6, 7], [8], [9]]
    bags, numbers = make_bags(
        [np.array(ids, dtype=np.int32) for ids in tokens],
        np.array([10, 10, 10, 20, 30, 30, 40, 40, 40]),
        np.array([0, 0, 0, 0, 1, 1, 1, 1, 1], dtype=np.int32),
        np.arange(9, dtype=np.float64),
    )
    assert numbers.tolist() == [10, 40]
    assert bags.ids.tolist() == [1, 2, 3, 6, 7, 8, 9]
    assert bags.starts.tolist() == [0, 2, 3, 5, 6, 7]
    assert bags.groups.tolist() == [0, 2, 5]
    assert bags.corpora.tolist() == [0, 1]
    assert bags.chance.tolist() == [0, 2, 6, 7, 8]


def test_a_corpus_whose_groups_all_fell_out_gives_nothing_to_a_batch() -> None:
    sampler = BatchSampler(bags_of([2, 2]), {0: 2, 1: 5}, 0.0, seed=0)
    assert sorted(sampler.batch(0).groups.tolist()) == [0, 1]


@pytest.mark.parametrize("side", [0, 1])
def test_offsets_are_where_texts_start(side: int) -> None:
    batch = BatchSampler(bags_of([2] * 50, length=6), {0: 50}, 0.5, seed=0).batch(0)
    offsets = batch.offsets[side]
    assert offsets[0] == 0
    assert (np.diff([*offsets, len(batch.ids[side])]) >= 1).all()
    assert batch.ids[side].dtype == offsets.dtype == np.int64
