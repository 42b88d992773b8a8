"""Loading a base model and an adapter upon it, from local folders of safetensors: nothing is fetched or unpickled."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from compass_ray.errors import IncompatibleAdapter, ResourcesMissing
from compass_ray.registry.contents import WEIGHTS, tensor_shapes


def load_base(folder: Path) -> Any:
    """Load the base model in float32. A merge and a difference of weights lose too much in fewer bits."""
    with _loading(f"the base model in {folder}"):
        import torch
        from transformers import AutoModelForCausalLM

        return AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, trust_remote_code=False, use_safetensors=True, local_files_only=True
        ).eval()


def put_adapter(base: Any, folder: Path, name: str = "default") -> Any:
    """Put the adapter in a folder on the base model, or beside others that are on it already.

    Parameters
    ----------
    base
        The base model, or what this function has made of it with another name. It is changed in place.
    name : str
        What PEFT calls the adapter: without a dot, and neither a part of ``lora_`` nor the name of a module. PEFT tells
        weights of adapters apart by looking for it in their names.

    Raises
    ------
    IncompatibleAdapter
        If the modules of the two do not correspond, one to one.
    """
    with _loading("the adapter"):
        from peft import PeftModel, get_peft_model_state_dict

        with warnings.catch_warnings():  # peft 0.21 asks transformers 5 by a name of version 4
            warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
            if isinstance(base, PeftModel):
                base.load_adapter(folder, name)
                model = base.eval()
            else:
                model = PeftModel.from_pretrained(base, folder, adapter_name=name).eval()
        placed = set(get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False))
    held = set(tensor_shapes((folder / WEIGHTS).read_bytes(), WEIGHTS))
    if placed != held:  # peft only warns of either
        raise IncompatibleAdapter(
            f"{len(placed - held)} adapter tensors that the base model has a place for are not in {WEIGHTS}, and "
            f"{len(held - placed)} in it have no place, as {min(placed ^ held)}; is target_modules in its config right?"
        )
    return model


@contextmanager
def _loading(what: str) -> Iterator[None]:
    try:
        yield
    except ImportError as exc:
        raise ResourcesMissing(f"{what}: needs {exc.name}; pip install 'compass_ray[train]'") from exc
    except (KeyError, OSError, RuntimeError, ValueError) as exc:  # what torch, transformers and peft raise on misfits
        raise IncompatibleAdapter(f"{what} cannot be loaded: {type(exc).__name__}: {exc}") from exc
