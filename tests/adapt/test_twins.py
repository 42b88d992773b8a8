"""Twins: every example trains a model of its architecture that is small and random, in place of the large one."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from peft import PeftModel
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    Phi3Config,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from compass_ray.config import RunConfig, load_config
from compass_ray.pipelines.adapt import train_adapters
from compass_ray.registry.store import Registry

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples"
TALKS = {
    "sw": [
        ("Buibui ana miguu mingapi?", "Buibui ana miguu minane."),
        ("Nyuki ana miguu mingapi?", "Nyuki ana miguu sita."),
        ("Paka analala wapi?", "Paka analala jikoni."),
        ("Mvua hunyesha lini?", "Mvua hunyesha mwezi wa nne."),
        ("Simba anakula nini?", "Simba anakula nyama."),
        ("Samaki wanaishi wapi?", "Samaki wanaishi majini."),
        ("Jua huchomoza wapi?", "Jua huchomoza mashariki."),
        ("Ng'ombe hutoa nini?", "Ng'ombe hutoa maziwa."),
    ],
    "ta": [
        ("சிலந்திக்கு எத்தனை கால்கள்?", "எட்டு கால்கள்."),
        ("தேனீக்கு எத்தனை கால்கள்?", "ஆறு கால்கள்."),
        ("பூனை எங்கே தூங்குகிறது?", "வீட்டில் தூங்குகிறது."),
        ("மழை எப்போது பெய்யும்?", "மாலையில் பெய்யும்."),
        ("சிங்கம் என்ன சாப்பிடும்?", "இறைச்சி சாப்பிடும்."),
        ("மீன் எங்கே வாழும்?", "நீரில் வாழும்."),
        ("சூரியன் எங்கே உதிக்கும்?", "கிழக்கில் உதிக்கும்."),
        ("பசு என்ன தரும்?", "பால் தரும்."),
    ],
}


@dataclass(frozen=True)
class Twin:
    """What is particular to one family: its architecture, control tokens and chat template."""

    make: Callable[..., PreTrainedConfig]
    control: tuple[str, ...]
    eos: str
    template: str
    bos: str | None = None


def phi(**size: Any) -> PreTrainedConfig:
    """With LongRoPE on three quarters of a head's features, as Phi-4-mini has it."""
    rotated = int(0.75 * size["hidden_size"] // size["num_attention_heads"])
    return Phi3Config(
        **size,
        tie_word_embeddings=True,
        partial_rotary_factor=0.75,
        max_position_embeddings=1024,
        original_max_position_embeddings=512,
        rope_parameters={
            "rope_type": "longrope",
            "rope_theta": 10000.0,
            "partial_rotary_factor": 0.75,
            "factor": 2.0,
            "original_max_position_embeddings": 512,
            "short_factor": [1.0] * (rotated // 2),
            "long_factor": [2.0] * (rotated // 2),
        },
    )


def llama(**size: Any) -> PreTrainedConfig:
    """With the scaled rotary positions of Llama 3.1."""
    rope = {
        "rope_type": "llama3",
        "rope_theta": 500000.0,
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 512,
    }
    return LlamaConfig(**size, max_position_embeddings=4096, rope_parameters=rope)


TWINS = {
    "adapt_phi4_mini": Twin(
        phi,
        ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        "<|endoftext|>",
        "{% for message in messages %}{{ '<|' + message.role + '|>' + message.content + '<|end|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}",
    ),
    "adapt_llama31_8b": Twin(
        llama,
        ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        "<|eot_id|>",
        "{{ bos_token }}{% for message in messages %}"
        "{{ '<|start_header_id|>' + message.role + '<|end_header_id|>\n\n' + message.content | trim + '<|eot_id|>' }}"
        "{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}",
        bos="<|begin_of_text|>",
    ),
    "adapt_qwen25_7b": Twin(
        Qwen2Config,
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        "<|im_end|>",
        "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nYou help.<|im_end|>\n' }}{% endif %}"
        "{% for message in messages %}"
        "{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}",
    ),
}


def write_twin(folder: Path, twin: Twin) -> Path:
    """A base model's folder: a byte-level tokenizer with the family's template, and random weights."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=list(twin.control),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    backend.train_from_iterator([text for rows in TALKS.values() for row in rows for text in row], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=twin.eos, bos_token=twin.bos)
    tokenizer.chat_template = twin.template
    tokenizer.save_pretrained(str(folder))
    base_config = twin.make(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        pad_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(base_config).save_pretrained(str(folder))
    return folder


def write_talks(folder: Path) -> Path:
    """Conversations in both layouts that the examples read: a file for each language, and one with a column."""
    folder.mkdir()
    rows = [
        {"messages": [{"role": "user", "content": question}, {"role": "assistant", "content": answer}], "lang": lang}
        for lang, talks in TALKS.items()
        for question, answer in talks
    ]
    for lang in TALKS:
        lines = [json.dumps({"messages": row["messages"]}) for row in rows if row["lang"] == lang]
        (folder / f"{lang}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    pq.write_table(pa.Table.from_pylist(rows), folder / "talks.parquet")
    return folder


def twin_config(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    """The example as it is, but for the base, where it runs, and how long."""
    monkeypatch.setenv("DATA", str(write_talks(tmp_path / "data")))
    monkeypatch.setenv("OUTPUT", str(tmp_path / "out"))
    base = write_twin(tmp_path / "twin", TWINS[name])
    return load_config(
        EXAMPLES / f"{name}.yaml",
        [
            f"adapt.base={base}",
            "adapt.revision=null",
            "adapt.dtype=float32",
            "adapt.max_length=128",
            "adapt.training.epochs=1",
            "adapt.workers.count=1",
            "adapt.workers.num_cpus=1",
            "adapt.workers.num_gpus=0",
            "adapt.workers.parallel_languages=1",
        ],
    )


@pytest.mark.release
@pytest.mark.parametrize("name", ["adapt_phi4_mini", "adapt_llama31_8b", "adapt_qwen25_7b"])
def test_an_example_trains_adapters_that_peft_opens(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local_ray: None
) -> None:
    config = twin_config(name, tmp_path, monkeypatch)
    assert config.adapt is not None
    run = train_adapters(config)
    assert run.languages == ["sw", "ta"]
    registry = Registry(run.record["registry"])
    for lang in run.languages:
        registry.open(f"{lang}@candidate").download(tmp_path / lang)
        base = AutoModelForCausalLM.from_pretrained(config.adapt.base)
        model = PeftModel.from_pretrained(base, str(tmp_path / lang))
        assert model.peft_config["default"].target_modules == set(config.adapt.lora.target_modules)
        updates = {key: value for key, value in model.state_dict().items() if "lora_B" in key}
        assert len(updates) == 2 * len(config.adapt.lora.target_modules)
        assert all(value.abs().max() > 0 for value in updates.values())
