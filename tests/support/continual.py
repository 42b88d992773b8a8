"""An adapter that is trained on: small data, the way it goes in a worker, and the same in plain PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn

from compass_ray.adapt.config import AdaptConfig
from compass_ray.adapt.examples import Example
from compass_ray.adapt.packing import IGNORED, Packs, make_packs
from compass_ray.adapt.training.checkpoints import Checkpoints, train_resumably
from compass_ray.adapt.training.engine import ZeroEngine, deepspeed_config
from compass_ray.adapt.training.fisher import diagonal_fisher
from compass_ray.adapt.training.loop import Replay, Task, accumulation_with, learning_rates
from compass_ray.adapt.training.model import load_base, with_adapter
from compass_ray.adapt.training.penalty import Penalty
from compass_ray.errors import NonFiniteLoss

Tensors = dict[str, torch.Tensor]
NEW, OLD = 7, 5
"""Documents: not divisible by the number of workers, nor by micro-batches."""


@dataclass(frozen=True)
class Case:
    """One training of an adapter that is in use."""

    base: str
    folder: str = ""
    stage: int = 2
    micro_batch: int = 1
    strength: float | None = None
    beta: float | None = None
    flat: bool = False  # whether all changes weigh the same
    clip_norm: float = 1.0
    stopped_after: int | None = None
    broken: int | None = None  # the replayed document that has no finite loss

    @property
    def config(self) -> AdaptConfig:
        return AdaptConfig(
            base=self.base,
            lora={"rank": 3, "alpha": 6},
            training={
                "batch_size": 3, "epochs": 2, "learning_rate": 0.01, "weight_decay": 0.1, "clip_norm": self.clip_norm,
            },
            workers={"zero_stage": self.stage, "micro_batch": self.micro_batch},
        )  # fmt: skip

    def task(self) -> Task:
        start = start_of(self.base)
        fisher = {name: torch.ones_like(value) for name, value in start.items()} if self.flat else some_fisher(start)
        return Task(
            "sw",
            documents(NEW, seed=1),
            documents(0, seed=0),
            [f"new-{number}" for number in range(NEW)],
            self.config.training,
            3,
            self.micro_batch,
            0,
            None if self.beta is None else replay(self.beta),
            None if self.strength is None else Penalty(self.strength, fisher, start),
        )


def documents(count: int, seed: int) -> Packs:
    """Some documents of random tokens, one a pack. The first token of each is not trained, nor are a few others."""
    generator = np.random.default_rng(seed)
    examples = []
    for _ in range(count):
        tokens = generator.integers(3, 400, generator.integers(5, 20)).astype(np.int32)
        examples.append(Example(tokens, generator.random(len(tokens)) < 0.8, len(tokens), False))
    return make_packs(examples, 32, packing=False)


def replay(weight: float) -> Replay:
    chance = np.arange(OLD, dtype=np.float64)  # the first one is never drawn
    return Replay(documents(OLD, seed=2), [f"old-{number}" for number in range(OLD)], chance, weight, 4)


def model_of(base: str, config: AdaptConfig, plan: dict[str, Any] | None = None) -> Any:
    """The base with an adapter that has learnt something."""
    model = with_adapter(load_base(Path(base), config, plan), config, 0, "sw")
    model.load_state_dict(some_weights(model), strict=False)
    return model


def some_weights(model: nn.Module) -> Tensors:
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.randn(param.shape, generator=generator) * 0.1
        for name, param in model.named_parameters()
        if param.requires_grad
    }


def start_of(base: str) -> Tensors:
    return some_weights(with_adapter(load_base(Path(base), Case(base).config), Case(base).config, 0, "sw"))


def some_fisher(like: Tensors) -> Tensors:
    generator = torch.Generator().manual_seed(2)
    return {name: torch.rand(value.shape, generator=generator) for name, value in like.items()}


class Listener:
    """A reporter that stops a training where it is told to."""

    def __init__(self, stopped_after: int | None) -> None:
        self._stopped_after = stopped_after

    def __call__(self, entry: dict[str, Any]) -> None:
        if entry["step"] == self._stopped_after:
            raise InterruptedError

    def close(self) -> None:
        pass


def train_cases(cases: Sequence[Case]) -> list[tuple[list[dict[str, Any]], Tensors] | str | None]:
    """On a worker: train each as ``worker`` does; its curve and weights, None if stopped, what was said if refused."""
    return [_train(case) for case in cases]


def _train(case: Case) -> tuple[list[dict[str, Any]], Tensors] | str | None:
    task, config = case.task(), case.config
    accumulation = accumulation_with(task.replay, task.config.batch_size, dist.get_world_size(), case.micro_batch)
    plan = deepspeed_config(config.training, config.workers, "float32", accumulation)
    model = model_of(case.base, config, plan)
    if case.broken is not None:
        _break(model, replay(1.0).packs, case.broken)
    reporter: Any = Listener(case.stopped_after)
    try:
        engine, weights, state = train_resumably(
            model,
            task,
            plan,
            Checkpoints(f"{case.folder}/training"),
            lambda engine: reporter,
            2,
            packing=False,
            start=some_weights(model),
        )
    except InterruptedError:
        return None
    except NonFiniteLoss as exc:
        return str(exc)
    engine.close()
    return state.curve, weights


def _break(model: Any, packs: Packs, document: int) -> None:
    """Make the loss of one document infinite."""
    first = packs.tokens[packs.starts[document] : packs.starts[document + 1]].tolist()

    def spoil(module: nn.Module, args: Any, kwargs: dict[str, Any], output: Any) -> Any:
        rows = kwargs["input_ids"][:, : len(first)].tolist()
        output.logits = output.logits * (float("inf") if first in rows else 1.0)
        return output

    model.register_forward_hook(spoil, with_kwargs=True)


def plain_training(case: Case) -> tuple[list[dict[str, float]], Tensors]:
    """The same in plain PyTorch: one loss, autograd, clipping and AdamW of torch."""
    task, config = case.task(), case.config
    model = model_of(case.base, config)
    params = {name: param for name, param in model.named_parameters() if param.requires_grad}
    optimizer = torch.optim.AdamW(params.values(), lr=0.0, weight_decay=config.training.weight_decay)
    rate = learning_rates(config.training, task.schedule.steps)
    curve = []
    for step in range(task.schedule.steps):
        total = entry_loss = mean_loss(model, task.train, task.schedule.packs(step).tolist())
        entry = {"loss": entry_loss.item()}
        if task.replay is not None:
            again = mean_loss(model, task.replay.packs, task.replay.drawn(task.seed, step).tolist())
            total = total + task.replay.weight * again
            entry["replay_loss"] = again.item()
        if task.penalty is not None:
            moved = [
                (task.penalty.fisher[name] * (param - task.penalty.anchor[name]) ** 2).sum()
                for name, param in params.items()
            ]
            held = 0.5 * torch.stack(moved).sum()
            total = total + task.penalty.strength * held
            entry["penalty"] = held.item()
        optimizer.zero_grad()
        total.backward()
        entry["grad_norm"] = float(nn.utils.clip_grad_norm_(params.values(), config.training.clip_norm))
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        optimizer.step()
        curve.append(entry)
    return curve, {name: param.detach().clone() for name, param in params.items()}


def mean_loss(model: Any, packs: Packs, numbers: Sequence[int]) -> torch.Tensor:
    """The mean loss of the trained tokens of some documents, one after another and without padding."""
    total, tokens = torch.zeros(()), 0
    for number in numbers:
        inside = slice(packs.starts[number], packs.starts[number + 1])
        targets = torch.from_numpy(packs.targets[inside].astype(np.int64))
        logits = model(input_ids=torch.from_numpy(packs.tokens[inside].astype(np.int64))[None]).logits[0]
        total = total + nn.functional.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="sum")
        tokens += int((targets != IGNORED).sum())
    return total / tokens


def fishers(cases: Sequence[Case]) -> list[Tensors | str]:
    """On a worker: the Fisher information of the old documents, or what was said if refused."""
    return [_fisher(case) for case in cases]


def _fisher(case: Case) -> Tensors | str:
    config = case.config
    plan = deepspeed_config(config.training, config.workers, "float32", 1)
    model = model_of(case.base, config, plan)
    old = replay(1.0)
    if case.broken is not None:
        _break(model, old.packs, case.broken)
    engine = ZeroEngine(model, config.training, plan)
    before = engine.weights()
    try:
        found = diagonal_fisher(engine, old.packs, old.documents, 0, "sw")
    except NonFiniteLoss as exc:
        return str(exc)
    finally:
        after = engine.weights()
        engine.close()
    assert all(torch.equal(before[name], after[name]) for name in before)
    return found


def plain_gradients(base: str) -> list[Tensors]:
    """The gradient of each old document's log-likelihood, by autograd."""
    old = replay(1.0).packs
    model = model_of(base, Case(base).config)
    params = {name: param for name, param in model.named_parameters() if param.requires_grad}
    weights = list(params.values())
    losses = (mean_loss(model, old, [number]) * int(old.trained[number]) for number in range(len(old)))
    return [dict(zip(params, torch.autograd.grad(loss, weights), strict=True)) for loss in losses]
