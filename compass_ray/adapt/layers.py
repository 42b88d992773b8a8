"""The layers of a base model, which can be looked at without its weights.

On torch's meta device a model has shapes and no values, and is built in seconds whatever its size.
"""

from __future__ import annotations

from typing import Any, Literal

from compass_ray.errors import ConfigError


def config_of(base: str, revision: str | None = None) -> Any:
    """Read the config of a base: a folder, or a hub id, of which nothing else is fetched.

    Raises
    ------
    ConfigError
        If there is none that transformers knows.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(base, revision=revision or "main", trust_remote_code=False)
    except (OSError, ValueError) as exc:
        raise ConfigError(
            f"adapt.base: {base} has no config that transformers reads without remote code ({exc})"
        ) from exc


def on_meta(base_config: Any) -> Any:
    """Build a causal language model that has shapes but no values.

    Parameters
    ----------
    base_config : PreTrainedConfig

    Raises
    ------
    ConfigError
        If transformers knows no causal language model of this kind.
    """
    import torch
    from transformers import AutoModelForCausalLM

    try:
        with torch.device("meta"), torch.random.fork_rng(devices=[]):
            return AutoModelForCausalLM.from_config(base_config).requires_grad_(False)
    except ValueError as exc:
        raise ConfigError(
            f"adapt.base: transformers has no causal language model of type '{base_config.model_type}' "
            f"({str(exc).splitlines()[0][:200]}); give a text model"
        ) from exc


def updated_layers(base: Any, modules: Literal["all-linear"] | list[str]) -> list[str]:
    """Name the layers that get an update: linear ones of the language model.

    Parameters
    ----------
    base : PreTrainedModel
    modules : "all-linear" or list of str
        Last parts of layers' names; all means all but the output. An encoder of images or sound is no part of the
        language model: text never reaches it, so an update of it would never train.

    Returns
    -------
    list of str
        Names as in ``base.named_modules()``, in that order.

    Raises
    ------
    ConfigError
        If a name is that of no linear layer, as that of an embedding or of experts that are fused in one tensor.
    """
    decoder, output = base.get_decoder(), base.get_output_embeddings()
    inside = {id(module) for module in decoder.modules()} | {id(output)}
    linear = {name: module for name, module in base.named_modules() if is_linear(module) and id(module) in inside}
    if modules == "all-linear":
        chosen = [name for name, module in linear.items() if module is not output]
        if not chosen:
            raise ConfigError(f"adapt.lora.target_modules: {type(base).__name__} has no linear layer to update")
        return chosen
    found = {last_part(name) for name in linear}
    if missing := [name for name in modules if name not in found]:
        raise ConfigError(
            f"adapt.lora.target_modules: {', '.join(_known_as(base, name) for name in missing)}; its linear layers are "
            f"{', '.join(sorted(found))}"
        )
    return [name for name in linear if last_part(name) in modules]


def _known_as(base: Any, name: str) -> str:
    """Say what a name is in a model. It is that of no linear layer of its text part."""
    kind = type(base).__name__
    for path, module in base.named_modules():
        if last_part(path) == name:
            what = "outside of the language model" if is_linear(module) else f"a {type(module).__name__}"
            return f"'{name}' of {kind} is {what}, and no linear layer of text"
    if any(last_part(path) == name for path, _ in base.named_parameters()):
        return f"'{name}' of {kind} is one tensor for all experts, and no linear layer"
    return f"'{name}' is no layer of {kind}"


def last_part(name: str) -> str:
    """Cut a layer's name to its last part, as ``q_proj``."""
    return name.rpartition(".")[2]


def is_linear(module: Any) -> bool:
    """Tell a linear layer; GPT-2's Conv1D is one whose weights are stored turned round."""
    import torch
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, torch.nn.Linear | Conv1D)
