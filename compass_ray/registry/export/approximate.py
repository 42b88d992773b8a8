"""An adapter as plain LoRA of a given rank by merging it and factoring the difference: for DoRA, and to reduce a rank.

For every module W' - W is truncated to its largest singular values. DoRA's change of magnitudes has full rank, so this
loses something; how much it matters is for ``agreement`` to say. Dropping the magnitudes instead, as peft's own
conversion does, would lose it silently.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from compass_ray.registry.export.portable import Factors, padded

if TYPE_CHECKING:
    import torch

_OVERSAMPLING = 16
_ITERATIONS = 6


def approximate(model: Any, dtype: torch.dtype, rank: int) -> tuple[Factors, float]:
    """Find an adapter's factors of a rank and their ``lora_alpha``. The adapter is on a loaded PEFT model in float32.

    The base weights are as before when this returns. One module's difference is held at a time.
    """
    from peft.tuners.lora import LoraLayer

    factors = {}
    for name, layer in model.named_modules():
        if isinstance(layer, LoraLayer):
            a, b = factored(_difference(layer), rank)
            factors[name] = a.to(dtype), b.to(dtype)
    return factors, float(rank)


def _difference(layer: Any) -> torch.Tensor:
    """Compute W' - W of shape (n_outputs, n_inputs)."""
    import torch

    parameter = layer.get_base_layer().weight
    with torch.no_grad():
        before = parameter.data
        layer.merge(safe_merge=True)  # into a copy
        difference = parameter.data - before
        parameter.data = before  # not by unmerge, which would round
        layer.merged_adapters.clear()
    return difference.T if layer.fan_in_fan_out else difference


def factored(matrix: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Find factors A and B: B A is the closest matrix of that rank.

    A is of shape (rank, n_inputs) and B of shape (n_outputs, rank).

    By subspace iteration (Halko, Martinsson & Tropp 2011, algorithm 4.4), exact where rank and oversampling reach the
    smaller side of the matrix: a full decomposition of every module of a large model would take hours.
    """
    import torch

    width = min(2 * rank + _OVERSAMPLING, *matrix.shape)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        u, s, v = torch.svd_lowrank(matrix, q=width, niter=_ITERATIONS)
    kept = min(rank, width)
    root = s[:kept].sqrt()
    return padded(root[:, None] * v[:, :kept].T, u[:, :kept] * root, rank)
