"""How much memory a worker will need, predicted from the base's config alone: no weights are read, none are made.

Weights and optimizer state follow Rajbhandari et al. 2020, "ZeRO: Memory Optimizations Toward Training Trillion
Parameter Models". Activations are counted as Korthikanti et al. 2022, "Reducing Activation Recomputation in Large
Transformer Models", count them, tensor by tensor, for a decoder as transformers runs it (RMSNorm, rotary positions,
gated MLP) with frozen weights. A frozen linear layer keeps nothing for the backward pass; its update keeps its input.

The prediction is meant never to be too low, so every part is an upper bound. Against what torch allocates on a CPU for
a micro-batch of packed documents in float32, ``MemoryEstimate.micro_batch`` is 7 to 12 % too high without checkpointing
and 28 to 36 % with it (Llama, Qwen2, Phi-3); over all variants tried 2 % (a large vocabulary) to 80 % (eager attention
with checkpointing), see ``tests/adapt/test_preflight.py``. The other parts follow the code of DeepSpeed 0.19, PEFT and
bitsandbytes and have not been measured on a GPU; context and fragmentation are allowances. It is too low for mixtures
of experts, whose tokens pass several MLPs.

Cost: the model is built on the meta device, seconds for billions of weights.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from compass_ray.adapt.config import AdaptConfig
from compass_ray.adapt.layers import config_of, is_linear, on_meta
from compass_ray.errors import ResourcesMissing

_GIB = 1 << 30
_NF4_BITS = 4 + 8 / 64 + 32 / (64 * 256)
"""4 bits, an 8-bit scale for 64 weights, a float32 scale for 256 scales (Dettmers et al. 2023, QLoRA, section 3)."""

_GATHERED = 1_050_000_000
"""Elements of ``stage3_max_live_parameters`` and ``stage3_prefetch_bucket_size``: what ZeRO-3 keeps whole at most."""

_PROCESS = _GIB
"""CUDA context and kernels (about 0.5 GB), workspaces of cuBLAS and NCCL; on CPUs Python, torch, Ray and DeepSpeed,
which take 0.6 GB before anything is loaded."""
_FRAGMENTATION = 0.1
"""Of what comes and goes in a step: torch's allocator hands out large blocks in steps of 2 MiB and cannot join all."""

_HOST_COPIES = 36
"""Bytes a trained weight of float32 copies, which a worker on CPUs shares its memory with: first and best weights,
a checkpoint (weights, moments, best), and the same again as the bytes of its file."""

_MULTIPLE = 8
"""Packs are padded to a multiple of this, see ``packing.batch``."""

_LABELS = {
    "base": "base, frozen",
    "adapter": "adapter",
    "optimizer": "optimizer state",
    "gradients": "gradients",
    "activations": "activations",
    "logits": "logits and loss",
    "layer": "backward of one layer",
    "buffers": "buffers of DeepSpeed",
    "overhead": "process and fragmentation",
    "loading": "more while the base loads",
    "total": "total, at the peak",
}


@dataclass(frozen=True)
class Architecture:
    """What the memory of a model depends on.

    Attributes
    ----------
    frozen, linear, trained : int
        Weights of the base; those of its linear layers without the output; those of the adapter.
    layers, hidden, vocabulary : int
    heads, attention, keys : int
        Attention heads; features of all queries, and of all keys, of a token.
    intermediate : int
        Features between the two halves of the MLP.
    targets, inputs, outputs : int
        Linear layers that get an update; their input and output features, summed over the whole model.
    largest : int
        Weights of the largest linear layer.
    dora : int
        Weights that DoRA makes whole at once, see :func:`_dora_weights`; 0 without it.
    """

    frozen: int
    linear: int
    trained: int
    layers: int
    hidden: int
    vocabulary: int
    heads: int
    attention: int
    keys: int
    intermediate: int
    targets: int
    inputs: int
    outputs: int
    largest: int
    dora: int


def architecture(base_config: Any, config: AdaptConfig) -> Architecture:
    """Count what the real model would hold, on one that has shapes but no values.

    Parameters
    ----------
    base_config : PreTrainedConfig
        Of a causal language model that transformers knows.

    Raises
    ------
    ConfigError
        If a name in ``lora.target_modules`` is that of no linear layer of the base.
    """
    import torch

    from compass_ray.adapt.training.model import with_adapter

    base = on_meta(base_config)
    sizes = _linear_sizes(base)
    all_sizes = sizes + _expert_sizes(base)
    with torch.device("meta"), torch.random.fork_rng(devices=[]):
        model = with_adapter(base, config, seed=0, lang="")
    targets = [module for module in model.modules() if hasattr(module, "lora_A") and len(module.lora_A)]
    shapes = [(layer.in_features, layer.out_features) for layer in targets]
    text = base_config.get_text_config()
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return Architecture(
        frozen=sum(param.numel() for param in model.parameters() if not param.requires_grad),
        linear=sum(rows * columns for rows, columns in sizes),
        trained=sum(param.numel() for param in model.parameters() if param.requires_grad),
        layers=text.num_hidden_layers,
        hidden=text.hidden_size,
        vocabulary=model.get_output_embeddings().out_features,
        heads=text.num_attention_heads,
        attention=head * text.num_attention_heads,
        keys=head * (getattr(text, "num_key_value_heads", None) or text.num_attention_heads),
        intermediate=max(columns for _, columns in all_sizes),
        targets=len(targets),
        inputs=sum(columns for columns, _ in shapes),
        outputs=sum(rows for _, rows in shapes),
        largest=max(rows * columns for rows, columns in all_sizes),
        dora=_dora_weights(shapes) if config.lora.method == "dora" else 0,
    )


def _linear_sizes(base: Any) -> list[tuple[int, int]]:
    """List output and input features of every linear layer but the output."""
    head = base.get_output_embeddings()
    layers = [module for module in base.modules() if is_linear(module) and module is not head]
    shapes = [(layer.weight.shape, hasattr(layer, "nf")) for layer in layers]  # Conv1D stores (input, output)
    return [(shape[1], shape[0]) if turned else (shape[0], shape[1]) for shape, turned in shapes]


def _expert_sizes(base: Any) -> list[tuple[int, int]]:
    """List output and input features of one expert of each tensor with several.

    Quantisation leaves such tensors as they are.
    """
    return [(weights.shape[1], weights.shape[2]) for weights in base.parameters() if weights.ndim == 3]


def _dora_weights(shapes: Iterable[tuple[int, int]]) -> int:
    """Count the numbers that DoRA makes for the layer that takes most.

    It passes a unit matrix through A and B, and makes base, update and their sum whole to take norms of rows.
    """
    return max(columns * columns + 3 * columns * rows for columns, rows in shapes)


@dataclass(frozen=True)
class MemoryEstimate:
    """Bytes of one worker: of its GPU, or of its process on CPUs.

    Attributes
    ----------
    base, adapter : int
        Weights as they compute; this worker's part of the base with ZeRO-3.
    optimizer : int
        Float32 weights and two moments of this worker's part of the adapter; none on a GPU with offload.
    gradients : int
        Of the adapter; from ZeRO-2 on of this worker's part, which an update turns into float32.
    activations : int
        What all layers keep of one micro-batch for the backward pass.
    logits : int
        Of one micro-batch in which all positions are trained.
    layer : int
        What the backward pass of one layer needs beside what is kept, once the logits are gone.
    buffers : int
        Of DeepSpeed, and on CPUs what host memory holds beside a training.
    overhead : int
        The process, and memory that is free and cannot be used.
    loading : int
        What only the loading of the base needs, while there are no activations yet.
    """

    base: int
    adapter: int
    optimizer: int
    gradients: int
    activations: int
    logits: int
    layer: int
    buffers: int
    overhead: int
    loading: int

    @property
    def micro_batch(self) -> int:
        """What forward and backward of one micro-batch make: the larger of its peaks at the loss and in a layer."""
        return self.activations + max(self.logits, self.layer)

    @property
    def training(self) -> int:
        """What training adds to weights and process."""
        return self.optimizer + self.gradients + self.micro_batch + self.buffers

    @property
    def total(self) -> int:
        """The larger of two peaks, in training and in loading."""
        return self.base + self.adapter + self.overhead + max(self.training, self.loading)


def estimate(base_config: Any, config: AdaptConfig) -> MemoryEstimate:
    """Predict the memory of one worker; parameters as in :func:`architecture`."""
    size, workers = architecture(base_config, config), config.workers
    width = 4 if config.compute_dtype == "float32" else 2
    sharded = -(-size.trained // workers.count)
    offloaded = workers.offload != "none"
    whole = _base_bytes(size, config, width)
    base = -(-whole // workers.count) if workers.zero_stage == 3 else whole
    if workers.offload == "optimizer+base":
        base = 0
    gradients = width * (size.trained if workers.zero_stage == 1 else sharded) + (0 if offloaded else 4 * sharded)
    activations, layer = _activations(size, config, width)
    logits = _logits(size, config)
    return MemoryEstimate(
        base=base,
        adapter=width * size.trained,
        optimizer=0 if offloaded else 12 * sharded,
        gradients=gradients,
        activations=activations,
        logits=logits,
        layer=layer,
        buffers=_buffers(size, config, width),
        overhead=_PROCESS + int(_FRAGMENTATION * (gradients + activations + max(logits, layer))),
        loading=_loading(size, config, width, whole - base),
    )


def _loading(size: Architecture, config: AdaptConfig, width: int, elsewhere: int) -> int:
    """Predict what loading holds beyond the base as it stays.

    ``elsewhere`` are the bytes of the base that other workers hold.

    PEFT makes adapters in float32. ZeRO-3 cuts each weight as it is read, so on a GPU one is whole at a time, and its
    copy. On CPUs the base's files are mapped: their pages count, though the system takes them back when it must.
    """
    adapters = (4 - width) * size.trained
    if config.device == "cpu":
        return width * size.frozen + adapters
    if config.workers.zero_stage < 3 or config.lora.method == "dora":  # PEFT makes DoRA from whole weights
        return adapters + elsewhere
    return adapters + min(elsewhere, 2 * width * max(size.largest, size.vocabulary * size.hidden))


def _base_bytes(size: Architecture, config: AdaptConfig, width: int) -> int:
    """Compute the bytes of the whole base. Of a 4-bit one embeddings, norms and the output stay as they compute."""
    if config.dtype != "nf4":
        return width * size.frozen
    return width * (size.frozen - size.linear) + int(_NF4_BITS / 8 * size.linear)


def _tokens(config: AdaptConfig) -> int:
    """Count the tokens of a row, padded."""
    return -(-config.max_length // _MULTIPLE) * _MULTIPLE


def _activations(size: Architecture, config: AdaptConfig, width: int) -> tuple[int, int]:
    """Predict what all layers keep of a micro-batch.

    The second number is what the backward pass of one layer adds to that.

    Per token and layer, with features h (hidden), a (queries), k (keys), i (MLP) and w bytes a number:

    - two norms: the input in float32 and the output, ``2 (4 + w) h``;
    - attention: queries, keys and values for all heads (a mask makes sdpa repeat them), its output and a copy,
      and a fused projection that its part still holds, ``w (5 a + 2 k)``; one float32 a head;
    - MLP: gate, its activation, up and their product, ``4 w i``;
    - each update: its low rank and the gradient of that, and with dropout an input and a mask of its own.

    sdpa keeps no scores, but the mask of packed documents, which is quadratic: ``w length`` a token and layer. eager
    keeps scores in float32 and a copy as they compute, ``(4 + w) heads length``, and makes three more of one layer.

    Checkpointing (Chen et al. 2016, "Training Deep Nets with Sublinear Memory Cost") keeps ``w h`` a token and layer,
    and makes all of the above again for one layer at a time.
    """
    rows, length = config.workers.micro_batch, _tokens(config)
    eager = (4 if width == 4 else 4 + width) * size.heads
    scores = {"sdpa": width, "eager": eager, "flash_attention_2": 0}[config.workers.attention]
    layer = 2 * (4 + width) * size.hidden
    layer += width * (5 * size.attention + 2 * size.keys) + 4 * size.heads + scores * length
    layer += 4 * width * size.intermediate
    updates = 2 * width * config.lora.rank * size.targets
    if config.lora.dropout:
        updates += 2 * width * size.inputs
    if config.lora.method == "dora":
        updates += 2 * width * size.outputs  # the base's output and the update's, which its magnitude multiplies
    kept = size.layers * layer + updates
    working = 3 * width * size.intermediate + 8 * size.hidden
    if config.workers.attention == "eager":
        working += 12 * size.heads * length
    if config.workers.gradient_checkpointing:
        working += -(-kept // size.layers)
        kept = size.layers * width * size.hidden
    ends = (4 + 3 * width) * size.hidden + 2 * width * (size.attention // size.heads) + 3 * length  # and masks' making
    weights = width * (size.dora + (size.largest if config.dtype == "nf4" else 0))
    return rows * length * (kept + ends), rows * length * working + weights


def _logits(size: Architecture, config: AdaptConfig) -> int:
    """Predict the bytes that logits and loss take.

    They are three float32 numbers a position and token of the vocabulary: log-probabilities, and both gradients of the
    loss.

    Rows share the positions at which logits are made, so one trained position in any row makes them in all.
    """
    return 12 * config.workers.micro_batch * _tokens(config) * size.vocabulary


def _buffers(size: Architecture, config: AdaptConfig, width: int) -> int:
    gathered = min(size.frozen, _GATHERED) * width if config.workers.zero_stage == 3 else 0
    bucket = width * size.trained  # the engine asks for no larger one
    return bucket + gathered + (0 if config.device == "cuda" else _HOST_COPIES * size.trained)


def estimate_for(config: AdaptConfig) -> MemoryEstimate:
    """Predict the memory of one worker for the base that the config names; of a hub model only its config is fetched.

    Raises
    ------
    ConfigError
        If there is no such base.
    """
    return estimate(config_of(config.base, config.revision), config)


def describe(memory: MemoryEstimate) -> list[dict[str, Any]]:
    """Make rows for a table or JSON: ``what`` and ``bytes``, the total last."""
    return [{"what": label, "bytes": getattr(memory, name)} for name, label in _LABELS.items()]


def check_fits(memory: MemoryEstimate, available_bytes: int, config: AdaptConfig) -> None:
    """Refuse a training that would run out of memory.

    Raises
    ------
    ResourcesMissing
        With the numbers, and what can be changed in this config.
    """
    if memory.total <= available_bytes:
        return
    *parts, _ = sorted(describe(memory), key=lambda row: int(row["bytes"]))
    largest = ", ".join(f"{row['what']} {_gib(row['bytes'])}" for row in parts[:-4:-1])
    raise ResourcesMissing(
        f"adapt.workers: one worker would need {_gib(memory.total)} of memory and has {_gib(available_bytes)} (largest "
        f"parts: {largest}); set {', or '.join(_remedies(memory, config))}"
    )


def _remedies(memory: MemoryEstimate, config: AdaptConfig) -> Iterator[str]:
    """Yield what would help, the cheapest first."""
    workers = config.workers
    if memory.training >= memory.loading:
        if not workers.gradient_checkpointing:
            yield "workers.gradient_checkpointing to true"
        if workers.micro_batch > 1:
            yield "workers.micro_batch lower"
        if workers.zero_stage == 3:
            yield "workers.count higher"
        elif workers.count > 1 and config.dtype != "nf4":
            yield "workers.zero_stage to 3"
        yield "max_length lower"
    if config.device == "cuda" and config.dtype != "nf4":
        yield "dtype to nf4 with workers.zero_stage 2"
    yield "workers on larger machines"


def _gib(n_bytes: int) -> str:
    return f"{n_bytes / _GIB:.1f} GiB"
