"""Whether documents in a pack are blind to each other, found out on the real model before it trains."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch

from compass_ray.adapt.packing import IGNORED
from compass_ray.errors import ConfigError

_PROBE = 16
"""Tokens of each document of the check."""


def check_isolation(
    loss: Callable[[Mapping[str, torch.Tensor]], torch.Tensor], vocabulary: int, rows: int, device: torch.device
) -> None:
    """Make sure that documents in a pack do not see each other.

    transformers finds the documents of a pack by position ids that start anew, where the architecture and the attention
    implementation know how. The second of two documents must have the loss that it has alone, up to a tenth of what it
    would change if it saw the first.

    Parameters
    ----------
    loss : callable
        The summed loss of a batch, as training computes it.
    vocabulary : int
        Tokens of the model.
    rows : int
        Packs in a micro-batch: some implementations pack single rows only.
    device : torch.device

    Raises
    ------
    ConfigError
        If documents see each other; on every worker.
    """
    places = torch.arange(_PROBE, device=device)
    first, second = ((places * step + step) % vocabulary for step in (7, 11))
    targets = torch.cat([second[1:], torch.full((1,), IGNORED, device=device)])
    unseen = torch.full((_PROBE,), IGNORED, device=device)
    both, both_targets = torch.cat([first, second]), torch.cat([unseen, targets])

    def summed(tokens: torch.Tensor, positions: torch.Tensor, wanted: torch.Tensor) -> float:
        columns = {"input_ids": tokens, "position_ids": positions, "targets": wanted}
        return float(loss({name: value.repeat(rows, 1) for name, value in columns.items()}))

    alone = summed(second, places, targets)
    packed = abs(summed(both, torch.cat([places, places]), both_targets) - alone)
    mixed = abs(summed(both, torch.arange(2 * _PROBE, device=device), both_targets) - alone)
    if packed > 0.1 * mixed:
        raise ConfigError(
            f"adapt.packing: this base and attention let packed documents see each other (the loss of a document moves "
            f"by {packed:.2g}, of {mixed:.2g} without any separation); set adapt.packing to false, workers.micro_batch "
            "to 1, or another workers.attention"
        )
