"""A base model that trains in seconds, and a config that trains adapters of it."""

from __future__ import annotations

from pathlib import Path

from demo import DEMO

from compass_ray.config import RunConfig, load_config


def write_tiny_base(folder: Path, texts: list[str], seed: int = 0, **size: int) -> Path:
    """A Qwen2 of a few ten thousand random weights with its tokenizer: loads, trains and saves like a large one."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    from compass_ray.adapt.training.pretraining import TinyModel, write_config, write_tokenizer

    shape = TinyModel(
        **{"vocab_size": 500, "hidden_size": 32, "intermediate_size": 64, "layers": 2, "heads": 4, **size}
    )
    write_tokenizer(folder, texts, shape.vocab_size)
    write_config(folder, shape, shape.vocab_size)
    torch.manual_seed(seed)
    AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(str(folder))).save_pretrained(str(folder))
    return folder


def adapt_config(output: Path | str, base: Path | str, *overrides: str) -> RunConfig:
    """A config that trains adapters of Swahili and Tamil on the demo's current data, in seconds."""
    raw = {
        "name": "adapted",
        "output": str(output),
        "sources": {
            "current": {
                "role": "current",
                "path": str(DEMO / "current.jsonl"),
                "columns": {"text": "text", "lang": "lang"},
            }
        },
        "ingest": {"max_bad_fraction": 0.02},
        "adapt": {
            "base": str(base),
            "languages": ["sw", "ta"],
            "max_length": 64,
            "lora": {"rank": 4, "alpha": 8},
            "training": {"batch_size": 8, "epochs": 2, "learning_rate": 0.01},
            "workers": {"parallel_languages": 1, "log_steps": 5, "checkpoint_steps": 5},
        },
    }
    return load_config(raw, list(overrides))
