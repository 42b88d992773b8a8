"""Checkpoints of a training: whole tensors and a little JSON in one safetensors file, local or on an object store.

They lie beside the adapter that they become, ``<cache>/adapter-<lang>-<fingerprint>/_training/``, so changed data or a
changed config never finds them. Random numbers, data position and learning rate are functions of the step (see
``schedule``), so the step is all the state that they have. Each file appears whole; the last two are kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from compass_ray import storage
from compass_ray.adapt.training.engine import ZeroEngine
from compass_ray.adapt.training.isolation import check_isolation
from compass_ray.adapt.training.loop import State, Task, train
from compass_ray.adapt.training.reporter import Reporter
from compass_ray.errors import ArtifactCorrupt

_KEPT = 2
_WEIGHTS, _MOMENTS, _BEST = "weights", "moments", "best"

Tensors = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """A training after ``state.step`` updates."""

    state: State
    weights: Tensors
    moments: Tensors
    best: Tensors | None


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints of one training, in a folder of their own."""

    url: str

    def save(self, checkpoint: Checkpoint) -> None:
        """Write a checkpoint and remove all but the last two."""
        from safetensors.torch import save

        parts = {_WEIGHTS: checkpoint.weights, _MOMENTS: checkpoint.moments, _BEST: checkpoint.best or {}}
        tensors = {
            f"{part}:{name}": value.contiguous() for part, members in parts.items() for name, value in members.items()
        }
        data = save(tensors, metadata={"state": json.dumps(checkpoint.state.to_json())})
        storage.write_bytes(storage.join(self.url, f"step-{checkpoint.state.step:08d}.safetensors"), data)
        for name in self._names()[:-_KEPT]:
            storage.delete(name)

    def latest(self) -> str | None:
        """Find the URL of the newest checkpoint."""
        names = self._names()
        return names[-1] if names else None

    def clear(self) -> None:
        """Remove all checkpoints: the training has become an adapter."""
        for name in self._names():
            storage.delete(name)

    def _names(self) -> list[str]:
        return [file.url for file in storage.list_files(storage.join(storage.literal(self.url), "step-*.safetensors"))]


def train_resumably(
    model: Any,
    task: Task,
    plan: dict[str, Any],
    checkpoints: Checkpoints,
    reporter: Callable[[ZeroEngine], Reporter],
    checkpoint_steps: int,
    *,
    packing: bool = True,
    start: Tensors | None = None,
) -> tuple[ZeroEngine, Tensors, State]:
    """Train from the newest checkpoint, or from the model as it is; to be called on all workers.

    Parameters
    ----------
    model : nn.Module
    task : Task
    plan : dict
        DeepSpeed's config.
    checkpoints : Checkpoints
    reporter : callable
        Makes the reporter of an engine.
    checkpoint_steps : int
        Updates between checkpoints.
    packing : bool
        Whether packs hold several documents, which must not see each other.
    start : dict of Tensor, optional
        Trained weights that the training begins with. The model has them already, but may have rounded them.

    Returns
    -------
    engine : ZeroEngine
        With the trained weights in place; the caller closes it.
    weights : dict of Tensor
    state : State
    """
    first = dist.get_rank() == 0
    newest = agreed(checkpoints.latest() if first else None)
    checkpoint = None if newest is None else load(newest)
    if checkpoint is not None:
        model.load_state_dict(checkpoint.weights, strict=False)
    engine = ZeroEngine(model, task.config, plan)
    if packing:
        with engine.evaluating():
            check_isolation(engine.loss, model.get_input_embeddings().num_embeddings, task.micro_batch, engine.device)
    engine.warm()
    state, best = State(), None
    if checkpoint is not None:
        state, best = checkpoint.state, checkpoint.best
        engine.set_weights(checkpoint.weights)
        engine.set_moments(checkpoint.moments, state.step)
    elif start is not None:
        engine.set_weights(start)

    def save(state: State, weights: Tensors, moments: Tensors, best: Tensors | None) -> None:
        if first:
            checkpoints.save(Checkpoint(state, weights, moments, best))

    report = reporter(engine)
    try:
        weights = train(engine, task, state, best, save, report, checkpoint_steps)
        engine.set_weights(weights)
    except BaseException:
        engine.close()
        raise
    finally:
        report.close()
    return engine, weights, state


def agreed(value: Any) -> Any:
    """Tell all workers what the first one found."""
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def load(url: str) -> Checkpoint:
    """Read a checkpoint.

    Raises
    ------
    ArtifactCorrupt
        If it is not what :meth:`Checkpoints.save` writes.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load as load_tensors

    data = storage.read_bytes(url)
    try:
        tensors = load_tensors(data)
        state = State(**json.loads(metadata_of(data)["state"]))
    except (SafetensorError, KeyError, TypeError, ValueError) as exc:
        raise ArtifactCorrupt(f"{url}: not a checkpoint of a training ({exc}); remove it and run again") from exc
    best = _part(tensors, _BEST)
    return Checkpoint(state, _part(tensors, _WEIGHTS), _part(tensors, _MOMENTS), best or None)


def _part(tensors: Mapping[str, torch.Tensor], part: str) -> Tensors:
    prefix = f"{part}:"
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def metadata_of(data: bytes) -> dict[str, str]:
    """Read the free part of a safetensors header. The header is its length in 8 bytes, then JSON."""
    size = int.from_bytes(data[:8], "little")
    metadata: dict[str, str] = json.loads(data[8 : 8 + size])["__metadata__"]
    return metadata
