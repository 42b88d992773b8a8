"""The training loop of one model on one worker: updates, held-out scores, early stopping, checkpoints.

The loss of an update is the mean over the trained tokens of its global batch: every worker scales its sum by
``workers x accumulation / tokens of all``, so that what DeepSpeed's averaging leaves does not depend on how the batch
was spread. An update of an adapter that is in use adds two terms, both none by default: the loss on replayed documents,
and a penalty on leaving the weights that it started from:

    loss = L_task + beta * L_DAR + lambda * L_EWC

All randomness is a function of seed, step and packs. Cost: see ``flops``; with gradient checkpointing the
forward part once more.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from compass_ray.adapt.config import TrainingConfig
from compass_ray.adapt.packing import Packs, batch
from compass_ray.adapt.schedule import EMPTY, Schedule, accumulation_steps, drawn, micro_batches
from compass_ray.adapt.scores import Score
from compass_ray.adapt.training import penalty as ewc
from compass_ray.adapt.training.engine import ZeroEngine
from compass_ray.errors import NonFiniteLoss, NothingTrained
from compass_ray.seeding import child_seed

_SHOWN_DOCUMENTS = 8


@dataclass
class State:
    """Where a training is. With weights and moments it is all that a checkpoint holds."""

    step: int = 0
    curve: list[dict[str, Any]] = field(default_factory=list)
    best_loss: float | None = None
    worse: int = 0  # evaluations since the best one

    def to_json(self) -> dict[str, Any]:
        return {"step": self.step, "curve": self.curve, "best_loss": self.best_loss, "worse": self.worse}


@dataclass(frozen=True, eq=False)
class Replay:
    """Documents that an adapter has learnt from before, trained on again beside the new ones.

    Attributes
    ----------
    packs : Packs
    documents : list of str
        Ids in hex of the documents that packs number.
    chance : ndarray of shape (n_packs,), float64
        By which packs are drawn for every update, with replacement; up to a factor.
    weight : float
        Beta, by which their loss enters that of an update.
    per_step : int
        Packs drawn for one update.

    Raises
    ------
    ValueError
        If a number is out of its range, or no pack with a trained token can be drawn.
    """

    packs: Packs
    documents: list[str]
    chance: NDArray[np.float64]
    weight: float
    per_step: int

    def __post_init__(self) -> None:
        if not (math.isfinite(self.weight) and self.weight >= 0 and self.per_step >= 1):
            raise ValueError(
                f"replay: expected a finite weight of at least 0 and at least 1 pack an update, found {self.weight} "
                f"and {self.per_step}"
            )
        if self.chance.shape != (len(self.packs),) or not np.isfinite(self.chance).all() or (self.chance < 0).any():
            raise ValueError(
                f"replay: expected a finite chance of at least 0 for each of {len(self.packs)} packs, found "
                f"{self.chance.shape} numbers as {self.chance[:1]}"
            )
        if not self._chance().sum() > 0:
            raise ValueError(f"replay: none of {len(self.packs)} packs has both a trained token and a chance above 0")

    def drawn(self, seed: int, step: int) -> NDArray[np.int64]:
        """List the packs of one update. They are a function of seed and step."""
        return drawn(self._chance(), self.per_step, seed, step)

    def _chance(self) -> NDArray[np.float64]:
        return np.where(self.packs.trained > 0, self.chance, 0.0)


def accumulation_with(replay: Replay | None, batch_size: int, n_workers: int, micro_batch: int) -> int:
    """Count the micro-batches of one update on each worker, those of new packs and then of replayed ones."""
    sizes = [batch_size] + ([replay.per_step] if replay else [])
    return sum(accumulation_steps(size, n_workers, micro_batch) for size in sizes)


@dataclass(frozen=True)
class Task:
    """One model to train: its data, and how.

    Attributes
    ----------
    label : str
        What messages call it, a language.
    train, heldout : Packs
        ``heldout`` may have no pack.
    documents : list of str
        Ids in hex of the documents that packs number.
    replay : Replay or None
    penalty : Penalty or None
        Of a strength of 0: measured, and not added.
    """

    label: str
    train: Packs
    heldout: Packs
    documents: list[str]
    config: TrainingConfig
    seed: int
    micro_batch: int
    pad_token: int
    replay: Replay | None = None
    penalty: ewc.Penalty | None = None

    @property
    def schedule(self) -> Schedule:
        return Schedule(len(self.train), self.config.batch_size, self.config.epochs, self.config.max_steps, self.seed)


Save = Callable[[State, dict[str, torch.Tensor], dict[str, torch.Tensor], dict[str, torch.Tensor] | None], None]
Report = Callable[[dict[str, Any]], None]


def train(
    engine: ZeroEngine,
    task: Task,
    state: State,
    best: dict[str, torch.Tensor] | None,
    save: Save,
    report: Report,
    checkpoint_steps: int,
) -> dict[str, torch.Tensor]:
    """Train until the schedule or patience ends.

    Parameters
    ----------
    engine : ZeroEngine
        With weights and moments of ``state.step`` in place.
    state : State
        Changed in place; its curve has one entry an update.
    best : dict of Tensor or None
        Weights of the best evaluation so far, when going on from a checkpoint.
    save : callable
        ``save(state, weights, moments, best)`` after every ``checkpoint_steps`` updates; called on all workers.
    report : callable
        Given the curve's new entry, after every update; called on all workers.

    Returns
    -------
    dict of Tensor
        The trained weights, whole and float32: of the best evaluation with ``patience``, of the last update otherwise.

    Raises
    ------
    NonFiniteLoss
        With step, label and documents; on all workers.
    NothingTrained
        If no weight has moved.
    """
    schedule, config = task.schedule, task.config
    rate = learning_rates(config, schedule.steps)
    fresh = engine.weights() if state.step == 0 else None
    while state.step < schedule.steps and not _out_of_patience(state, config):
        started = time.monotonic()
        entry = update(engine, task, schedule, state.step, rate(state.step))
        state.step += 1
        if config.eval_steps and (state.step % config.eval_steps == 0 or state.step == schedule.steps):
            entry |= _evaluate(engine, task, state)
            if config.patience and state.worse == 0:
                best = engine.weights()
        entry["seconds"] = time.monotonic() - started
        state.curve.append(entry)
        report(entry)
        if state.step % checkpoint_steps == 0 and state.step < schedule.steps:
            save(state, engine.weights(), engine.moments(), best)
    weights = engine.weights() if best is None else best
    _check_trained(fresh, weights, task.label, state)
    return weights


def learning_rates(config: TrainingConfig, steps: int) -> Callable[[int], float]:
    """Make the function that gives the learning rate of every update.

    It is a schedule of transformers as a function of the step alone.
    """
    from transformers import get_scheduler

    probe = torch.optim.SGD([torch.zeros(1)], lr=config.learning_rate)
    warmup = round(config.warmup_fraction * steps)
    scheduler = get_scheduler(config.schedule, probe, num_warmup_steps=warmup, num_training_steps=steps)
    factor = scheduler.lr_lambdas[0]
    offset = 1 if warmup else 0  # the first update of a warm-up learns something, too
    return lambda step: config.learning_rate * float(factor(min(step + offset, steps - 1) if offset else step))


def update(engine: ZeroEngine, task: Task, schedule: Schedule, step: int, rate: float) -> dict[str, Any]:
    """Update the weights once, by one global batch. Returns what the curve says of it.

    Raises
    ------
    NonFiniteLoss
        On all workers, before the weights change.
    """
    world = dist.get_world_size()
    packs = schedule.packs(step)
    parts = {"loss": _Part(task.train, task.documents, packs, task.config.batch_size, 1.0, "dropout")}
    if (replay := task.replay) is not None:
        again = replay.drawn(task.seed, step)
        parts["replay_loss"] = _Part(
            replay.packs, replay.documents, again, replay.per_step, replay.weight, "replay-dropout"
        )
    micros = [(part, micro) for part in parts.values() for micro in part.micros(task, world)]
    if len(micros) != engine.accumulation:
        raise AssertionError(
            f"expected an engine of {len(micros)} micro-batches an update, found {engine.accumulation}"
        )
    for number, (part, micro) in enumerate(micros):
        if number:
            engine.step(rate)
        torch.manual_seed(child_seed(task.seed, part.purpose, task.label, str(step), str(micro.tolist())))
        loss = engine.loss(tensors(part.packs, micro, task.pad_token, engine.device))
        engine.backward(loss * (part.weight * world * engine.accumulation / part.tokens))
        part.add(loss, micro)
    means = {name: part.mean(task.label, step, engine.device) for name, part in parts.items()}
    if task.penalty is not None:
        means["penalty"] = _hold(engine, task.penalty, task.label, step)
    engine.step(rate)
    return {
        "step": step + 1,
        "epoch": (step + 1) / schedule.steps_per_epoch,
        **means,
        "learning_rate": rate,
        "grad_norm": engine.grad_norm(),
        "tokens": int(task.train.lengths[packs].sum()),
        "trained_tokens": parts["loss"].tokens,
    }


class _Part:
    """One term of an update's loss: the mean over the trained tokens of some packs.

    Parameters
    ----------
    packs : Packs
    documents : list of str
        Ids of the documents that packs number.
    numbers : ndarray of int64
        Packs of the update.
    most : int
        So many packs an update has at most.
    weight : float
        By which the term enters the loss.
    purpose : str
        Names its random numbers.
    """

    def __init__(
        self, packs: Packs, documents: list[str], numbers: NDArray[np.int64], most: int, weight: float, purpose: str
    ) -> None:
        self.packs, self.weight, self.purpose = packs, weight, purpose
        self.tokens = int(packs.trained[numbers].sum())
        self._documents, self._numbers, self._most = documents, numbers, most
        self._total = torch.zeros((), dtype=torch.float64)
        self._broken: list[int] = []

    def micros(self, task: Task, world: int) -> Iterator[NDArray[np.int64]]:
        """Yield this worker's micro-batches."""
        rounds = accumulation_steps(self._most, world, task.micro_batch)
        yield from micro_batches(self._numbers, dist.get_rank(), world, task.micro_batch, rounds)

    def add(self, loss: torch.Tensor, micro: NDArray[np.int64]) -> None:
        """Count the summed loss of a micro-batch."""
        value = loss.detach().double().cpu()
        if not torch.isfinite(value):
            self._broken += micro.tolist()
        self._total += value

    def mean(self, label: str, step: int, device: torch.device) -> float:
        """Compute the mean loss of a token over all workers.

        Raises
        ------
        NonFiniteLoss
            On all workers.
        """
        total = _summed(self._total, device)
        if not torch.isfinite(total):
            found: list[Any] = [None] * dist.get_world_size()
            dist.all_gather_object(found, self._broken)
            packs = sorted({pack for members in found for pack in members if pack != EMPTY})
            raise NonFiniteLoss(
                f"{label}: the loss is {float(total)} at step {step + 1}, in packs with the documents "
                f"{named(packs, self.packs, self._documents)}; lower adapt.training.learning_rate, or look at these "
                "documents"
            )
        return float(total) / self.tokens


def named(numbers: Sequence[int], packs: Packs, documents: Sequence[str]) -> str:
    """Name the documents of some packs, the first of many."""
    ids = [documents[number] for pack in numbers for number in packs.documents_of(pack).tolist()]
    more = len(ids) - _SHOWN_DOCUMENTS
    return ", ".join(ids[:_SHOWN_DOCUMENTS]) + (f" and {more} more" if more > 0 else "")


def _hold(engine: ZeroEngine, penalty: ewc.Penalty, label: str, step: int) -> float:
    """Add the gradient of a penalty to that of an update. Returns the penalty, without its strength.

    Raises
    ------
    NonFiniteLoss
        On all workers, before the weights change.
    """
    weights = engine.weights()
    value = ewc.value(penalty, weights)
    if not math.isfinite(value * penalty.strength):
        raise NonFiniteLoss(
            f"{label}: the penalty on changed weights is {value} at step {step + 1}, with a strength of "
            f"{penalty.strength}; lower the strength or adapt.training.learning_rate"
        )
    if penalty.strength:
        engine.add_gradients({name: penalty.strength * part for name, part in ewc.gradient(penalty, weights).items()})
    return value


def tensors(packs: Packs, numbers: NDArray[np.int64], pad_token: int, device: torch.device) -> dict[str, torch.Tensor]:
    """Put a micro-batch on a device."""
    return {
        name: torch.from_numpy(array).to(device) for name, array in batch(packs, numbers.tolist(), pad_token).items()
    }


def _summed(value: torch.Tensor, device: torch.device) -> torch.Tensor:
    value = value.to(device)
    dist.all_reduce(value)
    return value.cpu()


def _out_of_patience(state: State, config: TrainingConfig) -> bool:
    return config.patience is not None and state.worse >= config.patience


def _evaluate(engine: ZeroEngine, task: Task, state: State) -> dict[str, float]:
    score = evaluate(engine, task.heldout, task.micro_batch, task.pad_token)
    if score is None:
        return {}
    if state.best_loss is None or score.loss < state.best_loss:
        state.best_loss, state.worse = score.loss, 0
    else:
        state.worse += 1
    return {"heldout_loss": score.loss}


def evaluate(engine: ZeroEngine, packs: Packs, micro_batch: int, pad_token: int) -> Score | None:
    """Score the engine's model on packs, shared out over all workers. None where nothing is predicted."""
    if not len(packs) or not packs.trained.sum():
        return None
    rank, world = dist.get_rank(), dist.get_world_size()
    total = torch.zeros((), dtype=torch.float64)
    with engine.evaluating():
        for micro in _rounds(len(packs), rank, world, micro_batch):
            total += engine.loss(tensors(packs, micro, pad_token, engine.device)).double().cpu()
    total = _summed(total, engine.device)
    return Score(float(total), int(packs.trained.sum()), int(packs.n_bytes.sum()), len(packs.documents))


def _rounds(n_packs: int, rank: int, world: int, micro_batch: int) -> Iterator[NDArray[np.int64]]:
    rounds = -(-n_packs // (world * micro_batch))
    yield from micro_batches(np.arange(n_packs, dtype=np.int64), rank, world, micro_batch, rounds)


def _check_trained(
    fresh: dict[str, torch.Tensor] | None, last: dict[str, torch.Tensor], label: str, state: State
) -> None:
    if bad := [name for name, value in last.items() if not torch.isfinite(value).all()]:
        raise NonFiniteLoss(
            f"{label}: after {state.step} updates {len(bad)} tensors hold NaN or infinity, as {bad[0]}; lower "
            "adapt.training.learning_rate"
        )
    if fresh is not None and all(torch.equal(fresh[name], value) for name, value in last.items()):
        raise NothingTrained(
            f"{label}: no weight has moved in {state.step} updates; raise adapt.training.learning_rate (its schedule "
            "may begin and end at nothing with so few updates)"
        )
