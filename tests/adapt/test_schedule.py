"""Every pack once an epoch, on any number of workers; the global batch is the same on all of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray.adapt.schedule import EMPTY, Schedule, accumulation_steps, micro_batches

sizes = st.integers(1, 60)


def trained_packs(schedule: Schedule, step: int, n_workers: int, micro_batch: int) -> list[list[int]]:
    """What each worker passes through the model in one update, empty places left out."""
    accumulation = accumulation_steps(schedule.batch_size, n_workers, micro_batch)
    parts = []
    for rank in range(n_workers):
        batches = list(micro_batches(schedule.packs(step), rank, n_workers, micro_batch, accumulation))
        assert [len(batch) for batch in batches] == [micro_batch] * accumulation, "workers reduce together"
        parts.append([int(pack) for batch in batches for pack in batch if pack != EMPTY])
    return parts


@given(n_packs=sizes, batch_size=sizes, n_workers=st.integers(1, 5), micro_batch=st.integers(1, 4), seed=sizes)
def test_every_pack_is_seen_exactly_once_an_epoch_with_any_number_of_workers(
    n_packs: int, batch_size: int, n_workers: int, micro_batch: int, seed: int
) -> None:
    schedule = Schedule(n_packs, batch_size, epochs=2, max_steps=None, seed=seed)
    for epoch in range(2):
        steps = range(epoch * schedule.steps_per_epoch, (epoch + 1) * schedule.steps_per_epoch)
        seen = [
            pack for step in steps for part in trained_packs(schedule, step, n_workers, micro_batch) for pack in part
        ]
        assert sorted(seen) == list(range(n_packs))


@given(n_packs=sizes, batch_size=sizes, n_workers=st.integers(1, 5), micro_batch=st.integers(1, 4))
def test_the_global_batch_of_an_update_does_not_depend_on_the_workers(
    n_packs: int, batch_size: int, n_workers: int, micro_batch: int
) -> None:
    schedule = Schedule(n_packs, batch_size, epochs=1, max_steps=None, seed=1)
    for step in range(schedule.steps):
        alone = trained_packs(schedule, step, 1, 1)[0]
        together = [pack for part in trained_packs(schedule, step, n_workers, micro_batch) for pack in part]
        assert sorted(together) == sorted(alone)
        assert 1 <= len(alone) <= batch_size


@given(n_packs=sizes, batch_size=sizes)
def test_updates_of_an_epoch_are_of_even_size(n_packs: int, batch_size: int) -> None:
    schedule = Schedule(n_packs, batch_size, epochs=1, max_steps=None, seed=0)
    lengths = [len(schedule.packs(step)) for step in range(schedule.steps)]
    assert max(lengths) - min(lengths) <= 1


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    schedule = Schedule(50, 50, epochs=2, max_steps=None, seed=0)
    other = Schedule(50, 50, epochs=2, max_steps=None, seed=1)
    orders = [tuple(s.packs(step).tolist()) for s in (schedule, other) for step in range(2)]
    assert len(set(orders)) == 4
    np.testing.assert_array_equal(Schedule(50, 50, 2, None, 0).packs(1), schedule.packs(1))


@pytest.mark.parametrize(("max_steps", "steps"), [(None, 12), (5, 5), (40, 12)])
def test_max_steps_ends_a_schedule_early_and_never_later(max_steps: int | None, steps: int) -> None:
    assert Schedule(10, 3, epochs=3, max_steps=max_steps, seed=0).steps == steps
