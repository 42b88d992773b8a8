"""A small base model from scratch: tokenizer, random weights, and the training loop of adapters on all of them.

For tests, demos and experiments where no model hub can be reached. The architecture is Qwen2's, so what is trained
on it goes the same ways as on a large one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import Field

from compass_ray.configbase import Config

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class TinyModel(Config):
    """Size of a small Qwen2 model; input and output embeddings are one matrix."""

    vocab_size: int = Field(default=8192, ge=300, description="Byte-level BPE pieces, special tokens included")
    hidden_size: int = Field(default=192, ge=16)
    intermediate_size: int = Field(default=512, ge=16)
    layers: int = Field(default=6, ge=1)
    heads: int = Field(default=6, ge=1)
    kv_heads: int = Field(default=2, ge=1)
    max_positions: int = Field(default=2048, ge=64)


def write_tokenizer(folder: Path, texts: Iterable[str], vocab_size: int) -> None:
    """Learn a byte-level BPE on texts, and write it with a ChatML template as transformers reads it.

    Bytes are the alphabet, so every text in any script has tokens; the same texts in the same order give the same file.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, START, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=PAD, pad_token=PAD)
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(str(folder))


def write_config(folder: Path, size: TinyModel, vocab_size: int) -> None:
    """Write the model's ``config.json``; ``vocab_size`` is what the tokenizer came to."""
    from transformers import Qwen2Config

    Qwen2Config(
        architectures=["Qwen2ForCausalLM"],
        vocab_size=vocab_size,
        hidden_size=size.hidden_size,
        intermediate_size=size.intermediate_size,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.kv_heads,
        max_position_embeddings=size.max_positions,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
    ).save_pretrained(str(folder))


def train_base(loop: Mapping[str, Any]) -> None:
    """Train random weights into ``model.safetensors`` beside config and tokenizer.

    This is the train function of Ray Train.
    """
    import torch
    import torch.distributed as dist
    from transformers import AutoConfig, AutoModelForCausalLM

    from compass_ray.adapt.config import TrackerConfig
    from compass_ray.adapt.data import HELDOUT, TRAIN, read_packs, trained_documents
    from compass_ray.adapt.schedule import accumulation_steps
    from compass_ray.adapt.training.checkpoints import Checkpoints, train_resumably
    from compass_ray.adapt.training.engine import deepspeed_config, prepare_process
    from compass_ray.adapt.training.loop import Task, evaluate
    from compass_ray.adapt.training.reporter import Reporter
    from compass_ray.runtime.threads import set_threads
    from compass_ray.seeding import child_seed

    workers, training, target_lang = loop["workers"], loop["training"], loop["target_lang"]
    folder, seed, tokens = Path(loop["folder"]), loop["seed"], loop["tokens"]
    prepare_process("cuda" if workers.num_gpus else "cpu")
    set_threads(workers.num_cpus)
    dtype = "bfloat16" if workers.num_gpus else "float32"
    torch.manual_seed(child_seed(seed, "base"))
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(str(folder)), attn_implementation="sdpa")
    accumulation = accumulation_steps(training.batch_size, dist.get_world_size(), workers.micro_batch)
    task = Task(
        target_lang,
        read_packs(tokens, target_lang, TRAIN),
        read_packs(tokens, target_lang, HELDOUT),
        trained_documents(tokens, target_lang),
        training,
        seed,
        workers.micro_batch,
        0,
    )
    engine, weights, _ = train_resumably(
        model,
        task,
        deepspeed_config(training, workers, dtype, accumulation),
        Checkpoints(loop["checkpoints"]),
        lambda engine: Reporter(engine, task, workers, TrackerConfig(), "pretrain", loop["tally"]),
        workers.checkpoint_steps,
    )
    score = evaluate(engine, task.heldout, workers.micro_batch, 0)
    if dist.get_rank() == 0:
        stored = {name: value.to(getattr(torch, loop["dtype"])) for name, value in weights.items()}
        model.config.dtype = loop["dtype"]
        model.save_pretrained(str(folder), state_dict=stored)
        loop["tally"].note.remote("score", None if score is None else score.to_json())
