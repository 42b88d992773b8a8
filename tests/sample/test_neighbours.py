"""Neighbours of usage: exact is exact, approximate is near, and parts merge in any order."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compass_ray.errors import ResourcesMissing
from compass_ray.sample import neighbours
from compass_ray.sample.neighbours import Neighbours, best_similarity, merge_nearest, nearest_rows, round_robin
from compass_ray.vectors import unit_rows


def points(count: int, seed: int, d: int = 12) -> np.ndarray:
    return unit_rows(np.random.default_rng(seed).normal(size=(count, d)))


def names(count: int) -> np.ndarray:
    return np.random.default_rng(5).integers(0, 256, (count, 16), dtype=np.uint8)


def test_the_best_similarity_is_that_of_all_products(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "TILE_ROWS", 7)
    x, targets = points(50, 0), points(9, 1)
    np.testing.assert_allclose(best_similarity(x, targets, "exact"), (x @ targets.T).max(axis=1), atol=1e-6)
    assert best_similarity(x, targets[:0], "exact").tolist() == [-np.inf] * 50


def test_nearest_rows_are_those_of_all_products_sorted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(neighbours, "TILE_ROWS", 7)
    x, targets, ids = points(50, 0), points(9, 1), names(50)
    found = nearest_rows(targets, x, ids, 6, "exact")
    order = np.argsort(-(targets @ x.T), axis=1)[:, :6]
    assert (found.ids == ids[order]).all()
    np.testing.assert_allclose(found.similarity, np.take_along_axis(targets @ x.T, order, axis=1), atol=1e-6)


def test_fewer_rows_than_wanted_are_padded() -> None:
    found = nearest_rows(points(3, 1), points(2, 0), names(2), 5, "exact")
    assert found.similarity.shape == (3, 5)
    assert (found.similarity[:, 2:] == -np.inf).all()


def test_equal_similarities_go_to_the_lower_id() -> None:
    ids = np.array([[9] * 16, [1] * 16, [5] * 16], dtype=np.uint8)
    found = nearest_rows(points(1, 0), np.repeat(points(1, 3), 3, axis=0), ids, 3, "exact")
    assert found.ids[0, :, 0].tolist() == [1, 5, 9]


@settings(deadline=None, max_examples=30)
@given(home=st.lists(st.integers(0, 3), min_size=30, max_size=30), order=st.permutations(range(4)))
def test_neighbours_of_shards_merge_to_those_of_the_whole(home: list[int], order: list[int]) -> None:
    x, targets, ids, place = points(30, 0), points(4, 1), names(30), np.array(home)
    parts = [nearest_rows(targets, x[place == part], ids[place == part], 5, "exact") for part in order]
    merged = merge_nearest([merge_nearest(parts[:2], 5), *parts[2:]], 5)
    assert (merged.ids == nearest_rows(targets, x, ids, 5, "exact").ids).all()


def test_an_approximate_index_finds_nearly_all_and_its_products_are_true() -> None:
    pytest.importorskip("faiss")
    rng = np.random.default_rng(0)
    x = unit_rows(points(30, 9, 32)[rng.integers(0, 30, 3000)] + 0.3 * rng.normal(size=(3000, 32)))
    targets, ids = points(20, 4, 32), names(3000)
    exact, near = (nearest_rows(targets, x, ids, 10, method) for method in ("exact", "faiss"))
    found = [len({bytes(i) for i in a} & {bytes(i) for i in b}) for a, b in zip(exact.ids, near.ids, strict=True)]
    assert np.mean(found) >= 9.5
    row = {bytes(i): n for n, i in enumerate(ids)}
    again = [x[row[bytes(i)]] @ targets[0] for i in near.ids[0]]
    np.testing.assert_allclose(near.similarity[0], again, atol=1e-5)
    best = best_similarity(x, targets, "faiss")
    assert np.mean(np.abs(best - best_similarity(x, targets, "exact")) < 1e-5) > 0.95
    assert (nearest_rows(targets, x, ids, 10, "faiss").ids == near.ids).all()


@pytest.mark.parametrize("copies", [1, 3, 300])
def test_an_approximate_index_finds_what_repeated_rows_would_hide(copies: int) -> None:
    """Of an index of all rows, searches came back with copies of a few rows and 40 of 100 right ones (measured)."""
    x = np.concatenate([np.repeat(points(20, 0), copies, axis=0), points(400, 2)])
    targets, ids = points(25, 1), names(len(x))
    exact, found = (nearest_rows(targets, x, ids, 40, method) for method in ("exact", "faiss"))
    pairs = zip(exact.ids, found.ids, strict=True)
    common = [len({*map(bytes, one)} & {*map(bytes, other)}) / 40 for one, other in pairs]
    assert np.mean(common) > 0.97
    np.testing.assert_allclose(found.similarity, exact.similarity, atol=0.02)
    best = best_similarity(targets, x, "faiss")
    assert np.mean(np.abs(best - best_similarity(targets, x, "exact")) < 1e-6) > 0.9


def test_without_faiss_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ResourcesMissing, match=r"pip install 'compass_ray\[cpu\]'"):
        best_similarity(points(3, 0), points(2, 1), "faiss")


def lists(*rows: str) -> Neighbours:
    ids = np.array([[[ord(letter)] * 16 for letter in row] for row in rows], dtype=np.uint8)
    return Neighbours(np.ones(ids.shape[:2], dtype=np.float32), ids)


@pytest.mark.parametrize(
    ("rows", "count", "expected"),
    [
        (("abc", "abd", "eab"), 5, "abecd"),  # in turn: a, b (a is taken), e; then c, d
        (("abc", "abd", "eab"), 2, "ab"),
        (("ab", "ab"), 9, "ab"),
        (("abc",), 0, ""),
    ],
)
def test_turns_by_hand(rows: tuple[str, ...], count: int, expected: str) -> None:
    assert [chr(row[0]) for row in round_robin(lists(*rows), count)] == list(expected)


@settings(deadline=None)
@given(seed=st.integers(0, 99), count=st.integers(0, 40))
def test_nobody_is_taken_twice_and_targets_are_served_alike(seed: int, count: int) -> None:
    targets, x, ids = points(4, seed), points(40, seed + 1), names(40)
    found = [bytes(row) for row in round_robin(nearest_rows(targets, x, ids, 40, "exact"), count)]
    assert len(found) == len(set(found)) == count
    shorter = [bytes(row) for row in round_robin(nearest_rows(targets, x, ids, 40, "exact"), count // 2)]
    assert found[: count // 2] == shorter
