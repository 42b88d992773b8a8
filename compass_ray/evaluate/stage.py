"""Evaluate: documents and adapters of one base -> the loss of each document under each adapter.

What flows through Ray Data are keys of shards of documents. An actor holds the base and all adapters, and measures one
shard under each of them. A killed actor is replaced and its shard is done again.
Cost: per actor the base's weights and all adapters'; a forward pass of each document for each adapter.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from compass_ray import records
from compass_ray.adapt.config import AdaptConfig
from compass_ray.adapt.tokenizer import TokenizerSource, base_folder
from compass_ray.adapt.usage import takes_chats
from compass_ray.artifacts import Artifact, Receipt, artifact, digest
from compass_ray.errors import IncompatibleAdapter, NonFiniteLoss
from compass_ray.evaluate.probes import predicted
from compass_ray.models import BaseRef, weights_hash
from compass_ray.registry.contents import CONFIG, WEIGHTS
from compass_ray.registry.lineage import check_base
from compass_ray.registry.version import AdapterVersion
from compass_ray.runtime.stage import Session
from compass_ray.runtime.threads import set_threads

VERSION = 1
BASE = "base"
"""What the column ``adapter`` calls the base without any adapter."""

LOSSES_EACH = 1_000
"""Losses that are worth the start of another actor, which loads the base."""

_BATCH_TOKENS = 1_024
"""At once through the model, or those of one pack if that is more: what training has room for. ``workers.micro_batch``
belongs to execution, so it may not decide how documents are batched, which moves last bits."""

_SHOWN_DOCUMENTS = 8

Adapters = Mapping[str, AdapterVersion | None]
"""By the name in the column ``adapter``; None is the base without any."""


def measure_losses(
    probes: Artifact, adapters: Adapters, base: BaseRef, source: TokenizerSource, session: Session
) -> Artifact:
    """Measure how well each adapter predicts each document; schema ``records.LOSS``, in the shards of the documents.

    Rows of a shard go by the name of the adapter, then as the documents. A document that has no token to predict, or
    that the chat template cannot render, has no row; :func:`counts_of` says how many these are and why.

    Parameters
    ----------
    probes : Artifact
        Of :func:`~compass_ray.evaluate.probes.probe_artifact`.
    adapters : mapping of str to AdapterVersion or None
    base : BaseRef
        Of the folder that ``source`` names.
    source : TokenizerSource
        Its config says how the base is loaded, at how many tokens a document is cut, and what an actor gets of the
        cluster (``workers``).
    session : Session

    Raises
    ------
    IncompatibleAdapter
        If an adapter is one of another base, before any work; if it or the base on a node is not what it should be.
    NonFiniteLoss
        If a loss is NaN or infinite.
    ResourcesMissing
        If no node holds an actor.
    """
    for version in adapters.values():
        if version is not None:
            check_base(version.lineage, base)
    target = _target(probes, adapters, base, source, session.output)
    keys = list(probes.manifest().receipts)
    session.complete(target, keys, partial(_measure_shards, probes, target, adapters, base, source))
    if said := _said_of(counts_of(target), source.config.max_length):
        session.display.say(said)
    return target


def _target(probes: Artifact, adapters: Adapters, base: BaseRef, source: TokenizerSource, output: str) -> Artifact:
    config = source.config
    named = {
        name: None if version is None else f"{version.lineage.lang}@{version.lineage.version}"
        for name, version in adapters.items()
    }
    body = {
        "version": VERSION,
        "probes": probes.fingerprint,
        "adapters": named,
        "base": base.weights_hash,
        "base_config": digest((base_folder(config) / "config.json").read_bytes()),
        "tokenizer": source.fingerprint(),
        "max_length": config.max_length,
        "device": config.device,
        "dtype": config.dtype if config.dtype == "nf4" else config.compute_dtype,
    }
    return artifact(output, "losses", body)


def counts_of(losses: Artifact) -> dict[str, Any]:
    """Count the documents, adding up what the summaries of the shards say.

    Returns
    -------
    dict
        As ``counts`` of :func:`~compass_ray.evaluate.probes.predicted`.
    """
    summaries = [receipt.summary for receipt in losses.manifest().receipts.values()]
    totals: dict[str, Any] = {
        name: sum(summary[name] for summary in summaries) for name in ("documents", "scored", "truncated")
    }
    for name in ("not_in_template", "dropped_reasons"):
        counted: Counter[str] = Counter()
        for summary in summaries:
            counted.update(summary[name])
        totals[name] = dict(sorted(counted.items()))
    return totals


def _said_of(counts: Mapping[str, Any], max_length: int) -> str:
    """Say how many documents are not measured, or in part. Nothing if there are none."""
    parts = []
    if reasons := counts["dropped_reasons"]:
        listed = ", ".join(f"{rows:,} × {reason}" for reason, rows in reasons.items())
        parts.append(f"{sum(reasons.values()):,} have nothing to predict ({listed})")
    if cut := counts["truncated"]:
        parts.append(f"{cut:,} are cut at {max_length:,} tokens (adapt.max_length)")
    return f"losses: of {counts['documents']:,} documents {' and '.join(parts)}" if parts else ""


def _measure_shards(
    probes: Artifact,
    target: Artifact,
    adapters: Adapters,
    base: BaseRef,
    source: TokenizerSource,
    missing: list[str],
) -> Iterator[Receipt]:
    import ray.data

    from compass_ray.runtime.cluster import room_for, worthwhile

    workers, shards = source.config.workers, probes.manifest().receipts
    room = room_for(workers.num_cpus, workers.num_gpus, "adapt.workers")
    if workers.parallel_languages is not None:  # no more bases in memory than training would have
        room = min(room, workers.count * workers.parallel_languages)
    losses = len(adapters) * sum(shards[key].rows for key in missing)
    keys = ray.data.from_items([{"key": key} for key in missing], override_num_blocks=len(missing))
    receipts = keys.map_batches(
        LossMeter,
        fn_constructor_args=(probes, target, dict(adapters), base, source),
        batch_size=1,
        batch_format="pyarrow",
        compute=ray.data.ActorPoolStrategy(size=worthwhile(len(missing), losses, LOSSES_EACH, room, None)),
        num_cpus=workers.num_cpus,
        num_gpus=workers.num_gpus,
    )
    for batch in receipts.iter_batches(batch_size=None, batch_format="pyarrow"):
        for line in batch["receipt"].to_pylist():
            yield Receipt(**json.loads(line))


class LossMeter:
    """The actor: holds the base with all adapters, and measures whole shards."""

    def __init__(
        self, probes: Artifact, target: Artifact, adapters: Adapters, base: BaseRef, source: TokenizerSource
    ) -> None:
        self._probes, self._target, self._config = probes, target, source.config
        self._tokenizer = source.load()
        self._chats = takes_chats(self._tokenizer)
        self._names = sorted(adapters)
        self._model = _load(adapters, base, source.config)
        set_threads(source.config.workers.num_cpus)

    def __call__(self, batch: pa.Table) -> pa.Table:
        receipts = [self._measure(key) for key in batch["key"].to_pylist()]
        return pa.table({"receipt": [json.dumps(asdict(receipt)) for receipt in receipts]})

    def _measure(self, key: str) -> Receipt:
        from compass_ray.evaluate.losses import document_losses

        probes = self._probes.read(key)
        length = self._config.max_length
        rows, packs, counts = predicted(self._tokenizer, probes, length, self._chats)
        documents = probes.take(pa.array(rows))
        parts = [records.LOSS.empty_table()]
        for name in self._names:
            with self._model.switched_to(name) as model:
                nats = document_losses(model, packs, max(length, _BATCH_TOKENS))
            _check_finite(nats, documents, name)
            measured = {"nats": nats, "tokens": packs.trained, "bytes": packs.n_bytes}
            columns = {"adapter": pa.array([name] * len(nats), pa.string()), **measured}
            parts.append(
                pa.table(
                    [columns[field] if field in columns else documents[field] for field in records.LOSS.names],
                    schema=records.LOSS,
                )
            )
        return self._target.write(key, pa.concat_tables(parts), counts)


def _load(adapters: Adapters, base: BaseRef, config: AdaptConfig) -> Any:
    from compass_ray.adapt.training.model import load_base
    from compass_ray.evaluate.losses import SwitchedModel

    folder = base_folder(config)
    if (found := weights_hash(folder)) != base.weights_hash:
        raise IncompatibleAdapter(
            f"adapt.base: on this node {folder} has weights {found}, expected {base.weights_hash}; put the same model "
            "on every node"
        )
    model = load_base(folder, config)
    if config.dtype != "nf4":  # those are on the GPU already
        model = model.to(config.device)
    with TemporaryDirectory() as place:
        folders: dict[str, Path | None] = {}
        for number, (name, version) in enumerate(sorted(adapters.items())):
            folders[name] = None
            if version is not None:
                mine = Path(place, str(number))
                mine.mkdir()
                version.download(mine, (CONFIG, WEIGHTS))
                folders[name] = mine
        return SwitchedModel(model, folders)


def _check_finite(nats: NDArray[np.float64], documents: pa.Table, name: str) -> None:
    bad = np.flatnonzero(~np.isfinite(nats))
    if len(bad):
        ids = [value.hex() for value in documents["doc_id"].take(pa.array(bad[:_SHOWN_DOCUMENTS])).to_pylist()]
        more = f" and {len(bad) - len(ids)} more" if len(bad) > len(ids) else ""
        raise NonFiniteLoss(
            f"losses: under {name} the loss of the documents {', '.join(ids)}{more} is not finite; the weights are "
            "damaged, or adapt.dtype does not suit the base"
        )
