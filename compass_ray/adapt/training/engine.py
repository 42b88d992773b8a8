"""The DeepSpeed engine of one training, seen as whole tensors.

ZeRO cuts weights and optimizer state into pieces whose shapes depend on the stage and the number of workers. What this
module reads and writes are the whole tensors, so a checkpoint belongs to a training and not to a cluster: it holds no
pickle, and a training may go on with other workers or another stage. An adapter is small; gathering it costs
12 bytes a parameter on every worker for as long as a checkpoint takes.

DeepSpeed is driven directly: the trainers of transformers and TRL fall back to DistributedDataParallel on CPUs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import nn

from compass_ray.adapt.config import TrainingConfig, WorkersConfig
from compass_ray.adapt.packing import IGNORED

MOMENTS = ("exp_avg", "exp_avg_sq")
_NEVER = 1 << 40


class CausalLoss(nn.Module):  # type: ignore[misc]
    """A causal language model as its summed loss over a batch.

    Logits are made at positions that count, and at no others: with a vocabulary of 128,000 they are the largest
    tensor of a step, and a masked prompt needs none.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, position_ids: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Sum the negative log-likelihoods in nats.

        Parameters
        ----------
        input_ids, position_ids, targets : Tensor of shape (n, length), int64
            ``targets`` is already shifted, and :data:`IGNORED` where nothing is predicted.
        """
        kept = (targets != IGNORED).any(dim=0).nonzero().squeeze(1)
        if not kept.numel():
            kept = torch.zeros(1, dtype=torch.long, device=targets.device)  # all workers have a graph to reduce
        logits = self.model(
            input_ids=input_ids, position_ids=position_ids, use_cache=False, logits_to_keep=kept
        ).logits.float()
        return nn.functional.cross_entropy(
            logits.flatten(0, 1), targets[:, kept].flatten(), ignore_index=IGNORED, reduction="sum"
        )


def deepspeed_config(training: TrainingConfig, workers: WorkersConfig, dtype: str, accumulation: int) -> dict[str, Any]:
    """Build what DeepSpeed is told; every value comes from the config."""
    zero: dict[str, Any] = {"stage": workers.zero_stage}
    if workers.offload != "none":
        zero["offload_optimizer"] = {"device": "cpu", "pin_memory": True}
    if workers.offload == "optimizer+base":
        zero["offload_param"] = {"device": "cpu", "pin_memory": True}
    return {
        "train_micro_batch_size_per_gpu": workers.micro_batch,
        "gradient_accumulation_steps": accumulation,
        "gradient_clipping": training.clip_norm,
        "bf16": {"enabled": dtype == "bfloat16"},
        "zero_optimization": zero,
        "zero_force_ds_cpu_optimizer": False,  # torch's AdamW: an adapter is too small to compile a kernel for
        "steps_per_print": _NEVER,
    }


def prepare_process(device: str) -> None:
    """Set up this worker for DeepSpeed; to be called before anything imports it."""
    if device == "cpu":
        os.environ["DS_ACCELERATOR"] = "cpu"
    import logging

    import deepspeed.ops
    from deepspeed.utils import logger

    logger.setLevel(logging.ERROR)
    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # would be compiled for a minute; gloo does


class ZeroEngine:
    """A training under way: forward, backward and update of a model whose trainable weights are sharded by ZeRO.

    Parameters
    ----------
    model : nn.Module
        A causal language model; parameters with ``requires_grad`` are trained.
    training : TrainingConfig
    config : dict
        See :func:`deepspeed_config`.
    """

    def __init__(self, model: nn.Module, training: TrainingConfig, config: dict[str, Any]) -> None:
        import deepspeed

        self.model = model
        self._names = {name: param for name, param in model.named_parameters() if param.requires_grad}
        optimizer = torch.optim.AdamW(self._names.values(), lr=0.0, weight_decay=training.weight_decay)
        trained = sum(int(getattr(param, "ds_numel", param.numel())) for param in self._names.values())
        zero = {**config["zero_optimization"], "reduce_bucket_size": trained}  # of all it has, not of half a billion
        self._engine, *_ = deepspeed.initialize(
            model=CausalLoss(model), optimizer=optimizer, config={**config, "zero_optimization": zero}
        )
        if not isinstance(self._engine, deepspeed.DeepSpeedEngine) or self._engine.zero_optimization_stage() < 1:
            raise AssertionError(f"expected a DeepSpeed engine with ZeRO, found {type(self._engine).__name__}")
        self._sharded = self._engine.zero_optimization_stage() == 3
        self._warmed = False

    @property
    def device(self) -> torch.device:
        """Where batches go."""
        return torch.device(self._engine.device)

    @property
    def accumulation(self) -> int:
        """Micro-batches of one update."""
        return int(self._engine.gradient_accumulation_steps())

    @property
    def trained(self) -> Mapping[str, nn.Parameter]:
        """The parameters that are trained, by name; with ZeRO-3 pieces of them."""
        return self._names

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """List the shapes of the whole trained parameters."""
        return {name: tuple(getattr(param, "ds_shape", param.shape)) for name, param in self._names.items()}

    def loss(self, batch: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """Compute the summed loss of one micro-batch on this worker."""
        return self._engine(**batch)

    def backward(self, loss: torch.Tensor) -> None:
        """Accumulate gradients of a loss that is already scaled."""
        self._engine.backward(loss)

    def step(self, learning_rate: float) -> None:
        """End a micro-batch; the last of an update changes the weights."""
        for group in self._engine.optimizer.param_groups:
            group["lr"] = learning_rate
        self._engine.step()

    def grad_norm(self) -> float:
        """Read the global norm of the last update's gradients, before clipping."""
        norm = self._engine.get_global_grad_norm()
        return float("nan") if norm is None else float(norm)

    def gradients(self) -> dict[str, torch.Tensor]:
        """Gather the averaged gradients of an update as whole float32 tensors on the CPU.

        They exist between the backward of an update's last micro-batch and its step. All workers take part, and all get
        them.
        """
        from deepspeed.utils import safe_get_full_grad

        return {name: safe_get_full_grad(param).float().cpu().clone() for name, param in self._names.items()}

    def add_gradients(self, added: Mapping[str, torch.Tensor]) -> None:
        """Add whole tensors to the averaged gradients of an update, where :meth:`gradients` has them.

        What is added is averaged over nothing, and is part of the norm that clipping sees. It has the precision of the
        gradients: that of the activations. All workers take part, each with the same tensors.
        """
        from deepspeed.utils import safe_get_full_grad, safe_get_local_grad, safe_set_full_grad, safe_set_local_grad

        for name, param in self._names.items():
            value = added[name].to(self.device)
            if self._sharded:  # the last piece is longer than what is left of a tensor: DeepSpeed sets no whole one
                safe_set_local_grad(param, safe_get_local_grad(param) + _piece(param, value))
            else:
                safe_set_full_grad(param, safe_get_full_grad(param) + value)
                self._renew_norm(param)

    def _renew_norm(self, param: nn.Parameter) -> None:
        """Measure a gradient again that DeepSpeed has measured before, as it does with an offloaded optimizer."""
        optimizer = self._engine.optimizer
        if optimizer.cpu_offload and param._hp_mapping is not None:
            fragment = param._hp_mapping.get_lp_grad_fragment(param._index_in_param_group)
            optimizer.norm_for_param_grads[optimizer.get_param_id(param)] = fragment.double().norm()

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Switch off gradients and dropout until the block is left."""
        self._engine.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self._engine.train()

    def weights(self) -> dict[str, torch.Tensor]:
        """Gather trained weights as whole float32 tensors on the CPU. All workers take part, and all get them."""
        from deepspeed.utils import safe_get_full_fp32_param

        return {name: safe_get_full_fp32_param(param).cpu().clone() for name, param in self._names.items()}

    def moments(self) -> dict[str, torch.Tensor]:
        """Gather Adam's moments as whole tensors, ``<parameter>/exp_avg`` and ``<parameter>/exp_avg_sq``."""
        from deepspeed.utils import safe_get_full_optimizer_state

        return {
            f"{name}/{key}": safe_get_full_optimizer_state(param, key).cpu().clone()
            for name, param in self._names.items()
            for key in MOMENTS
        }

    def set_weights(self, weights: Mapping[str, torch.Tensor]) -> None:
        """Put whole tensors in the place of the trained weights, master copies included."""
        from deepspeed.utils import safe_set_full_fp32_param, safe_set_local_fp32_param

        for name, param in self._names.items():
            value = weights[name].to(param.device)
            if self._sharded:
                safe_set_local_fp32_param(param, _piece(param, value))
            else:
                safe_set_full_fp32_param(param, value)
            with self._whole([param]):
                param.data.copy_(value)

    def warm(self) -> None:
        """Make the optimizer's state exist: one update of an empty batch, at learning rate zero.

        ZeRO creates the state at the first update (stage 3 by one of its own), and it can be filled only then. Nothing
        is learnt, and the count of updates starts anew, so that all stages and a bare AdamW agree from the first one.
        """
        nothing = torch.zeros((1, 8), dtype=torch.long, device=self.device)
        for _ in range(self.accumulation):
            empty = self.loss({"input_ids": nothing, "position_ids": nothing, "targets": nothing + IGNORED})
            self.backward(empty)
            self.step(0.0)
        self._set_count(0)
        self._warmed = True

    def set_moments(self, moments: Mapping[str, torch.Tensor], updates: int) -> None:
        """Put whole tensors in the place of Adam's moments, after ``updates`` updates."""
        from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

        if not self._warmed:
            self.warm()
        for name, param in self._names.items():
            for key in MOMENTS:
                value = moments[f"{name}/{key}"].to(param.device)
                if self._sharded:
                    safe_set_local_optimizer_state(param, _piece(param, value), key)
                else:
                    safe_set_full_optimizer_state(param, value, key)
        self._set_count(updates)

    def _set_count(self, updates: int) -> None:
        for state in self._engine.optimizer.optimizer.state.values():
            state["step"] = torch.full_like(torch.as_tensor(state["step"]), float(updates))

    def _whole(self, params: list[nn.Parameter]) -> Any:
        if not self._sharded:
            return nullcontext()
        import deepspeed

        return deepspeed.zero.GatheredParameters(params, modifier_rank=0)

    def close(self) -> None:
        """Let go of hooks and buffers, so that the next training starts clean."""
        self._engine.destroy()


def _piece(param: nn.Parameter, value: torch.Tensor) -> torch.Tensor:
    """Cut this worker's piece of a tensor as ZeRO-3 does. Pieces are equal, the last filled up with zeros."""
    import torch.distributed

    size = param.ds_tensor.numel()
    start = torch.distributed.get_rank() * size
    flat = value.flatten()[start : start + size].float()
    return nn.functional.pad(flat, (0, size - flat.numel()))
