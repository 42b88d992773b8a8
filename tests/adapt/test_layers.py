"""Which layers of real architectures get an update, and what is refused before the first step."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    DeepseekV3Config,
    Gemma3Config,
    GPT2Config,
    GptOssConfig,
    LlamaConfig,
    MixtralConfig,
    Phi3Config,
    PreTrainedConfig,
    Qwen2_5_VLConfig,
    Qwen2MoeConfig,
    Qwen3MoeConfig,
    T5Config,
)

from compass_ray.adapt.config import AdaptConfig
from compass_ray.adapt.layers import config_of, on_meta, updated_layers
from compass_ray.adapt.preflight import estimate
from compass_ray.adapt.shapes import check_base
from compass_ray.adapt.training.adapter_files import CONFIG, adapter_files, load_adapter
from compass_ray.adapt.training.engine import CausalLoss
from compass_ray.adapt.training.model import with_adapter
from compass_ray.errors import ConfigError

OF_LLAMA = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
SIZE = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 50,
    "pad_token_id": 0, "bos_token_id": None, "eos_token_id": None,
}  # fmt: skip
TEXT = {**SIZE, "num_key_value_heads": 2, "head_dim": 8}
EYE = {
    "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28,
    "patch_size": 14,
}  # fmt: skip
GEMMA = Gemma3Config(text_config=TEXT, vision_config=EYE)
ARCHITECTURES: dict[str, tuple[PreTrainedConfig, int]] = {
    "llama": (LlamaConfig(**TEXT), 14),
    "phi3": (Phi3Config(**TEXT), 8),
    "gpt2": (GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=50, n_positions=64), 8),
    "bloom": (BloomConfig(hidden_size=32, n_layer=2, n_head=4, vocab_size=50), 8),
    "gemma3": (GEMMA, 14),
    "mixtral": (MixtralConfig(**TEXT, num_local_experts=4), 8),
    "qwen2_moe": (
        Qwen2MoeConfig(**TEXT, moe_intermediate_size=16, shared_expert_intermediate_size=16, num_experts=4), 16
    ),
    "qwen3_moe": (Qwen3MoeConfig(**TEXT, moe_intermediate_size=16, num_experts=4, num_experts_per_tok=2), 8),
    "gpt_oss": (GptOssConfig(**TEXT, num_local_experts=4), 8),
}  # fmt: skip
DEEPSEEK = DeepseekV3Config(
    **{**TEXT, "num_key_value_heads": 4}, moe_intermediate_size=16, n_routed_experts=4, n_group=2, topk_group=1,
    num_experts_per_tok=2, q_lora_rank=8, kv_lora_rank=8, qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=8,
    first_k_dense_replace=1,
)  # fmt: skip
every_architecture = pytest.mark.parametrize("name", ARCHITECTURES)


def settings(modules: Any = "all-linear", **changes: Any) -> AdaptConfig:
    return AdaptConfig.model_validate(
        {"base": "base", "max_length": 32, "lora": {"target_modules": modules, "rank": 2}, **changes}
    )


@pytest.fixture(autouse=True)
def _leave_random_numbers() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@every_architecture
def test_what_is_updated_trains_is_saved_and_comes_back(name: str) -> None:
    base_config, layers = ARCHITECTURES[name]
    base = AutoModelForCausalLM.from_config(base_config).requires_grad_(False)
    model = with_adapter(base, settings(), seed=0, lang="sw")
    tokens = torch.randint(1, 50, (1, 16))
    CausalLoss(model)(tokens, torch.arange(16)[None], tokens).backward()
    trained = {path: weights for path, weights in model.named_parameters() if weights.requires_grad}
    assert len(trained) == 2 * layers
    idle = [path for path, weights in trained.items() if "lora_B" in path and not weights.grad.any()]  # type: ignore[union-attr]
    assert idle == [], "what text never reaches would never train"
    with torch.no_grad():
        for path, weights in trained.items():
            if "lora_B" in path:
                weights += 0.1
    before = model.eval()(tokens).logits
    files = adapter_files(model, dict(model.named_parameters()), "base", None)
    again = with_adapter(model.unload(), settings(), seed=1, lang="ta")
    load_adapter(again, files["adapter_model.safetensors"])
    torch.testing.assert_close(again.eval()(tokens).logits, before)
    assert len(json.loads(files[CONFIG])["target_modules"]) <= max(layers, 9)


@every_architecture
def test_the_memory_of_any_architecture_is_predicted(name: str) -> None:
    base_config, layers = ARCHITECTURES[name]
    assert estimate(base_config, settings()).total > 0
    assert check_base(base_config, settings()).startswith(f"{layers} layers get an update (")


def test_an_encoder_of_images_is_left_alone_whatever_its_layers_are_called() -> None:
    base = on_meta(GEMMA)
    for modules in ("all-linear", OF_LLAMA):
        names = updated_layers(base, modules)  # type: ignore[arg-type]
        assert len(names) == 14
        assert all(name.startswith("model.language_model.") for name in names)
    assert any("vision_tower" in name and name.endswith("q_proj") for name, _ in base.named_modules())


def test_the_output_is_updated_if_it_is_named() -> None:
    base = on_meta(LlamaConfig(**TEXT))
    assert updated_layers(base, ["q_proj", "lm_head"])[-1] == "lm_head"
    assert "lm_head" not in updated_layers(base, "all-linear")


@pytest.mark.parametrize(
    ("name", "modules", "said"),
    [
        ("phi3", OF_LLAMA, "'q_proj' is no layer of Phi3ForCausalLM, 'k_proj' is no layer"),
        ("gpt2", ["c_attn", "q_proj"], "'q_proj' is no layer of GPT2LMHeadModel; its linear layers are c_attn, "),
        ("llama", ["embed_tokens"], "'embed_tokens' of LlamaForCausalLM is a Embedding, and no linear layer of text"),
        ("gemma3", ["q_proj", "fc1"], "'fc1' of Gemma3ForConditionalGeneration is outside of the language model"),
        ("mixtral", ["q_proj", "gate_up_proj"], "'gate_up_proj' of MixtralForCausalLM is one tensor for all experts"),
        ("qwen3_moe", ["gate"], "'gate' of Qwen3MoeForCausalLM is a Qwen3MoeTopKRouter, and no linear layer"),
    ],
)  # fmt: skip
def test_a_name_that_is_no_linear_layer_is_refused(name: str, modules: list[str], said: str) -> None:
    for check in (check_base, estimate):
        with pytest.raises(ConfigError, match=r"^adapt\.lora\.target_modules: ") as caught:
            check(ARCHITECTURES[name][0], settings(modules))  # type: ignore[operator]
        assert said in str(caught.value)


def test_names_that_peft_takes_for_experts_are_refused_with_those_that_can_be_updated() -> None:
    with pytest.raises(ConfigError, match=r"PEFT takes .*gate_proj.* of DeepseekV3ForCausalLM for its fused") as caught:
        check_base(DEEPSEEK, settings())
    left = str(caught.value).rpartition("leave them out: ")[2].split(", ")
    assert left == ["kv_a_proj_with_mqa", "kv_b_proj", "o_proj", "q_a_proj", "q_b_proj"]
    assert check_base(DEEPSEEK, settings(left)).startswith("10 layers get an update")


def test_how_much_of_the_base_gets_an_update_is_said() -> None:
    llama = LlamaConfig(**TEXT)
    assert check_base(llama, settings()).startswith("14 layers get an update (q_proj × 2, ")
    assert check_base(llama, settings()).endswith("which hold 99% of the weights between embedding and output")
    assert check_base(llama, settings(["q_proj"])).startswith("2 layers get an update (q_proj × 2), which hold 11%")
    assert check_base(ARCHITECTURES["mixtral"][0], settings()).endswith(
        "which hold 11% of the weights between embedding and output"
    )


def test_a_tokenizer_with_more_tokens_than_the_embedding_has_rows_is_refused() -> None:
    llama = LlamaConfig(**TEXT)
    check_base(llama, settings(), 50)
    with pytest.raises(ConfigError, match=r"tokenizer has ids up to 50 and its embedding 50 rows; take the tokenizer"):
        check_base(llama, settings(), 51)


@pytest.mark.parametrize(
    ("base_config", "positions"),
    [
        (LlamaConfig(**TEXT, max_position_embeddings=64), 64),
        (GPT2Config(n_embd=32, n_layer=1, n_head=4, vocab_size=50, n_positions=64), 64),
        (
            LlamaConfig(
                **TEXT,
                max_position_embeddings=64,
                rope_parameters={
                    "rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0, "original_max_position_embeddings": 64
                },
            ),
            256,
        ),
        (Gemma3Config(text_config={**TEXT, "max_position_embeddings": 64}, vision_config=EYE), 64),
    ],
    ids=["rotary", "learned", "stretched", "of the text part"],
)  # fmt: skip
def test_packs_longer_than_the_positions_are_refused(base_config: PreTrainedConfig, positions: int) -> None:
    check_base(base_config, settings(max_length=positions))
    with pytest.raises(ConfigError, match=rf"^adapt\.max_length: {positions + 1} tokens, but .* {positions} p"):
        check_base(base_config, settings(max_length=positions + 1))


def test_positions_without_an_end_bound_nothing() -> None:
    check_base(ARCHITECTURES["bloom"][0], settings(max_length=100_000))


@pytest.mark.parametrize("base_config", [T5Config(), Qwen2_5_VLConfig()], ids=["encoder-decoder", "images"])
def test_what_is_no_causal_language_model_is_refused(base_config: PreTrainedConfig) -> None:
    with pytest.raises(ConfigError, match=r"^adapt\.base: transformers has no causal language model of type '"):
        check_base(base_config, settings())


def test_a_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^adapt\.base: .* has no config that transformers reads"):
        config_of(str(tmp_path))


def test_an_empty_list_of_layers_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 1 item"):
        settings([])
