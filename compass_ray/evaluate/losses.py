"""The loss of documents one by one, under a base model and several adapters of it.

A batch holds documents of about the same length, one a row. Their position ids begin at 0 and padding has position 0,
as in packs (see ``adapt.packing``), so no row needs a mask. How documents are batched follows from their lengths alone.
Cost: a forward pass of each document for each adapter. Logits are made where a token is predicted in some row of a
batch, and their float32 copy a row at a time.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from compass_ray.adapt.packing import IGNORED, Packs, batch
from compass_ray.errors import IncompatibleAdapter
from compass_ray.registry.export.models import put_adapter

_PADDING = 0
"""Any token will do: no other sees it."""

_MULTIPLE = 8
"""Rows are padded to a multiple of it (tensor cores)."""


class SwitchedModel:
    """A base model with adapters on it, of which one at a time, or none, is at work.

    Their ranks and the layers that they update may differ.

    Parameters
    ----------
    base
        A causal language model. It is changed in place.
    folders : mapping of str to Path or None
        The files of each adapter; None stands for the base alone. They are not needed afterwards.

    Raises
    ------
    IncompatibleAdapter
        If an adapter does not fit the base.
    """

    def __init__(self, base: Any, folders: Mapping[str, Path | None]) -> None:
        self._model = base
        self._inside: dict[str, str | None] = {}
        for number, (name, folder) in enumerate(folders.items()):
            # Not the name itself: PEFT allows no dot in it, and mixes it up with names of modules that are like it.
            inside = None if folder is None else f"adapter{number:05d}"
            if folder is not None and inside is not None:
                try:
                    self._model = put_adapter(self._model, folder, inside)
                except IncompatibleAdapter as exc:
                    raise IncompatibleAdapter(f"{name}: {exc}") from exc
            self._inside[name] = inside
        self._model.eval()

    @contextmanager
    def switched_to(self, name: str) -> Iterator[Any]:
        """Give the model with the adapter of that name at work until the block is left."""
        inside = self._inside[name]
        if inside is not None:
            self._model.set_adapter(inside)
        bare = inside is None and any(self._inside.values())
        with self._model.disable_adapter() if bare else nullcontext():
            yield self._model


def document_losses(model: Any, packs: Packs, batch_tokens: int) -> NDArray[np.float64]:
    """Sum the negative log-likelihoods of the predicted tokens of every pack.

    Parameters
    ----------
    model
        A causal language model of transformers or PEFT, in evaluation mode.
    packs : Packs
        Of one document each.
    batch_tokens : int
        Tokens in a batch with padding, at most; a longer document is a batch of its own.

    Returns
    -------
    ndarray of shape (len(packs),), float64
        In nats; not finite where the model's output is not. They are summed in float64 from terms in float32.
    """
    nats = np.zeros(len(packs))
    with torch.no_grad():
        for numbers in length_batches(packs.lengths, batch_tokens, _border(model.config)):
            arrays = batch(packs, numbers.tolist(), _PADDING, _MULTIPLE)
            nats[numbers] = _row_losses(model, {name: torch.from_numpy(array) for name, array in arrays.items()})
    return nats


def length_batches(
    lengths: NDArray[np.int64], batch_tokens: int, border: int | None = None
) -> Iterator[NDArray[np.int64]]:
    """Yield the positions of the documents of each batch, the longest first.

    Equal lengths go by position. What a batch takes of memory is found out with the first one.

    Parameters
    ----------
    lengths : ndarray of shape (n,), int64
    batch_tokens : int
        See :func:`document_losses`.
    border : int, optional
        No batch holds both a document that is longer and one that is not.
    """
    order = np.argsort(-lengths, kind="stable")
    beyond = 0 if border is None else int((lengths > border).sum())
    start = 0
    while start < len(order):
        longest = -(-int(lengths[order[start]]) // _MULTIPLE) * _MULTIPLE
        stop = start + max(1, batch_tokens // longest)
        if start < beyond:
            stop = min(stop, beyond)
        yield order[start:stop]
        start = stop


def _border(config: Any) -> int | None:
    """Find the length from which on LongRoPE (Phi) turns to other frequencies, for all rows of a batch at once."""
    rope = getattr(config, "rope_parameters", None) or {}
    found = rope.get("original_max_position_embeddings", getattr(config, "original_max_position_embeddings", None))
    return None if found is None else int(found)


def _row_losses(model: Any, tensors: Mapping[str, torch.Tensor]) -> NDArray[np.float64]:
    on_device = {name: tensor.to(model.device) for name, tensor in tensors.items()}
    targets = on_device.pop("targets")
    kept = (targets != IGNORED).any(dim=0).nonzero().squeeze(1)
    logits = model(**on_device, use_cache=False, logits_to_keep=kept).logits
    sums = []
    for row, wanted in zip(logits, targets[:, kept], strict=True):
        counted = wanted != IGNORED
        terms = functional.cross_entropy(row[counted].float(), wanted[counted], reduction="none")
        sums.append(terms.double().sum())
    total: NDArray[np.float64] = torch.stack(sums).cpu().numpy()
    return total
