"""Only the weights of a LoRA adapter enter the registry, and nothing that runs code."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from registry_helpers import adapter_files, lineage
from safetensors.numpy import save

from compass_ray.errors import RegistryError
from compass_ray.registry.contents import check_adapter, tensor_shapes
from compass_ray.registry.store import Registry


def check(weights: bytes | None = None, **config: object) -> None:
    files = adapter_files(**config)
    body, tensors = files["adapter_config.json"], files["adapter_model.safetensors"]
    assert isinstance(body, bytes)
    assert isinstance(tensors, bytes)
    check_adapter(body, tensors if weights is None else weights)


def tensors(*names: str) -> bytes:
    return save({name: np.zeros((2, 3), np.float32) for name in names})


def test_tensors_of_lora_dora_and_embeddings_are_an_adapters() -> None:
    check()
    check(tensors("a.lora_A.weight", "a.lora_B.weight", "a.lora_magnitude_vector", "b.lora_embedding_A"))
    assert tensor_shapes(tensors("x"), "x") == {"x": (2, 3)}


@pytest.mark.parametrize("name", ["lm_head.weight", "lora_A.weight", "a.lora_A.weight.x", "a.base_layer.weight"])
def test_other_tensors_are_refused(name: str) -> None:
    with pytest.raises(RegistryError, match=rf"1 of 2 tensors are not an adapter's, as {name}; train without"):
        check(tensors("a.lora_A.weight", name))


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({"peft_type": "IA3"}, "expected peft_type LORA, found 'IA3'"),
        ({"auto_mapping": {"parent_library": "os"}}, "auto_mapping names code"),
        ({"megatron_config": {"a": 1}}, "megatron_config names code"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights 'pissa' changes the base model"),
    ],
)
def test_configs_that_run_code_or_need_another_base_are_refused(config: dict[str, object], complaint: str) -> None:
    with pytest.raises(RegistryError, match=complaint):
        check(**config)


@pytest.mark.parametrize("cut", [0, 4, 30, -1])
def test_weights_that_are_not_whole_are_refused(cut: int) -> None:
    with pytest.raises(RegistryError, match=r"adapter_model\.safetensors: (not a safetensors file|expected \d+ bytes)"):
        check(tensors("a.lora_A.weight")[:cut])


def test_pickled_weights_are_refused_unread() -> None:
    with pytest.raises(RegistryError, match="not a safetensors file"):
        check(b"\x80\x04cos\nsystem\n(S'touch /tmp/owned'\ntR.")
    with pytest.raises(RegistryError, match="holds no tensor"):
        check(tensors())


@pytest.mark.parametrize("config", [b"", b"[]", b"\xff"])
def test_configs_that_are_no_json_object_are_refused(config: bytes) -> None:
    with pytest.raises(RegistryError, match=r"adapter_config\.json: (not JSON|expected a JSON object)"):
        check_adapter(config, tensors("a.lora_A.weight"))


def test_nothing_is_written_of_what_is_refused(tmp_path: Path) -> None:
    registry = Registry(str(tmp_path))
    for files, complaint in (
        ({"adapter_config.json": b"{}"}, r"lacks adapter_model\.safetensors"),
        ({**adapter_files(), "adapter_model.bin": b""}, r"file 'adapter_model\.bin': expected chat_template\.jinja, "),
        ({**adapter_files(), "reference/../../x": b""}, "or reference/<name>"),
        (adapter_files(peft_type="IA3"), "expected peft_type LORA"),
    ):
        with pytest.raises(RegistryError, match=complaint):
            registry.add(lineage(), files)
    assert list(tmp_path.iterdir()) == []
