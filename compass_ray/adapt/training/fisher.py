"""The diagonal of an adapter's empirical Fisher information, from the gradient of one document at a time.

F_i = sum over documents d of (d log p(d) / d theta_i)^2, over the trained tokens of all: Fisher information of a token,
where a document is one observation. That is the scale of the loss that is trained on, a mean over tokens: as far as the
model fits these documents, F is the curvature of that loss on them. The square of a batch's gradient is something else,
since gradients of documents cancel in it; and the square of a document's mean gradient is too small by about its
length. Labels are those of the documents, not drawn from the model (see Kunstner, Hennig and Balles 2019, "Limitations
of the empirical Fisher approximation", NeurIPS).

Cost: forward and backward of every document; 12 bytes a trained parameter on every worker.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
import torch.distributed as dist

from compass_ray.adapt.packing import Packs
from compass_ray.adapt.schedule import EMPTY, micro_batches
from compass_ray.adapt.training.checkpoints import metadata_of
from compass_ray.adapt.training.engine import ZeroEngine
from compass_ray.adapt.training.loop import named, tensors
from compass_ray.errors import ArtifactCorrupt, NonFiniteLoss, NothingTrained

FISHER = "fisher.safetensors"
_REPORT_ROUNDS = 16
_ABOUT, _FORMAT = "fisher", "compass_ray-fisher-1"


def diagonal_fisher(
    engine: ZeroEngine,
    packs: Packs,
    documents: Sequence[str],
    pad_token: int,
    label: str,
    report: Callable[[int], None] | None = None,
) -> dict[str, torch.Tensor]:
    """Compute the Fisher information of the engine's trained weights; to be called on all workers.

    Every worker takes a document of its own, and reads its gradient before DeepSpeed averages it away, so any stage and
    number of workers comes to the same, up to rounding of float64 sums. The engine's weights stay as they are; its
    optimizer's state does not.

    Parameters
    ----------
    engine : ZeroEngine
        With gradient accumulation 1.
    packs : Packs
        Of one document each; those without a trained token do not count.
    documents : sequence of str
        Ids of the documents that packs number.
    pad_token : int
    label : str
        What messages call the adapter, a language.
    report : callable, optional
        Given the number of documents that are done, now and then.

    Returns
    -------
    dict of Tensor
        By the names of parameters, float32 on the CPU.

    Raises
    ------
    NonFiniteLoss
        If the gradient of a document is not finite; it is named.
    NothingTrained
        If no document has a trained token.
    ValueError
        If a pack holds several documents.
    """
    if len(packs.documents) != len(packs) or engine.accumulation != 1:
        raise ValueError("expected one document in each pack, and gradient accumulation 1")
    counted = np.flatnonzero(packs.trained).astype(np.int64)
    if not len(counted):
        raise NothingTrained(f"{label}: none of {len(packs)} documents has a token to measure a gradient by")
    rank, world = dist.get_rank(), dist.get_world_size()
    rounds = -(-len(counted) // world)
    with _watched(engine) as seen:
        totals = {name: torch.zeros_like(grad, dtype=torch.float64) for name, grad in seen.items()}
        for number, micro in enumerate(micro_batches(counted, rank, world, 1, rounds), start=1):
            (pack,) = micro.tolist()
            loss = engine.loss(tensors(packs, micro, pad_token, engine.device))
            engine.backward(loss)
            broken = not all(bool(torch.isfinite(grad).all()) for grad in (loss.detach(), *seen.values()))
            _check_finite(broken, pack, packs, documents, label)
            if pack != EMPTY:
                for name, grad in seen.items():
                    totals[name] += grad.double().square()
            engine.step(0.0)
            if report and (number % _REPORT_ROUNDS == 0 or number == rounds):
                report(min(number * world, len(counted)))
    for total in totals.values():
        dist.all_reduce(total)
    tokens = int(packs.trained[counted].sum())
    return {name: (total / tokens).float().cpu() for name, total in totals.items()}


@contextmanager
def _watched(engine: ZeroEngine) -> Iterator[dict[str, torch.Tensor]]:
    """Show the gradients of this worker's last backward, whole and not yet averaged; without dropout."""
    seen = {name: torch.zeros(shape, device=engine.device) for name, shape in engine.shapes().items()}

    def keep(name: str) -> object:
        def hook(grad: torch.Tensor) -> None:
            seen[name] = grad.detach().clone()

        return hook

    for module in engine.model.modules():  # dropout is in layers, and checkpointing of activations in blocks of layers
        module.training = getattr(module, "gradient_checkpointing", False) is True
    handles = [param.register_hook(keep(name)) for name, param in engine.trained.items()]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()
        engine.model.train()


def _check_finite(broken: bool, pack: int, packs: Packs, documents: Sequence[str], label: str) -> None:
    found: list[list[int]] = [[]] * dist.get_world_size()
    dist.all_gather_object(found, [pack] if broken else [])
    if bad := sorted(pack for part in found for pack in part if pack != EMPTY):
        raise NonFiniteLoss(
            f"{label}: the gradient of the documents {named(bad, packs, documents)} is not finite at the weights of "
            "the adapter; look at these documents, or compute in float32"
        )


def fisher_bytes(fisher: dict[str, torch.Tensor], documents: int) -> bytes:
    """Write Fisher information as safetensors; equal tensors, equal bytes.

    Parameters
    ----------
    fisher : dict of Tensor
    documents : int
        From how many documents it was computed.
    """
    from safetensors.torch import save

    sorted_ = {name: fisher[name].float().contiguous() for name in sorted(fisher)}
    about = json.dumps({"format": _FORMAT, "documents": documents})
    data: bytes = save(sorted_, metadata={_ABOUT: about})  # one entry: safetensors writes several in any order
    return data


def read_fisher(data: bytes) -> dict[str, torch.Tensor]:
    """Read what :func:`fisher_bytes` wrote.

    Raises
    ------
    ArtifactCorrupt
        If it is nothing of the kind, or holds numbers that no Fisher information has.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        tensors = load(data)
        found = json.loads(metadata_of(data)[_ABOUT])["format"]
    except (SafetensorError, KeyError, TypeError, ValueError) as exc:
        raise ArtifactCorrupt(f"{FISHER}: not Fisher information of an adapter ({exc}); compute it again") from exc
    if found != _FORMAT:
        raise ArtifactCorrupt(f"{FISHER}: expected the format {_FORMAT}, found {found}; compute it again")
    for name, tensor in tensors.items():
        if tensor.dtype != torch.float32 or not bool((torch.isfinite(tensor) & (tensor >= 0)).all()):
            raise ArtifactCorrupt(
                f"{FISHER}: {name}: expected finite float32 numbers of at least 0, found {tensor.dtype} from "
                f"{float(tensor.min())} to {float(tensor.max())}; compute it again"
            )
    return dict(tensors)
