"""Where usage goes that its cluster cannot serve: as much as can be, over the least distance, and no farther."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compass_ray.sample.transport import centroid_distances, reach_of, transport
from compass_ray.vectors import unit_rows


def flow(excess: list[int], spare: list[int], distance: np.ndarray, reach: float = np.inf) -> np.ndarray:
    moves = transport(np.array(excess), np.array(spare), distance, reach)
    found = np.zeros(distance.shape, dtype=np.int64)
    found[moves.source, moves.to] = moves.amount
    return found


def best_by_force(excess: list[int], spare: list[int], distance: np.ndarray, reach: float) -> tuple[int, float]:
    """The most units that can be moved, and the least distance for that."""
    pairs = [
        (k, j) for k, j in product(range(len(excess)), repeat=2) if distance[k, j] <= reach and excess[k] and spare[j]
    ]
    best = (0, 0.0)
    for amounts in product(*(range(min(excess[k], spare[j]) + 1) for k, j in pairs)):
        out, into = np.zeros(len(excess)), np.zeros(len(excess))
        for (k, j), amount in zip(pairs, amounts, strict=True):
            out[k] += amount
            into[j] += amount
        if (out <= excess).all() and (into <= spare).all():
            cost = sum(amount * distance[pair] for pair, amount in zip(pairs, amounts, strict=True))
            best = min(best, (-sum(amounts), cost))
    return -best[0], best[1]


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_as_much_as_can_be_is_moved_over_the_least_distance(data: st.DataObject) -> None:
    seed = data.draw(st.integers(0, 1000))
    rng = np.random.default_rng(seed)
    distance = centroid_distances(unit_rows(rng.normal(size=(4, 3))).astype(np.float32))
    excess = [data.draw(st.integers(0, 3)), data.draw(st.integers(0, 3)), 0, 0]
    spare = [0, 0, data.draw(st.integers(0, 3)), data.draw(st.integers(0, 3))]
    reach = data.draw(st.sampled_from([0.0, *distance[:2, 2:].ravel().tolist(), np.inf]))
    found = flow(excess, spare, distance, reach)
    moved, cost = best_by_force(excess, spare, distance, reach)
    assert found.sum() == moved
    assert (found * distance).sum() == pytest.approx(cost, abs=1e-6)
    assert (found.sum(axis=1) <= excess).all()
    assert (found.sum(axis=0) <= spare).all()
    assert not found[distance > reach].any()


def test_a_unit_makes_way_for_another_that_can_go_nowhere_else() -> None:
    """Cluster 0 reaches 2 only; 1 is nearest to 2 and reaches 3 too."""
    distance = np.array([[0, 9, 0.3, 9], [9, 0, 0.1, 0.4], [0.3, 0.1, 0, 9], [9, 0.4, 9, 0.0]])
    assert flow([1, 1, 0, 0], [0, 0, 1, 1], distance, 0.5)[[0, 1], [2, 3]].tolist() == [1, 1]


def test_a_reach_of_nothing_moves_nothing() -> None:
    distance = centroid_distances(np.eye(3, dtype=np.float32))
    assert reach_of(distance, 0.0) == 0.0
    assert not flow([5, 0, 0], [0, 5, 5], distance, reach_of(distance, 0.0)).any()
    assert reach_of(np.zeros((1, 1)), 1.0) == 0.0


def test_reach_is_a_share_of_the_nearest_pairs() -> None:
    angles = np.array([0.0, 0.1, 0.3, 0.6, 1.0])
    distance = centroid_distances(np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32))
    pairs = np.sort(distance[np.triu_indices(5, 1)])
    assert reach_of(distance, 0.2) == pairs[1]
    assert reach_of(distance, 1.0) == pairs[-1]
    assert (distance == distance.T).all()
    assert not distance.diagonal().any()


def test_moves_say_how_much_left_and_came() -> None:
    distance = np.array([[0, 0.1, 0.2], [0.1, 0, 0.3], [0.2, 0.3, 0.0]])
    moves = transport(np.array([7, 0, 0]), np.array([0, 4, 5]), distance, 1.0)
    assert moves.out_of(3).tolist() == [7, 0, 0]
    assert moves.into(3).tolist() == [0, 4, 3]
    assert moves.to.tolist() == [1, 2], "nearest first"


def test_the_same_problem_has_the_same_answer_each_time() -> None:
    rng = np.random.default_rng(5)
    distance = centroid_distances(unit_rows(rng.normal(size=(60, 8))).astype(np.float32))
    excess = rng.integers(0, 50, 60) * (rng.random(60) < 0.4)
    spare = rng.integers(0, 50, 60) * (excess == 0)
    first = transport(excess, spare, distance, reach_of(distance, 0.2))
    again = transport(excess.copy(), spare.copy(), distance.copy(), reach_of(distance, 0.2))
    assert all((getattr(first, name) == getattr(again, name)).all() for name in ("source", "to", "amount"))
