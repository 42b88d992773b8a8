"""What does the training loop cost? Tokens a second of an adapter, beside a bare PyTorch loop over the same model.

Both loops run in one Ray Train worker, in turns of a few updates, on the same packs: ours with DeepSpeed, checks and
metrics, the other with nothing but forward, backward, clipping and AdamW. Start-up is measured apart.

    python benchmarks/adapt.py                 # a small model on CPUs
    python benchmarks/adapt.py --gpu           # 0.5 billion parameters, bfloat16, packs of 2,048 tokens; also MFU
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from compass_ray.adapt.config import AdaptConfig, TrainingConfig, WorkersConfig

SMALL = {
    "vocab_size": 8192, "hidden_size": 192, "intermediate_size": 512, "num_hidden_layers": 6,
    "num_attention_heads": 6, "num_key_value_heads": 2,
}  # fmt: skip
HALF_BILLION = {
    "vocab_size": 151_936, "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
    "num_attention_heads": 14, "num_key_value_heads": 2,
}  # fmt: skip


def compare(settings: dict[str, Any]) -> None:
    """The train function: builds the model twice, times both loops in turns, and notes the figures."""
    entered = time.time()
    from compass_ray.adapt.training.engine import prepare_process

    gpu = settings["gpu"]
    prepare_process("cuda" if gpu else "cpu")
    import torch

    from compass_ray.adapt.training.engine import ZeroEngine, deepspeed_config
    from compass_ray.adapt.training.loop import Task, update
    from compass_ray.runtime.threads import set_threads

    set_threads(settings["threads"])
    config = AdaptConfig(
        base="none",
        training=TrainingConfig(batch_size=settings["batch_size"], epochs=100),
        workers=WorkersConfig(num_gpus=int(gpu), zero_stage=2, micro_batch=settings["micro_batch"],
                              gradient_checkpointing=settings["checkpointing"]),
    )  # fmt: skip
    device = torch.device("cuda" if gpu else "cpu")
    packs = random_packs(settings["packs"], settings["length"], settings["shape"]["vocab_size"])
    ours = _model(config, settings["shape"]).to(device)
    accumulation = settings["batch_size"] // settings["micro_batch"]
    plan = deepspeed_config(config.training, config.workers, config.compute_dtype, accumulation)
    engine = ZeroEngine(ours, config.training, plan)
    engine.warm()
    started = time.time()
    task = Task("bench", packs, packs, [], config.training, 0, settings["micro_batch"], 0)
    other = bare_loop(_model(config, settings["shape"]).to(device), packs, task, device)
    loops: dict[str, Callable[[int], Any]] = {
        "ours": lambda step: update(engine, task, task.schedule, step, 1e-4),
        "bare": other,
    }
    for loop in loops.values():
        loop(0)
    seconds: dict[str, list[float]] = {name: [] for name in loops}
    for turn in range(settings["turns"]):
        for name in sorted(loops, reverse=bool(turn % 2)):
            if gpu:
                torch.cuda.synchronize()
            begun = time.perf_counter()
            for step in range(settings["updates"]):
                loops[name](1 + turn * settings["updates"] + step)
            if gpu:
                torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - begun)
    tokens = settings["batch_size"] * settings["length"] * settings["updates"]
    rates = {name: [tokens / value for value in values] for name, values in seconds.items()}
    figures = {
        "device": torch.cuda.get_device_name() if gpu else platform.processor() or platform.machine(),
        "parameters": sum(param.numel() for param in ours.parameters()),
        "tokens_per_s": {name: round(statistics.median(values), 1) for name, values in rates.items()},
        "ratio": round(statistics.median(a / b for a, b in zip(rates["ours"], rates["bare"], strict=True)), 4),
        "ratio_by_turn": [round(a / b, 4) for a, b in zip(rates["ours"], rates["bare"], strict=True)],
        "start_s": {"worker": round(entered - settings["launched"], 1), "engine": round(started - entered, 1)},
    }
    if gpu:
        figures |= utilisation(ours, packs, tokens, statistics.median(seconds["ours"]), settings)
    settings["tally"].note.remote("figures", figures)


def utilisation(model: Any, packs: Any, tokens: int, seconds: float, settings: dict[str, Any]) -> dict[str, Any]:
    """Model FLOPs utilisation by the formula of ``compass_ray.adapt.flops``, and peak memory."""
    import torch

    from compass_ray.adapt.flops import peak_flops, step_flops
    from compass_ray.adapt.training.reporter import model_size

    peak = peak_flops(torch.cuda.get_device_name())
    pairs = (
        float((packs.positions.astype("int64") + 1).sum()) / len(packs) * settings["batch_size"] * settings["updates"]
    )
    flops = step_flops(model_size(model), tokens, pairs)
    return {
        "mfu": None if peak is None else round(flops / seconds / peak, 4),
        "peak_memory_gib": round(torch.cuda.max_memory_allocated() / 2**30, 2),
    }


def random_packs(count: int, length: int, vocabulary: int) -> Any:
    """Full packs of documents of uneven length; every token is trained."""
    import numpy as np

    from compass_ray.adapt.examples import Example
    from compass_ray.adapt.packing import make_packs

    rng = np.random.default_rng(0)
    examples = []
    for _ in range(count):
        cut = int(rng.integers(length // 8, length // 2))
        for size in (cut, length - cut):
            trained = np.arange(size) > 0
            tokens = rng.integers(0, vocabulary, size).astype(np.int32)
            examples.append(Example(tokens, trained, size, truncated=False))
    return make_packs(examples, length)


def bare_loop(model: Any, packs: Any, task: Any, device: Any) -> Callable[[int], Any]:
    """What one writes by hand: the mean loss of each micro-batch, no checks, no metrics."""
    import torch

    from compass_ray.adapt.schedule import micro_batches
    from compass_ray.adapt.training.loop import tensors

    weights = [param for param in model.parameters() if param.requires_grad]
    optimizer = torch.optim.AdamW(weights, lr=1e-4, weight_decay=0.0)
    accumulation = task.config.batch_size // task.micro_batch

    def step(number: int) -> None:
        for micro in micro_batches(task.schedule.packs(number), 0, 1, task.micro_batch, accumulation):
            batch = tensors(packs, micro, 0, device)
            logits = model(input_ids=batch["input_ids"], position_ids=batch["position_ids"], use_cache=False).logits
            loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), batch["targets"].flatten())
            (loss / accumulation).backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        optimizer.step()
        optimizer.zero_grad()

    return step


def _model(config: AdaptConfig, shape: dict[str, int]) -> Any:
    import torch
    from transformers import AutoModelForCausalLM, Qwen2Config

    from compass_ray.adapt.training.model import with_adapter

    torch.manual_seed(0)
    base = AutoModelForCausalLM.from_config(Qwen2Config(**shape, tie_word_embeddings=True), attn_implementation="sdpa")
    base = base.to(getattr(torch, config.compute_dtype)).requires_grad_(False)
    if config.workers.gradient_checkpointing:
        base.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    model = with_adapter(base, config, 0, "bench")
    return model.to(getattr(torch, config.compute_dtype))


def main() -> None:
    import ray

    from compass_ray.adapt.training.trainer import fit_workers
    from compass_ray.runtime.cluster import connect
    from compass_ray.runtime.config import RayConfig
    from compass_ray.runtime.progress import Display
    from compass_ray.runtime.tally import watched

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--updates", type=int, default=3, help="Updates of a turn")
    parser.add_argument("--micro-batch", type=int)
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    settings: dict[str, Any] = {
        "gpu": arguments.gpu,
        "threads": arguments.threads,
        "turns": arguments.turns,
        "updates": arguments.updates,
        "shape": HALF_BILLION if arguments.gpu else SMALL,
        "length": 2048 if arguments.gpu else 256,
        "batch_size": 16 if arguments.gpu else 8,
        "micro_batch": arguments.micro_batch or 4,
        "packs": 64,
        "checkpointing": arguments.checkpointing,
    }
    connect(RayConfig())
    with tempfile.TemporaryDirectory() as output, watched(Display(), "bench", 1, "comparison") as tally:
        workers = WorkersConfig(num_cpus=arguments.threads, num_gpus=int(arguments.gpu), max_failures=0)
        fit_workers(compare, {**settings, "tally": tally, "launched": time.time()}, workers, output, "bench")
        figures = ray.get(tally.notes.remote())["figures"]
    print("| | tokens/s | of bare PyTorch |\n|---|---|---|")
    print(f"| compass_ray | {figures['tokens_per_s']['ours']:,} | {figures['ratio']:.3f} |")
    print(f"| bare PyTorch | {figures['tokens_per_s']['bare']:,} | 1 |")
    print(f"start-up: {figures['start_s']['worker']} s for the worker, {figures['start_s']['engine']} s for the engine")
    if arguments.gpu:
        print(f"MFU {figures['mfu']}, peak memory {figures['peak_memory_gib']} GiB")
    name = "adapt_gpu.json" if arguments.gpu else "adapt.json"
    path = arguments.json or Path("benchmarks/results") / name
    path.parent.mkdir(parents=True, exist_ok=True)
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "date": time.strftime("%Y-%m-%d")}
    del settings["gpu"]
    path.write_text(
        json.dumps({"machine": machine, "settings": settings, **figures}, indent=1) + "\n", encoding="utf-8"
    )


if __name__ == "__main__":
    main()
