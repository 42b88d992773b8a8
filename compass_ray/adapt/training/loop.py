"""The training loop of one model on one worker: updates, held-out scores, early stopping, checkpoints.

The loss of an update is the mean over the trained tokens of its global batch: every worker scales its sum by
``workers x accumulation / tokens of all``, so that what DeepSpeed's averaging leaves does not depend on how the batch
was spread. All randomness is a function of seed, step and packs. Cost: see ``flops``; with gradient checkpointing the
forward part once more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from compass_ray.adapt.config import TrainingConfig
from compass_ray.adapt.packing import Packs, batch
from compass_ray.adapt.schedule import EMPTY, Schedule, micro_batches
from compass_ray.adapt.scores import Score
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
    """

    label: str
    train: Packs
    heldout: Packs
    documents: list[str]
    config: TrainingConfig
    seed: int
    micro_batch: int
    pad_token: int

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
    rank, world = dist.get_rank(), dist.get_world_size()
    packs = schedule.packs(step)
    tokens = int(task.train.trained[packs].sum())
    scale = world * engine.accumulation / tokens
    micros = list(micro_batches(packs, rank, world, task.micro_batch, engine.accumulation))
    total = torch.zeros((), dtype=torch.float64)
    broken: list[int] = []
    for number, micro in enumerate(micros):
        torch.manual_seed(child_seed(task.seed, "dropout", task.label, str(step), str(micro.tolist())))
        loss = engine.loss(tensors(task.train, micro, task.pad_token, engine.device))
        engine.backward(loss * scale)
        value = loss.detach().double().cpu()
        if not torch.isfinite(value):
            broken += micro.tolist()
        total += value
        if number == len(micros) - 1:
            total = _summed(total, engine.device)
            _check_finite(total, broken, task, step)
        engine.step(rate)
    return {
        "step": step + 1,
        "epoch": (step + 1) / schedule.steps_per_epoch,
        "loss": float(total) / tokens,
        "learning_rate": rate,
        "grad_norm": engine.grad_norm(),
        "tokens": int(task.train.lengths[packs].sum()),
        "trained_tokens": tokens,
    }


def tensors(packs: Packs, numbers: NDArray[np.int64], pad_token: int, device: torch.device) -> dict[str, torch.Tensor]:
    """Put a micro-batch on a device."""
    return {
        name: torch.from_numpy(array).to(device) for name, array in batch(packs, numbers.tolist(), pad_token).items()
    }


def _summed(value: torch.Tensor, device: torch.device) -> torch.Tensor:
    value = value.to(device)
    dist.all_reduce(value)
    return value.cpu()


def _check_finite(total: torch.Tensor, broken: list[int], task: Task, step: int) -> None:
    if torch.isfinite(total):
        return
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, broken)
    packs = sorted({pack for part in found for pack in part if pack != EMPTY})
    ids = [task.documents[number] for pack in packs for number in task.train.documents_of(pack).tolist()]
    shown = ", ".join(ids[:_SHOWN_DOCUMENTS]) + (f" and {len(ids) - _SHOWN_DOCUMENTS} more" if len(ids) > 8 else "")
    raise NonFiniteLoss(
        f"{task.label}: the loss is {float(total)} at step {step + 1}, in packs with the documents {shown}; lower "
        "adapt.training.learning_rate, or look at these documents"
    )


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
