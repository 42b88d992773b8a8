"""Base models and fresh adapters, as a worker loads them. Safetensors only, no remote code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from compass_ray.adapt.config import AdaptConfig
from compass_ray.errors import ConfigError, ResourcesMissing
from compass_ray.seeding import child_seed


def load_base(folder: Path, config: AdaptConfig, plan: dict[str, Any] | None = None) -> Any:
    """The base model with frozen weights.

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
    """A PEFT model with a fresh adapter, the same on every worker. It changes ``base`` in place.

    Raises
    ------
    ConfigError
        If the base has no layer of the names in ``lora.target_modules``.
    """
    from peft import LoraConfig, get_peft_model

    lora = config.lora
    torch.manual_seed(child_seed(seed, "adapter", lang))
    targets = lora.target_modules if isinstance(lora.target_modules, str) else list(lora.target_modules)
    settings = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
        use_rslora=lora.method == "rslora",
        use_dora=lora.method == "dora",
        bias="none",
        task_type="CAUSAL_LM",
    )
    try:
        return get_peft_model(base, settings)
    except ValueError as exc:
        names = sorted({name.rpartition(".")[2] for name, module in base.named_modules() if _is_linear(module)})
        raise ConfigError(
            f"adapt.lora.target_modules: {lora.target_modules} fits no layer of {type(base).__name__} ({exc}); "
            f"it has {', '.join(names)}"
        ) from exc


def _is_linear(module: Any) -> bool:
    return isinstance(module, torch.nn.Linear)
