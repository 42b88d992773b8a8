"""Which packs an update sees, and on which worker: pure functions of data, seed and step.

Nothing here is state, so a training that goes on from step t draws what the undisturbed one would have drawn, on any
number of workers.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from compass_ray.seeding import child_seed

EMPTY = -1
"""Stands for a pack without documents: what a worker trains on when packs do not divide evenly."""


@dataclass(frozen=True)
class Schedule:
    """The order of packs over all updates.

    Every epoch visits every pack exactly once, in an order of its own. An epoch's packs are dealt as evenly as possible
    over its updates, so that none is left with a small and noisy rest.

    Attributes
    ----------
    n_packs : int
        At least one.
    batch_size : int
        Packs of one update, at most.
    epochs : int
    max_steps : int or None
        Updates, at most.
    seed : int
    """

    n_packs: int
    batch_size: int
    epochs: int
    max_steps: int | None
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        """Updates of one epoch."""
        return -(-self.n_packs // self.batch_size)

    @property
    def steps(self) -> int:
        """Updates in all."""
        steps = self.steps_per_epoch * self.epochs
        return steps if self.max_steps is None else min(steps, self.max_steps)

    def packs(self, step: int) -> NDArray[np.int64]:
        """List the packs of one update, in order. They are the same for any number of workers."""
        epoch, place = divmod(step, self.steps_per_epoch)
        return np.array_split(_epoch_order(self.n_packs, self.seed, epoch), self.steps_per_epoch)[place]


@lru_cache(maxsize=2)
def _epoch_order(n_packs: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng(child_seed(seed, "epoch", str(epoch))).permutation(n_packs)


def drawn(chance: NDArray[np.float64], size: int, seed: int, step: int) -> NDArray[np.int64]:
    """Draw packs for one update, with replacement. They are the same for any number of workers and after any restart.

    Parameters
    ----------
    chance : ndarray of shape (n,), float64
        Of every pack, up to a factor; not negative, and not all zero.
    size : int
        How many are drawn.
    seed, step : int

    Returns
    -------
    ndarray of shape (size,), int64
    """
    generator = np.random.default_rng(child_seed(seed, "replay", str(step)))
    return generator.choice(len(chance), size=size, p=chance / chance.sum())


def accumulation_steps(batch_size: int, n_workers: int, micro_batch: int) -> int:
    """Count the micro-batches that each worker passes through the model in one update."""
    return -(-batch_size // (n_workers * micro_batch))


def micro_batches(
    packs: NDArray[np.int64], rank: int, n_workers: int, micro_batch: int, accumulation: int
) -> Iterator[NDArray[np.int64]]:
    """Yield what one worker passes through the model in one update.

    All workers get the same number of micro-batches, because they reduce gradients (and with ZeRO-3 gather weights)
    together; places that packs do not fill hold :data:`EMPTY`.

    Parameters
    ----------
    packs : ndarray of shape (n,), int64
        Packs of the update, at most ``n_workers * micro_batch * accumulation``.

    Yields
    ------
    ndarray of shape (micro_batch,), int64
        ``accumulation`` times.
    """
    places = np.full(n_workers * micro_batch * accumulation, EMPTY, dtype=np.int64)
    places[: len(packs)] = packs
    yield from places.reshape(accumulation, n_workers, micro_batch)[:, rank]
