"""What may enter the registry: weights of a LoRA adapter in safetensors, and a config that runs no code.

Nothing is loaded to find out; the header of a safetensors file says all.
"""

from __future__ import annotations

import json
import re
from typing import Any

from compass_ray.errors import RegistryError

CONFIG = "adapter_config.json"
WEIGHTS = "adapter_model.safetensors"

_ADAPTER_TENSOR = re.compile(
    r"\.(lora_[AB]\.(weight|bias)|lora_magnitude_vector(\.weight)?|lora_embedding_[AB](\.weight)?)$"
)
_CODE = ("auto_mapping", "auto_map", "custom_code", "megatron_config")
"""Fields by which loading a config imports modules that it names."""

_UNTOUCHED_BASE = (True, False, None, "gaussian", "eva", "orthogonal")
"""Initialisations that leave the base as it is; others, as PiSSA, move a part of its weights into the adapter."""


def tensor_shapes(data: bytes, where: str) -> dict[str, tuple[int, ...]]:
    """Read names and shapes of the tensors in a safetensors file.

    Raises
    ------
    RegistryError
        If the bytes are not a whole safetensors file.
    """
    try:
        size = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + size])
        header.pop("__metadata__", None)
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        shapes = {name: tuple(entry["shape"]) for name, entry in header.items()}
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        raise RegistryError(f"{where}: not a safetensors file ({exc}); save the adapter again") from exc
    if len(data) != 8 + size + end:
        raise RegistryError(
            f"{where}: expected {8 + size + end} bytes by its header, found {len(data)}; save the adapter again"
        )
    return shapes


def check_adapter(config: bytes, weights: bytes) -> None:
    """Refuse what is not the weights of a LoRA adapter alone.

    Raises
    ------
    RegistryError
        If the config is not one of LoRA, names code, or was made for a changed base; if a tensor is not an adapter's.
    """
    body = read_config(config)
    if body.get("peft_type") != "LORA":
        raise RegistryError(f"{CONFIG}: expected peft_type LORA, found {body.get('peft_type')!r}")
    for name in _CODE:
        if body.get(name):
            raise RegistryError(
                f"{CONFIG}: {name} names code to be imported, which the registry does not keep; drop it"
            )
    if body.get("init_lora_weights") not in _UNTOUCHED_BASE:
        raise RegistryError(
            f"{CONFIG}: init_lora_weights {body['init_lora_weights']!r} changes the base model; save the adapter with "
            "path_initial_model_for_weight_conversion, so that it fits the untouched one"
        )
    names = tensor_shapes(weights, WEIGHTS)
    foreign = sorted(name for name in names if not _ADAPTER_TENSOR.search(name))
    if foreign:
        raise RegistryError(
            f"{WEIGHTS}: {len(foreign)} of {len(names)} tensors are not an adapter's, as {foreign[0]}; train without "
            "modules_to_save, trainable tokens and bias, and save with save_embedding_layers=False"
        )
    if not names:
        raise RegistryError(f"{WEIGHTS}: holds no tensor; save the adapter again")


def read_config(data: bytes) -> dict[str, Any]:
    """Read the JSON object of ``adapter_config.json``; RegistryError if it is none."""
    try:
        body = json.loads(data)
    except ValueError as exc:
        raise RegistryError(f"{CONFIG}: not JSON ({exc}); save the adapter again") from exc
    if not isinstance(body, dict):
        raise RegistryError(f"{CONFIG}: expected a JSON object, found {type(body).__name__}; save the adapter again")
    return body
