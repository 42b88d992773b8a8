"""The numbers of a running training: tokens per second, memory, MFU, and where they are sent."""

from __future__ import annotations

import resource
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray

from compass_ray.adapt.config import TrackerConfig, WorkersConfig
from compass_ray.adapt.flops import ModelSize, peak_flops, step_flops
from compass_ray.adapt.packing import Packs
from compass_ray.adapt.training.engine import ZeroEngine
from compass_ray.adapt.training.loop import Task
from compass_ray.adapt.training.track import Gauges, Tracker, open_tracker

_SHOWN = ("step", "epoch", "loss", "replay_loss", "penalty", "heldout_loss", "learning_rate", "grad_norm")


class Reporter:
    """Sends the numbers of an update where they are wanted; a barrier for all workers every ``log_steps``."""

    def __init__(
        self, engine: ZeroEngine, task: Task, workers: WorkersConfig, tracker: TrackerConfig, name: str, tally: Any
    ) -> None:
        self._task, self._log_steps, self._tally = task, workers.log_steps, tally
        self._first = dist.get_rank() == 0
        self._size = model_size(engine.model)
        self._peak = peak_flops(torch.cuda.get_device_name()) if engine.device.type == "cuda" else None
        self._pairs = _pairs(task.train)
        self._replay_pairs = None if task.replay is None else _pairs(task.replay.packs)
        self._tracker: Tracker | None = None
        self._since: list[Mapping[str, Any]] = []
        self._gauges = Gauges(task.label) if self._first else None
        if self._first:
            self._tracker = open_tracker(tracker, f"{name}-{task.label}")

    def __call__(self, entry: dict[str, Any]) -> None:
        self._since.append(entry)
        step, last = entry["step"], self._task.schedule.steps
        if step % self._log_steps and step != last:
            return
        metrics = self._metrics(self._since)
        self._since = []
        if self._first:
            self._tally.set.remote(self._task.label, step)
        if self._gauges:
            self._gauges.log(metrics)
        if self._tracker:
            self._tracker.log(step, metrics)
        import ray.train

        ray.train.report({"lang": self._task.label, **metrics})

    def _metrics(self, entries: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        seconds = sum(entry["seconds"] for entry in entries)
        newest = entries[-1]
        metrics = {name: float(newest[name]) for name in _SHOWN if name in newest}
        metrics["tokens_per_s"] = sum(entry["tokens"] + self._replayed(entry)[0] for entry in entries) / seconds
        metrics["memory_bytes"] = float(peak_memory())
        if self._peak is not None:
            flops = sum(self._flops(entry) for entry in entries)
            metrics["mfu"] = flops / seconds / (self._peak * dist.get_world_size())
        return metrics

    def _flops(self, entry: Mapping[str, Any]) -> float:
        pairs = float(self._pairs[self._task.schedule.packs(entry["step"] - 1)].sum())
        tokens, trained, replay_pairs = self._replayed(entry)
        return step_flops(self._size, entry["tokens"] + tokens, entry["trained_tokens"] + trained, pairs + replay_pairs)

    def _replayed(self, entry: Mapping[str, Any]) -> tuple[int, int, float]:
        """Count the tokens of an update that were replayed, those trained, and the pairs that attend."""
        if self._task.replay is None or self._replay_pairs is None:
            return 0, 0, 0.0
        packs, numbers = self._task.replay.packs, self._task.replay.drawn(self._task.seed, entry["step"] - 1)
        return (
            int(packs.lengths[numbers].sum()),
            int(packs.trained[numbers].sum()),
            float(self._replay_pairs[numbers].sum()),
        )

    def close(self) -> None:
        if self._tracker:
            self._tracker.close()


def _pairs(packs: Packs) -> NDArray[np.int64]:
    """Count the pairs of tokens that attend to each other in every pack."""
    pairs: NDArray[np.int64] = np.add.reduceat(packs.positions.astype(np.int64) + 1, packs.starts[:-1])
    return pairs


def peak_memory() -> int:
    """Read the peak bytes of this worker. They are those of its GPU, or of the process where it has none."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def model_size(model: Any) -> ModelSize:
    """Measure the size of a model as its cost sees it."""
    apart = {id(model.get_input_embeddings().weight)}  # looked up for free
    output = 0
    if (head := model.get_output_embeddings()) is not None and not head.weight.requires_grad:
        output = _elements(head.weight)
        apart.add(id(head.weight))  # tied to the former, or not
    params = {id(param): param for param in model.parameters()}
    frozen = sum(_elements(param) for key, param in params.items() if key not in apart and not param.requires_grad)
    trained = sum(_elements(param) for param in params.values() if param.requires_grad)
    config = model.config
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return ModelSize(frozen, trained, output, config.num_hidden_layers, width * config.num_attention_heads)


def _elements(param: Any) -> int:
    return int(getattr(param, "ds_numel", param.numel()))
