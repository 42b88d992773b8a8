"""Train the adapter of one cell of the proof, and spread its loss over held-out documents.

One process, no Ray: examples, packs, order, loss, adapter and learning rates are those of ``compass_ray.adapt``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from compass_ray.adapt.config import AdaptConfig
from compass_ray.adapt.examples import Example, text_example
from compass_ray.adapt.packing import IGNORED, batch, make_packs
from compass_ray.adapt.schedule import Schedule
from compass_ray.adapt.training.engine import CausalLoss
from compass_ray.adapt.training.loop import learning_rates
from compass_ray.adapt.training.model import load_base, with_adapter

LENGTH = 256  # tokens of a pack; longer documents are cut
EVALUATED_TOKENS = 512  # padded, of one batch; larger ones are slower on a CPU


@dataclass(frozen=True)
class Trained:
    """What became of a training."""

    model: Any
    tokens: int  # trained
    updates: int
    loss: float  # of the last tenth of the updates, nats a token


def config_of(base: Path, learning_rate: float) -> AdaptConfig:
    """The adapter and its optimisation: the product's defaults, but one pack an update and one epoch."""
    training = {"batch_size": 1, "epochs": 1, "learning_rate": learning_rate}
    return AdaptConfig.model_validate({"base": str(base), "max_length": LENGTH, "training": training})


def tokenize(tokenizer: Any, texts: Sequence[str]) -> list[Example]:
    return [text_example(tokenizer, text, LENGTH) for text in texts]


def repeated(examples: Sequence[Example], tokens: int) -> list[Example]:
    """The examples over and over, the last one cut, until exactly so many tokens are trained."""
    if not any(example.trained.any() for example in examples):
        raise ValueError("no token to train on")
    chosen, left, place = [], tokens, 0
    while left:
        example = examples[place % len(examples)]
        stop = int(np.searchsorted(np.cumsum(example.trained), left)) + 1
        if example.trained.sum() > left:
            example = replace(example, tokens=example.tokens[:stop], trained=example.trained[:stop], truncated=True)
        chosen.append(example)
        left -= int(example.trained.sum())
        place += 1
    return chosen


def train(config: AdaptConfig, examples: Sequence[Example], seed: int, lang: str) -> Trained:
    """Train a fresh adapter on all examples, once."""
    model = with_adapter(load_base(Path(config.base), config), config, seed, lang)
    loss = CausalLoss(model.train())
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    settings = config.training
    optimizer = torch.optim.AdamW(weights, lr=settings.learning_rate, weight_decay=settings.weight_decay)
    packs = make_packs(examples, config.max_length)
    schedule = Schedule(len(packs), settings.batch_size, settings.epochs, None, seed)
    rate = learning_rates(settings, schedule.steps)
    curve = []
    for step in range(schedule.steps):
        numbers = schedule.packs(step)
        arrays = batch(packs, numbers.tolist(), 0)
        value = loss(**{name: torch.from_numpy(array) for name, array in arrays.items()}) / packs.trained[numbers].sum()
        if not torch.isfinite(value):
            raise ValueError(f"the loss is {float(value)} at step {step + 1}")
        value.backward()
        torch.nn.utils.clip_grad_norm_(weights, settings.clip_norm)
        for group in optimizer.param_groups:
            group["lr"] = rate(step)
        optimizer.step()
        optimizer.zero_grad()
        curve.append(float(value.detach()))
    return Trained(
        model, int(packs.trained.sum()), schedule.steps, float(np.mean(curve[-math.ceil(len(curve) / 10) :]))
    )


def bits(model: Any, examples: Sequence[Example]) -> NDArray[np.float64]:
    """Bits that each example costs, of shape (n,); the longest first, those of like length together."""
    packs = make_packs(examples, LENGTH, packing=False)
    order = np.argsort(-packs.lengths, kind="stable")
    found = np.zeros(len(packs))
    model.eval()
    while len(order):
        numbers, order = np.split(order, [max(1, EVALUATED_TOKENS // int(packs.lengths[order[0]]))])
        arrays = {name: torch.from_numpy(array) for name, array in batch(packs, numbers.tolist(), 0).items()}
        with torch.no_grad():
            logits = model(arrays["input_ids"], position_ids=arrays["position_ids"], use_cache=False).logits
            nats = torch.nn.functional.cross_entropy(
                logits.flatten(0, 1), arrays["targets"].flatten(), ignore_index=IGNORED, reduction="none"
            )
        found[numbers] = nats.view(len(numbers), -1).double().sum(dim=1).numpy() / math.log(2)
    return found
