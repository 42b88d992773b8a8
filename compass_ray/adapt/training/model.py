"""Base models and fresh adapters, as a worker loads them. Safetensors only, no remote code."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import torch

from compass_ray.adapt.config import AdaptConfig
from compass_ray.adapt.layers import last_part, updated_layers
from compass_ray.errors import ConfigError, ResourcesMissing
from compass_ray.seeding import child_seed


def load_base(folder: Path, config: AdaptConfig, plan: dict[str, Any] | None = None) -> Any:
    """Load the base model with frozen weights.

    Parameters
    ----------
    plan : dict, optional
        DeepSpeed's config. With ZeRO-3 every weight is cut as it is read, so that no device ever holds the whole base;
        but not for DoRA, whose magnitudes PEFT computes from whole weights.

    Raises
    ------
    ConfigError
        If the architecture is not a causal language model that transformers knows.
    ResourcesMissing
        If 4-bit weights are asked for and bitsandbytes is not there.
    """
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {
        "dtype": getattr(torch, config.compute_dtype),
        "attn_implementation": config.workers.attention,
        "trust_remote_code": False,
        "use_safetensors": True,
        "local_files_only": True,
    }
    if config.dtype == "nf4":
        options |= {"quantization_config": _four_bit(), "device_map": {"": torch.cuda.current_device()}}
    cut = plan is not None and plan["zero_optimization"]["stage"] == 3 and config.lora.method != "dora"
    sharding = _sharding(plan) if cut else None  # transformers looks for it as long as it lives
    try:
        base = AutoModelForCausalLM.from_pretrained(str(folder), **options)
    except (ValueError, OSError, ImportError, KeyError) as exc:
        raise ConfigError(
            f"adapt.base: {folder} cannot be loaded as a causal language model with safetensors weights, without "
            f"remote code and with attention '{config.workers.attention}' ({exc})"
        ) from exc
    finally:
        del sharding
    base.requires_grad_(False)
    if config.workers.gradient_checkpointing:
        base.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    return base


def _sharding(plan: dict[str, Any] | None) -> Any:
    from transformers.integrations import HfDeepSpeedConfig

    return HfDeepSpeedConfig(plan)


def _four_bit() -> Any:
    from importlib.util import find_spec

    from transformers import BitsAndBytesConfig

    if find_spec("bitsandbytes") is None:
        raise ResourcesMissing("adapt.dtype: nf4 needs bitsandbytes on every worker: pip install bitsandbytes")
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def with_adapter(base: Any, config: AdaptConfig, seed: int, lang: str) -> Any:
    """Make a PEFT model with a fresh adapter, the same on every worker. It changes ``base`` in place.

    Raises
    ------
    ConfigError
        If a name in ``lora.target_modules`` is that of no linear layer of the base.
    """
    from peft import LoraConfig, get_peft_model
    from peft.tuners.lora import LoraLayer
    from transformers.pytorch_utils import Conv1D

    lora = config.lora
    torch.manual_seed(child_seed(seed, "adapter", lang))
    names = updated_layers(base, lora.target_modules)
    settings = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules="|".join(map(re.escape, names)),
        fan_in_fan_out=isinstance(base.get_submodule(names[0]), Conv1D),
        use_rslora=lora.method == "rslora",
        use_dora=lora.method == "dora",
        bias="none",
        task_type="CAUSAL_LM",
    )
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "The following .*_pattern keys did not match")  # refused below
            model = get_peft_model(base, settings)
    except ValueError as exc:
        raise ConfigError(
            f"adapt.lora.target_modules: PEFT makes no adapter for {type(base).__name__} ({exc}); name other "
            "layers, or take another base"
        ) from exc
    if other := {name for name, one in base.named_modules() if isinstance(one, LoraLayer)} ^ set(names):
        short = sorted({last_part(name) for name in other})
        raise ConfigError(
            f"adapt.lora.target_modules: PEFT takes {', '.join(short)} of {type(base).__name__} for its fused experts; "
            f"leave them out: {', '.join(sorted({last_part(name) for name in names} - set(short)))}"
        )
    return model
