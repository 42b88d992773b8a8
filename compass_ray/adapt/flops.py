"""How many floating-point operations a training step takes, and which share of the hardware's peak that is."""

from __future__ import annotations

from dataclasses import dataclass

_PEAKS = {  # dense bfloat16, FLOP/s, from the makers' data sheets
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "A10": 125e12,
    "L4": 121e12,
    "MI300X": 1307e12,
}


@dataclass(frozen=True)
class ModelSize:
    """What the cost of a model depends on.

    Attributes
    ----------
    frozen, trained : int
        Weights of matrix products at every token: embeddings that are only looked up do not count.
    output : int
        Frozen weights of the output layer, which is computed where something is predicted alone.
    layers, attention_width : int
        Attention layers, and the features of all heads together.
    """

    frozen: int
    trained: int
    output: int
    layers: int
    attention_width: int


def step_flops(size: ModelSize, tokens: int, predicted: int, pairs: float) -> float:
    """Compute the FLOPs of forward and backward over ``tokens`` tokens. So many of these are ``predicted``.

    A product with a weight costs 2 FLOPs a token forward, 2 for the gradient of its input and 2 for its own; a frozen
    weight has no gradient of its own, so it costs 4 where a trained one costs 6. Attention costs 4 FLOPs a feature and
    pair of tokens forward and twice that backward. Operations that gradient checkpointing repeats do not count.

    Parameters
    ----------
    pairs : float
        Pairs of tokens that attend: ``n (n + 1) / 2`` of each document of n tokens.
    """
    weights = tokens * (4.0 * size.frozen + 6.0 * size.trained) + predicted * 4.0 * size.output
    return weights + 12.0 * size.layers * size.attention_width * pairs


def peak_flops(device_name: str) -> float | None:
    """Look up the peak of a GPU in bfloat16. None if it is not known."""
    return next((peak for name, peak in _PEAKS.items() if name in device_name), None)
