"""Preflight: never below what torch allocates, and the numbers in the examples are those that it predicts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, Phi3Config, PreTrainedConfig, Qwen2Config

from compass_ray.adapt.config import AdaptConfig
from compass_ray.adapt.preflight import MemoryEstimate, architecture, check_fits, describe, estimate
from compass_ray.adapt.training.engine import CausalLoss
from compass_ray.adapt.training.model import with_adapter
from compass_ray.config import load_config
from compass_ray.errors import ConfigError, ResourcesMissing

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
GIB = 1 << 30
ONES = [1.0] * 48  # a factor for every pair of the rotated features: 128 a head, three quarters of them
LARGE = {
    "adapt_phi4_mini": Phi3Config(
        hidden_size=3072,
        intermediate_size=8192,
        num_hidden_layers=32,
        num_attention_heads=24,
        num_key_value_heads=8,
        vocab_size=200064,
        tie_word_embeddings=True,
        max_position_embeddings=131072,
        partial_rotary_factor=0.75,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.75,
            "short_factor": ONES,
            "long_factor": ONES,
            "original_max_position_embeddings": 4096,
        },
    ),
    "adapt_llama31_8b": LlamaConfig(
        hidden_size=4096,
        intermediate_size=14336,
        num_hidden_layers=32,
        num_attention_heads=32,
        num_key_value_heads=8,
        vocab_size=128256,
    ),
    "adapt_qwen25_7b": Qwen2Config(
        hidden_size=3584,
        intermediate_size=18944,
        num_hidden_layers=28,
        num_attention_heads=28,
        num_key_value_heads=4,
        vocab_size=152064,
    ),
}
every_example = pytest.mark.parametrize("name", LARGE)


def example(name: str, monkeypatch: pytest.MonkeyPatch, *overrides: str) -> AdaptConfig:
    monkeypatch.setenv("DATA", "data")
    section = load_config(EXAMPLES / f"{name}.yaml", overrides).adapt
    assert section is not None
    return section


def settings(**changes: Any) -> AdaptConfig:
    """One worker on a GPU unless told otherwise; ``lora__rank=4`` changes a section."""
    raw: dict[str, Any] = {"base": "base", "workers": {"num_gpus": 1}}
    for name, value in changes.items():
        section, _, field = name.partition("__")
        if field:
            raw.setdefault(section, {})[field] = value
        else:
            raw[name] = value
    return AdaptConfig.model_validate(raw)


SMALL: dict[str, int] = {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 4}


def small(kind: type[PreTrainedConfig], vocab_size: int = 2048) -> PreTrainedConfig:
    heads = {"num_attention_heads": 8, "num_key_value_heads": 2}
    return kind(**SMALL, **heads, vocab_size=vocab_size, pad_token_id=0, bos_token_id=None, eos_token_id=None)


def allocated(base_config: PreTrainedConfig, config: AdaptConfig, *, packed: bool) -> int:
    """The most bytes that torch holds at once for forward and backward, beyond the model: its allocator's own count."""
    base = AutoModelForCausalLM.from_config(base_config, attn_implementation=config.workers.attention)
    base.requires_grad_(False)
    if config.workers.gradient_checkpointing:
        base.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    loss = CausalLoss(with_adapter(base, config, seed=0, lang="sw")).train()
    rows, length = config.workers.micro_batch, config.max_length
    tokens = torch.arange(rows * length).reshape(rows, length) % base_config.vocab_size
    positions = torch.arange(length).repeat(rows, 1)
    if packed:
        positions %= length // 3
    loss(tokens, positions, tokens).backward()  # gradients exist from now on
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profiler:
        loss(tokens, positions, tokens).backward()
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    live = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        live += event.nbytes()
        most = max(most, live)
    assert most > 0
    return most


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        (LlamaConfig, {}),
        (Qwen2Config, {"max_length": 1024, "workers__micro_batch": 1}),
        (Phi3Config, {}),
        pytest.param(LlamaConfig, {"lora__dropout": 0.1}, marks=pytest.mark.slow),
        pytest.param(LlamaConfig, {"lora__method": "dora"}, marks=pytest.mark.slow),
        pytest.param(LlamaConfig, {"workers__attention": "eager"}, marks=pytest.mark.release),
    ],
)
def test_activations_and_logits_are_never_above_the_estimate_and_no_less_than_half_of_it(
    kind: type[PreTrainedConfig], changes: dict[str, Any], checkpointing: bool
) -> None:
    changes = {"max_length": 512, "workers__micro_batch": 2, "workers__num_gpus": 0, **changes}
    config = settings(**changes, workers__gradient_checkpointing=checkpointing)
    base_config = small(kind)
    expected = estimate(base_config, config)
    measured = allocated(base_config, config, packed=True)
    assert measured <= expected.micro_batch <= 2 * measured


@pytest.mark.slow
@pytest.mark.parametrize("vocab_size", [64, 16384])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_no_part_hides_behind_another_one(vocab_size: int, checkpointing: bool) -> None:
    config = settings(
        max_length=512, workers__num_gpus=0, workers__micro_batch=1, workers__gradient_checkpointing=checkpointing
    )
    base_config = small(LlamaConfig, vocab_size)
    expected = estimate(base_config, config)
    measured = allocated(base_config, config, packed=False)
    assert measured <= expected.micro_batch <= 2 * measured


@every_example
@pytest.mark.parametrize("changes", [(), ("adapt.workers.gradient_checkpointing=false", "adapt.workers.micro_batch=2")])
def test_examples_of_real_models_fit_their_gpus(
    name: str, changes: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = {"adapt_phi4_mini": 22.5, "adapt_llama31_8b": 22.5, "adapt_qwen25_7b": 79.2}[name]  # what an L4, an H100 has
    config = example(name, monkeypatch, *changes)
    memory = estimate(LARGE[name], config)
    if changes and gpu < 79:
        with pytest.raises(ResourcesMissing, match=r"set workers\.gradient_checkpointing to true"):
            check_fits(memory, int(gpu * GIB), config)
    else:
        check_fits(memory, int(gpu * GIB), config)


@every_example
def test_examples_state_what_the_preflight_predicts(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    written = (EXAMPLES / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    rows = describe(estimate(LARGE[name], example(name, monkeypatch)))
    expected = [f"#   {row['what']:<28}{row['bytes'] / GIB:>8.2f} GiB" for row in rows]
    start = written.index(expected[0])
    assert written[start : start + len(expected)] == expected


@pytest.mark.parametrize(
    ("name", "changes", "total"),
    [
        ("adapt_phi4_mini", ["micro_batch=2"], "micro_batch 2 takes 19.69 GiB"),
        ("adapt_qwen25_7b", ["micro_batch=2", "gradient_checkpointing=false"], "micro_batch 2 then takes 51.73 GiB"),
        ("adapt_llama31_8b", ["count=1", "zero_stage=2"], "dtype to nf4, which takes 11.07 GiB"),
    ],
)
def test_examples_state_what_a_change_costs(
    name: str, changes: list[str], total: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dtype = "nf4" if "nf4" in total else "bfloat16"
    sets = [f"adapt.dtype={dtype}", *(f"adapt.workers.{change}" for change in changes)]
    memory = estimate(LARGE[name], example(name, monkeypatch, *sets))
    assert total in (EXAMPLES / f"{name}.yaml").read_text(encoding="utf-8")
    assert f"{memory.total / GIB:.2f} GiB" in total


@every_example
def test_weights_are_those_of_the_published_models(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    published = {"adapt_phi4_mini": 3.84e9, "adapt_llama31_8b": 8.03e9, "adapt_qwen25_7b": 7.62e9}[name]
    size = architecture(LARGE[name], example(name, monkeypatch))
    assert size.frozen == pytest.approx(published, rel=0.01)


def test_an_architecture_is_counted_by_hand() -> None:
    base_config = LlamaConfig(
        hidden_size=8,
        intermediate_size=24,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=50,
        pad_token_id=0,
    )
    config = settings(lora__rank=2, lora__method="dora", lora__target_modules=["q_proj", "down_proj"])
    size = architecture(base_config, config)
    linear = 8 * 8 + 2 * 8 * 4 + 8 * 8 + 3 * 8 * 24
    assert (size.linear, size.largest) == (3 * linear, 8 * 24)
    assert size.frozen == 3 * (linear + 2 * 8) + 8 + 2 * 50 * 8
    assert size.trained == 3 * (2 * (8 + 8) + 2 * (24 + 8) + 8 + 8)
    assert (size.layers, size.hidden, size.vocabulary, size.intermediate) == (3, 8, 50, 24)
    assert (size.heads, size.attention, size.keys) == (4, 8, 4)
    assert (size.targets, size.inputs, size.outputs) == (6, 3 * (8 + 24), 3 * (8 + 8))
    assert size.dora == 24 * 24 + 3 * 24 * 8


def test_counting_leaves_random_numbers_alone() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    architecture(small(LlamaConfig), settings())
    assert torch.equal(torch.get_rng_state(), before)


def test_an_unknown_target_module_is_refused() -> None:
    with pytest.raises(ConfigError, match="qkv_proj"):
        architecture(small(LlamaConfig), settings(lora__target_modules=["qkv_proj"]))


def test_zero_shards_what_its_stage_says() -> None:
    base_config = small(LlamaConfig)
    size = architecture(base_config, settings())
    one, two, three = (
        estimate(base_config, settings(workers__zero_stage=stage, workers__count=4)) for stage in (1, 2, 3)
    )
    assert one.base == two.base == 2 * size.frozen
    assert three.base == -(-2 * size.frozen // 4)
    assert {memory.optimizer for memory in (one, two, three)} == {12 * -(-size.trained // 4)}
    assert one.gradients - two.gradients == 2 * (size.trained - -(-size.trained // 4))
    assert three.loading < two.base, "cut as it is read: no worker holds the whole base"


def test_offload_leaves_the_gpu() -> None:
    base_config = small(LlamaConfig)
    there = estimate(base_config, settings(workers__zero_stage=3, workers__offload="optimizer+base"))
    assert (there.optimizer, there.base) == (0, 0)
    assert there.loading < 2 * architecture(base_config, settings()).frozen


def test_four_bits_are_for_linear_layers_alone() -> None:
    base_config = small(LlamaConfig)
    size = architecture(base_config, settings())
    memory = estimate(base_config, settings(dtype="nf4"))
    assert memory.base == pytest.approx(2 * (size.frozen - size.linear) + size.linear * 4.127 / 8, rel=1e-4)


def test_rows_add_up() -> None:
    memory = MemoryEstimate(1, 2, 4, 8, 16, logits=32, layer=64, buffers=128, overhead=256, loading=512)
    assert memory.micro_batch == 16 + 64
    assert replace(memory, logits=100).micro_batch == 16 + 100
    assert memory.total == 1 + 2 + 256 + 512
    assert replace(memory, loading=100).total == 1 + 2 + 256 + (4 + 8 + 16 + 64 + 128)
    rows = describe(memory)
    assert [row["bytes"] for row in rows] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 771]
    assert rows[-1]["what"] == "total, at the peak"


MEMORY = MemoryEstimate(7 * GIB, 0, 0, 0, 5 * GIB, logits=3 * GIB, layer=0, buffers=0, overhead=GIB, loading=0)


def test_what_fits_passes() -> None:
    check_fits(MEMORY, MEMORY.total, settings())


@pytest.mark.parametrize(
    ("config", "remedies"),
    [
        (settings(), "workers.gradient_checkpointing to true, or max_length lower, or dtype to nf4 with"),
        (
            settings(workers__gradient_checkpointing=True, workers__micro_batch=4, workers__count=2),
            "workers.micro_batch lower, or workers.zero_stage to 3, or max_length lower, or dtype to nf4",
        ),
        (
            settings(workers__gradient_checkpointing=True, workers__zero_stage=3),
            "workers.count higher, or max_length lower",
        ),
        (
            settings(dtype="nf4", workers__gradient_checkpointing=True),
            "max_length lower, or workers on larger machines",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_numbers_and_remedies(config: AdaptConfig, remedies: str) -> None:
    with pytest.raises(ResourcesMissing) as caught:
        check_fits(MEMORY, 10 * GIB, config)
    message = str(caught.value)
    assert message.startswith(
        "adapt.workers: one worker would need 16.0 GiB of memory and has 10.0 GiB (largest parts: "
        f"base, frozen 7.0 GiB, activations 5.0 GiB, logits and loss 3.0 GiB); set {remedies}"
    )
    assert caught.value.exit_code == 4


def test_a_base_that_does_not_load_is_not_cured_by_fewer_activations() -> None:
    with pytest.raises(ResourcesMissing, match=r"set dtype to nf4 .*, or workers on larger machines$"):
        check_fits(replace(MEMORY, loading=20 * GIB), 10 * GIB, settings(workers__zero_stage=3, workers__count=2))
