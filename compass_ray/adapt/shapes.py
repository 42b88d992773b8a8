"""Whether a base, its tokenizer and what the config asks for go together: found out before any weight is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any

from compass_ray.adapt.config import AdaptConfig
from compass_ray.adapt.layers import last_part, on_meta, updated_layers
from compass_ray.errors import ConfigError

_SHOWN = 12


def check_base(base_config: Any, config: AdaptConfig, n_tokens: int | None = None) -> str:
    """Refuse a base on which a training would fail, or fail to do what is asked; say which layers get an update.

    Parameters
    ----------
    base_config : PreTrainedConfig
    n_tokens : int, optional
        One more than the largest id that the tokenizer can give.

    Raises
    ------
    ConfigError
        If the embedding has no row for some token, ``max_length`` is above the base's positions, or
        ``lora.target_modules`` are not its linear layers.
    """
    base = on_meta(base_config)
    rows = base.get_input_embeddings().weight.shape[0]
    if n_tokens is not None and n_tokens > rows:
        raise ConfigError(
            f"adapt.base: its tokenizer has ids up to {n_tokens - 1:,} and its embedding {rows:,} rows; take the "
            "tokenizer that it was trained with, or save the base again after resize_token_embeddings"
        )
    positions = _positions(base_config.get_text_config())
    if positions is not None and config.max_length > positions:
        raise ConfigError(
            f"adapt.max_length: {config.max_length:,} tokens, but the base has {positions:,} positions; lower it"
        )
    names = updated_layers(base, config.lora.target_modules)
    modules = dict(base.named_modules())
    updated = sum(modules[name].weight.numel() for name in names)
    ends = {id(base.get_input_embeddings().weight), id(getattr(base.get_output_embeddings(), "weight", None))}
    whole = sum(weights.numel() for weights in base.get_decoder().parameters() if id(weights) not in ends)
    if any(weights.ndim > 2 for weights in base.get_decoder().parameters()):
        _try_adapter(base, config)
    return (
        f"{len(names):,} layers get an update ({_counted(names)}), which hold {updated / whole:.0%} of the weights "
        "between embedding and output"
    )


def _try_adapter(base: Any, config: AdaptConfig) -> None:
    """Have PEFT make the adapter; it knows layers of its own in experts and state spaces, and takes seconds to load."""
    import torch

    from compass_ray.adapt.training.model import with_adapter

    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        with_adapter(base, config, seed=0, lang="")


def _positions(text_config: Any) -> int | None:
    """Count the tokens of a text that a base is made for. None where positions have no end."""
    positions: int | None = getattr(text_config, "max_position_embeddings", None)
    rope = getattr(text_config, "rope_parameters", None) or {}
    if positions is None or "factor" not in rope:
        return positions
    return max(positions, int(rope["factor"] * (rope.get("original_max_position_embeddings") or 0)))


def _counted(names: Iterable[str]) -> str:
    counts = Counter(map(last_part, names)).most_common()
    shown = [f"{name} × {count}" for name, count in counts[:_SHOWN]]
    return ", ".join([*shown, f"{len(counts) - _SHOWN} names more"] if len(counts) > _SHOWN else shown)
