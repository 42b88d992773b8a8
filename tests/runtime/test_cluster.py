"""How many actors are worth their start."""

from __future__ import annotations

import pytest

from compass_ray.runtime.cluster import worthwhile


@pytest.mark.parametrize(
    ("shards", "rows", "room", "asked", "expected"),
    [
        (8, 700, 4, None, 1),  # one actor is done before another has started
        (8, 2_001, 4, None, 2),
        (64, 10**9, 16, None, 16),  # no more than the cluster holds
        (3, 10**9, 16, None, 3),  # nor than there are shards
        (8, 700, 4, 4, 4),  # as asked for
        (8, 700, 4, 9, 4),
        (8, 0, 4, None, 1),
    ],
)
def test_actors_are_as_many_as_have_work_room_and_shards(
    shards: int, rows: int, room: int, asked: int | None, expected: int
) -> None:
    assert worthwhile(shards, rows, 2_000, room, asked) == expected
