"""The portable profile: plain LoRA of one rank that vLLM and others load.

No DoRA, rank-stabilised scaling, bias or saved modules; one rank of 8, 16, 32 or 64 with one ``lora_alpha``, and a
list of target modules. Plain LoRA gets there by exact algebra: missing ranks are zeros, and the scaling moves into
``lora_alpha``. Everything else is approximated, see ``approximate``.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compass_ray.errors import ConfigError, IncompatibleAdapter
from compass_ray.models import BaseRef
from compass_ray.registry.contents import CONFIG, WEIGHTS, read_config

if TYPE_CHECKING:
    import torch

PORTABLE_RANKS = (8, 16, 32, 64)
_OUTPUTS = ("lm_head", "embed_out")
"""What transformers calls the output layer of causal language models."""

_FACTOR = re.compile(r"(?P<module>.+)\.lora_(?P<side>[AB])\.weight")
_PREFIX = "base_model.model."
_OTHER_THAN_LORA = (
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "layer_replication",
    "lora_bias",
    "modules_to_save",
    "monteclora_config",
    "target_parameters",
    "trainable_token_indices",
    "use_bdlora",
    "use_qalora",
)
"""Fields of peft's LoraConfig that change what the factors mean, or add to them."""

Factors = dict[str, tuple["torch.Tensor", "torch.Tensor"]]
"""Module -> (A of shape (rank, n_inputs), B of shape (n_outputs, rank))."""


@dataclass(frozen=True)
class Source:
    """An adapter as it was trained."""

    config: dict[str, Any]
    factors: Factors
    is_dora: bool

    @property
    def rank(self) -> int:
        """The largest rank of a module."""
        return max(int(a.shape[0]) for a, _ in self.factors.values())

    @property
    def dtype(self) -> torch.dtype:
        """Type of the factors."""
        return next(iter(self.factors.values()))[0].dtype

    def scaling(self, module: str) -> float:
        """Compute what the product of a module's factors is multiplied with."""
        patterns = self.config.get("alpha_pattern") or {}
        inner = module.removeprefix(_PREFIX)
        found = (alpha for pattern, alpha in patterns.items() if re.fullmatch(rf"(.*\.)?({pattern})", inner))
        alpha = float(next(found, self.config["lora_alpha"]))
        rank = self.factors[module][0].shape[0]
        return alpha / (math.sqrt(rank) if self.config.get("use_rslora") else rank)


def read_source(folder: Path) -> Source:
    """Read the adapter in a folder.

    Raises
    ------
    IncompatibleAdapter
        If it is more than LoRA or DoRA of linear modules.
    """
    from safetensors.torch import load_file

    config = read_config((folder / CONFIG).read_bytes())
    others = [name for name in _OTHER_THAN_LORA if config.get(name)]
    if others or config.get("bias", "none") != "none":
        raise IncompatibleAdapter(
            f"the portable profile has no {', '.join(others or ['bias'])}; export with --format merged instead"
        )
    halves: dict[str, dict[str, torch.Tensor]] = {}
    is_dora = bool(config.get("use_dora"))
    for name, tensor in load_file(folder / WEIGHTS).items():
        match = _FACTOR.fullmatch(name)
        if match and tensor.ndim == 2:
            halves.setdefault(match["module"], {})[match["side"]] = tensor
        elif not (is_dora and ".lora_magnitude_vector" in name):
            raise IncompatibleAdapter(
                f"the portable profile has only factors of linear modules, not {name} of shape {tuple(tensor.shape)}; "
                "export with --format merged instead"
            )
    if odd := sorted(module for module, half in halves.items() if half.keys() != {"A", "B"}):
        raise IncompatibleAdapter(f"{odd[0]} has one factor without the other; save the adapter again")
    return Source(config, {module: (half["A"], half["B"]) for module, half in halves.items()}, is_dora)


def portable_rank(source: Source, wanted: int | None) -> int:
    """Choose the rank to export with.

    It is as asked for, else the smallest portable one that holds the adapter, else the largest.

    Raises
    ------
    ConfigError
        If the rank asked for is not portable.
    """
    if wanted is None:
        return next((rank for rank in PORTABLE_RANKS if rank >= source.rank), PORTABLE_RANKS[-1])
    if wanted not in PORTABLE_RANKS:
        raise ConfigError(f"--rank {wanted}: the portable ranks are {', '.join(map(str, PORTABLE_RANKS))}")
    return wanted


def is_exact(source: Source, rank: int) -> bool:
    """Tell whether the adapter can be written with this rank without loss."""
    return not source.is_dora and source.rank <= rank


def updates_output(source: Source) -> bool:
    """Tell whether the output layer gets an update.

    No server can apply it where the base ties that to the embedding.
    """
    return any(module.rpartition(".")[2] in _OUTPUTS for module in source.factors)


def convert(source: Source, rank: int) -> tuple[Factors, float]:
    """Bring the factors to one rank, and find their ``lora_alpha``. The products of scaling, B and A are the same.

    Where all modules are scaled alike the factors stay as they are; otherwise each B takes its own scaling.
    """
    scalings = {module: source.scaling(module) for module in source.factors}
    shared = next(iter(scalings.values())) if len(set(scalings.values())) == 1 else None
    factors = {}
    for module, (a, b) in source.factors.items():
        scaled = b if shared is not None else (b.float() * scalings[module]).to(b.dtype)
        factors[module] = padded(a, scaled, rank)
    return factors, rank * (1.0 if shared is None else shared)


def padded(a: torch.Tensor, b: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Fill factors with zeros up to a rank: their product is the same."""
    from torch.nn.functional import pad

    missing = rank - a.shape[0]
    return pad(a, (0, 0, 0, missing)), pad(b, (0, missing))


def write_portable(folder: Path, source: Source, factors: Factors, alpha: float, base: BaseRef) -> None:
    """Write the two files of a portable adapter."""
    from safetensors.torch import save_file

    rank = next(iter(factors.values()))[0].shape[0]
    targets = source.config.get("target_modules")
    config = {
        "peft_type": "LORA",
        "task_type": source.config.get("task_type") or "CAUSAL_LM",
        "base_model_name_or_path": base.name,
        "revision": base.revision,
        "inference_mode": True,
        "r": rank,
        "lora_alpha": int(alpha) if alpha.is_integer() else alpha,
        "lora_dropout": 0.0,
        "bias": "none",
        "modules_to_save": None,
        "use_rslora": False,
        "use_dora": False,
        "fan_in_fan_out": bool(source.config.get("fan_in_fan_out")),
        "rank_pattern": {},
        "alpha_pattern": {},
        # a pattern becomes the list of the modules that it matched
        "target_modules": sorted(targets if isinstance(targets, list) else (m.removeprefix(_PREFIX) for m in factors)),
        **{name: source.config.get(name) for name in ("exclude_modules", "layers_to_transform", "layers_pattern")},
    }
    (folder / CONFIG).write_text(json.dumps(config, indent=1, ensure_ascii=False), encoding="utf-8")
    tensors = {}
    for module, (a, b) in factors.items():
        tensors[f"{module}.lora_A.weight"] = a.contiguous()
        tensors[f"{module}.lora_B.weight"] = b.contiguous()
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
