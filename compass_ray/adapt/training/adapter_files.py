"""An adapter as the two files that PEFT reads: weights in safetensors, and a config."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from compass_ray.errors import IncompatibleAdapter, NothingTrained

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


def adapter_files(model: Any, weights: Mapping[str, torch.Tensor], base: str, revision: str | None) -> dict[str, bytes]:
    """Make the files of a trained adapter.

    Parameters
    ----------
    model : PeftModel
    weights : mapping of str to Tensor
        Whole tensors by the model's parameter names; with ZeRO-3 the model's own are pieces.
    base, revision
        What the config names as base model.

    Raises
    ------
    IncompatibleAdapter
        If what was written has other names or shapes than the adapter must have.
    NothingTrained
        If all updates of the base are zero.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save

    tensors = get_peft_model_state_dict(model, state_dict=dict(weights), save_embedding_layers=False)
    data = save({name: value.contiguous() for name, value in sorted(tensors.items())}, metadata={"format": "pt"})
    _check(data, expected_shapes(model))
    return {CONFIG: _config(model, base, revision), WEIGHTS: data}


def load_adapter(model: Any, data: bytes) -> None:
    """Put saved weights into a PEFT model with an adapter of the same shape.

    Raises
    ------
    IncompatibleAdapter
        If names or shapes differ, or it is no such file.
    """
    from peft import set_peft_model_state_dict
    from safetensors.torch import load

    _check(data, expected_shapes(model))
    set_peft_model_state_dict(model, load(data))


def expected_shapes(model: Any) -> dict[str, tuple[int, ...]]:
    """List the names in the file and their shapes, by the updated layers.

    They come from the layers' features and the rank, not from the parameters: ZeRO-3 leaves those empty.
    """
    from peft.tuners.lora import LoraLayer

    settings = model.peft_config["default"]
    shapes: dict[str, tuple[int, ...]] = {}
    for name, module in model.named_modules():
        if isinstance(module, LoraLayer) and "default" in module.r:
            rank = module.r["default"]
            shapes[f"{name}.lora_A.weight"] = (rank, module.in_features)
            shapes[f"{name}.lora_B.weight"] = (module.out_features, rank)
            if settings.use_dora:
                shapes[f"{name}.lora_magnitude_vector"] = (module.out_features,)
    return shapes


def _check(data: bytes, shapes: Mapping[str, tuple[int, ...]]) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        found = load(data)
    except SafetensorError as exc:
        raise IncompatibleAdapter(
            f"{WEIGHTS}: {len(data)} bytes are no adapter's weights ({exc}); take those of a version that verifies"
        ) from exc
    wrong = [
        f"{name}: expected {shapes.get(name)}, found {tuple(found[name].shape) if name in found else None}"
        for name in sorted(shapes.keys() | found.keys())
        if name not in found or shapes.get(name) != tuple(found[name].shape)
    ]
    if wrong:
        raise IncompatibleAdapter(f"{WEIGHTS}: {len(wrong)} tensors are not the adapter's, as {wrong[0]}")
    if not any(value.any() for name, value in found.items() if "lora_B" in name):
        raise NothingTrained(f"{WEIGHTS}: all updates of the base are zero, so nothing was trained")


def _config(model: Any, base: str, revision: str | None) -> bytes:
    settings = model.peft_config["default"]
    with tempfile.TemporaryDirectory() as folder:
        settings.save_pretrained(folder)
        body = json.loads(Path(folder, CONFIG).read_text(encoding="utf-8"))
    body |= {
        "base_model_name_or_path": base,
        "revision": revision,
        "inference_mode": True,
        "target_modules": _target_modules(model),
    }
    return (json.dumps(body, indent=2, sort_keys=True) + "\n").encode()


def _target_modules(model: Any) -> list[str]:
    """List the updated layers by short names, as ``q_proj``.

    By their paths where not every layer of such a name is updated.

    PEFT writes the path of every layer where it was told ``all-linear``, which servers do not read.
    """
    from peft.tuners.lora import LoraLayer

    modules = dict(model.get_base_model().named_modules())
    updated = {name for name, module in modules.items() if isinstance(module, LoraLayer)}
    short = {name.rpartition(".")[2] for name in updated}
    inside = tuple(f"{name}." for name in updated)
    meant = {name for name in modules if name.rpartition(".")[2] in short and not name.startswith(inside)}
    return sorted(short if meant == updated else updated)
