"""The training loop on Ray Train: one table, any number of workers, resumed from its last checkpoint.

Workers hold all token ids (4 bytes a token) and the table with Adam's two moments (12·V·d bytes); gradients are
averaged over workers. With one worker and one thread the same inputs give the same bits, interrupted or not: a batch
depends on seed, step and rank alone.
"""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compass_ray.embed.training.bags import BatchSampler, TokenBags
from compass_ray.embed.training.config import EncoderTraining
from compass_ray.errors import NonFiniteLoss, ResourcesMissing
from compass_ray.interrupts import kept_handler
from compass_ray.runtime.progress import Display
from compass_ray.runtime.tally import watched
from compass_ray.runtime.threads import set_threads

_STATE = "state.safetensors"
_RUN = "training"


def train_table(
    bags: TokenBags,
    batch_groups: dict[int, int],
    first: NDArray[np.float32],
    teacher: NDArray[np.float32] | None,
    projection: NDArray[np.float32] | None,
    config: EncoderTraining,
    folder: str,
    display: Display,
) -> NDArray[np.float32]:
    """Train the vectors of all pieces.

    Parameters
    ----------
    bags : TokenBags
    batch_groups : mapping of corpus number to int
        Groups of each corpus in a batch.
    first : ndarray of shape (n_pieces, d), float32
    teacher : ndarray of shape (n_groups, d_teacher), float32, optional
    projection : ndarray of shape (d_teacher, d), float32, optional
    config : EncoderTraining
    folder : str
        Where Ray Train keeps checkpoints and finds them again: another folder for anything that changes the result.
    display : Display

    Returns
    -------
    ndarray of shape (n_pieces, d), float32

    Raises
    ------
    NonFiniteLoss
        If training diverges.
    ResourcesMissing
        At once, instead of waiting for ever, if the cluster has too few CPUs for the workers.
    """
    import ray
    from ray.train import CheckpointConfig, FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    from compass_ray.runtime.cluster import room_for

    room = room_for(config.threads, 0, "training.threads")
    if config.workers > room:
        raise ResourcesMissing(
            f"training.workers: {config.workers} workers with {config.threads} CPUs each do not fit into the cluster, "
            f"which has room for {room}; lower training.workers or join a larger cluster"
        )
    with watched(display, "train", config.steps, "steps") as progress:
        trainer = TorchTrainer(
            _work,
            train_loop_config={
                "arrays": ray.put((bags, first, teacher, projection)),
                "batch_groups": batch_groups,
                "config": config,
                "progress": progress,
            },
            scaling_config=ScalingConfig(num_workers=config.workers, resources_per_worker={"CPU": config.threads}),
            run_config=RunConfig(
                name=_RUN,
                storage_path=folder,
                failure_config=FailureConfig(max_failures=2),
                checkpoint_config=CheckpointConfig(num_to_keep=2),
            ),
        )
        with kept_handler():
            result = trainer.fit()
    with result.checkpoint.as_directory() as path:
        state, _ = _load(Path(path))
    vectors = np.asarray(state["pieces.weight"].numpy())
    if not np.isfinite(vectors).all():
        raise NonFiniteLoss("training: the last step left vectors that are not finite; lower training.learning_rate")
    return vectors


def _work(settings: dict[str, Any]) -> None:
    """Do the work of one Ray Train worker."""
    import ray
    import ray.train
    import ray.train.torch
    import torch

    from compass_ray.embed.training.contrastive import StaticTable, batch_loss

    config: EncoderTraining = settings["config"]
    set_threads(config.threads)
    bags, first, teacher, projection = ray.get(settings["arrays"])
    context = ray.train.get_context()
    sampler = BatchSampler(bags, settings["batch_groups"], config.token_dropout, config.seed)
    targets = None if teacher is None else torch.from_numpy(np.array(teacher))
    table = StaticTable(np.array(first), None if projection is None else np.array(projection))
    model = ray.train.torch.prepare_model(table)
    optimizer = torch.optim.Adam(model.parameters(), lr=config.learning_rate, fused=True)
    start = 0
    if checkpoint := ray.train.get_checkpoint():
        with checkpoint.as_directory() as folder:
            state, start = _load(Path(folder))
        _restore(table, optimizer, state, start)
    for step in range(start, config.steps):
        loss = batch_loss(
            model, sampler.batch(step, context.get_world_rank()), targets, config.scale, config.teacher_weight
        )
        if not torch.isfinite(loss):
            raise NonFiniteLoss(f"training: the loss is {loss.item()} at step {step}; lower training.learning_rate")
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = one_cycle(step, config.steps, config.learning_rate)
        optimizer.step()
        done = step + 1
        if context.get_world_rank() == 0 and (done % 50 == 0 or done == config.steps):
            settings["progress"].set.remote("steps", done)
        if done % config.checkpoint_steps == 0 or done == config.steps:
            _report(table, optimizer, done, loss.item(), first_rank=context.get_world_rank() == 0)


def one_cycle(step: int, steps: int, peak: float) -> float:
    """Compute the learning rate of a step.

    It goes up over three tenths of the steps, then down to nothing, both as half a cosine.

    After Smith & Topin (2018).
    """
    up = max(1, round(0.3 * steps))
    if step < up:
        return peak * (1 - math.cos(math.pi * (step + 1) / up)) / 2
    return peak * (1 + math.cos(math.pi * (step - up + 1) / max(1, steps - up))) / 2


def _report(table: Any, optimizer: Any, step: int, loss: float, *, first_rank: bool) -> None:
    """Save a checkpoint on the first rank; a barrier for all."""
    import ray.train
    from safetensors.torch import save_file

    with tempfile.TemporaryDirectory() as folder:
        checkpoint = None
        if first_rank:
            state = dict(table.state_dict())
            for (name, _), moments in zip(
                table.named_parameters(), optimizer.state_dict()["state"].values(), strict=True
            ):
                state |= {f"{name}/exp_avg": moments["exp_avg"], f"{name}/exp_avg_sq": moments["exp_avg_sq"]}
            save_file(state, Path(folder, _STATE), metadata={"step": str(step)})
            checkpoint = ray.train.Checkpoint.from_directory(folder)
        ray.train.report({"step": step, "loss": loss}, checkpoint=checkpoint)


def _load(folder: Path) -> tuple[dict[str, Any], int]:
    from safetensors import safe_open

    with safe_open(folder / _STATE, framework="pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, int(file.metadata()["step"])  # noqa: SIM118


def _restore(table: Any, optimizer: Any, state: dict[str, Any], step: int) -> None:
    import torch

    names = [name for name, _ in table.named_parameters()]
    table.load_state_dict({name: state[name] for name in names})
    loaded = optimizer.state_dict()
    loaded["state"] = {
        number: {
            "step": torch.tensor(float(step)),
            "exp_avg": state[f"{name}/exp_avg"],
            "exp_avg_sq": state[f"{name}/exp_avg_sq"],
        }
        for number, name in enumerate(names)
    }
    optimizer.load_state_dict(loaded)
