"""Embed: documents -> embeddings, shard by shard, on a Ray Data actor pool.

What flows through Ray Data are shard keys; an actor reads its shard, encodes it and writes the
vectors. A killed actor is replaced and its shard is done again, to the same bytes.
Cost: one model per actor; a worker holds one shard of texts and its vectors (2·d bytes a document).
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from compass_ray import records
from compass_ray.artifacts import Artifact, Manifest, Receipt, artifact, digest
from compass_ray.configbase import identity
from compass_ray.embed.batching import token_batches
from compass_ray.embed.config import EmbedConfig
from compass_ray.embed.encoder import Encoder, Input
from compass_ray.embed.kinds import encoder_from, kind_of
from compass_ray.embed.meaning import (
    MAX_FALSE_FRACTION,
    Meaning,
    meaning_threshold,
    parallel_text,
    parallel_vectors,
)
from compass_ray.errors import NonFiniteEmbedding
from compass_ray.runtime.stage import Session
from compass_ray.runtime.threads import set_threads
from compass_ray.vectors import to_column

VERSION = 3
MEANING, MEANING_VERSION = "meaning", 2
ROWS_EACH = 2_000
"""Documents that are worth the start of another actor, which loads a model."""

_SHOWN_LANGUAGES = 5


def embed(documents: Artifact, config: EmbedConfig, session: Session) -> Artifact:
    """Embed every document of an ingest artifact.

    Raises
    ------
    NonFiniteEmbedding
        If more than ``max_non_finite_fraction`` of the vectors hold NaN or infinity even in float32.
    ResourcesMissing
        If the cluster has fewer GPUs than one actor needs.
    """
    target = artifact(
        session.output,
        "embed",
        {
            "version": VERSION,
            "documents": documents.fingerprint,
            "encoder": encoder_identity(config),
            "config": {name: value for name, value in identity(config).items() if name != "center"},  # vectors are raw
        },
    )
    keys = list(documents.manifest().receipts)
    manifest = session.complete(target, keys, partial(_embed_shards, documents, target, config))
    _check_finite(manifest, config)
    cut = sum(receipt.summary["cut"] for receipt in manifest.receipts.values())
    if cut:
        session.display.say(
            f"embed: {cut:,} of {manifest.rows:,} documents are longer than what the encoder reads of a text; their "
            "ends change no vector (embed.max_tokens, if the model has positions for more)"
        )
    if said := _said_of_unknown(manifest):
        session.display.say(said)
    return target


def _said_of_unknown(manifest: Manifest) -> str:
    """Say how many documents the encoder can hardly read. Nothing if there are none."""
    unknown: Counter[str] = Counter()
    documents: Counter[str] = Counter()
    for receipt in manifest.receipts.values():
        unknown.update(receipt.summary["unknown"])
        for _, lang, count in receipt.summary["groups"]:
            documents[lang] += count
    if not unknown:
        return ""
    shown = [f"{lang} {count:,} of {documents[lang]:,}" for lang, count in unknown.most_common(_SHOWN_LANGUAGES)]
    more = f" and {len(unknown) - len(shown)} languages more" if len(unknown) > len(shown) else ""
    return (
        f"embed: of {unknown.total():,} documents the encoder knows less than half of the tokens ({', '.join(shown)}"
        f"{more}); their vectors are much alike, so that they are taken for copies and fall into one cluster; leave "
        "them out, or give another embed.model"
    )


def encoder_identity(config: EmbedConfig) -> dict[str, str]:
    """Collect what decides the vector of a text: the model's revision, prompt, precision and device class."""
    kind = kind_of(config.model)
    return {
        "revision": kind.revision(config),
        "prompt": kind.prompt(config),
        "dtype": config.dtype,
        "device": config.device,
    }


def fit_meaning(config: EmbedConfig, session: Session) -> Meaning:
    """Fit from which cosine on texts of two languages say the same, or read it where it has been fitted before."""
    body = {
        "version": MEANING_VERSION,
        "encoder": encoder_identity(config),
        "text": digest(parallel_text()),
        "max_false_fraction": MAX_FALSE_FRACTION,
    }
    target = artifact(session.output, MEANING, body)
    manifest = session.complete(target, [MEANING], lambda missing: _fit_meaning(target, config))
    return Meaning(**manifest.receipts[MEANING].summary)


def _fit_meaning(target: Artifact, config: EmbedConfig) -> Iterator[Receipt]:
    import ray

    task = ray.remote(num_cpus=config.num_cpus, num_gpus=config.num_gpus, max_retries=5)(_meaning_of)
    found: Meaning = ray.get(task.remote(config))
    yield target.write(MEANING, pa.table({"similarity": [found.similarity]}), asdict(found))


def _meaning_of(config: EmbedConfig) -> Meaning:
    set_threads(config.threads)
    return meaning_threshold(parallel_vectors(encoder_from(config)))


def vector_space(config: EmbedConfig, view: str) -> dict[str, str]:
    """Collect what makes clusters comparable.

    It is the encoder, the part of conversations that it reads, and how vectors are centred.
    """
    return {**encoder_identity(config), "view": view, "center": config.center}


def _embed_shards(documents: Artifact, target: Artifact, config: EmbedConfig, missing: list[str]) -> Iterator[Receipt]:
    import ray.data

    from compass_ray.runtime.cluster import room_for, worthwhile

    room = room_for(config.num_cpus, config.num_gpus, "embed")
    shards = documents.manifest().receipts
    rows = sum(shards[key].rows for key in missing)
    pool = ray.data.ActorPoolStrategy(size=worthwhile(len(missing), rows, ROWS_EACH, room, config.actors))
    keys = ray.data.from_items([{"key": key} for key in missing], override_num_blocks=len(missing))
    receipts = keys.map_batches(
        ShardEmbedder,
        fn_constructor_args=(documents, target, config),
        batch_size=1,
        batch_format="pyarrow",
        compute=pool,
        num_cpus=config.num_cpus,
        num_gpus=config.num_gpus,
    )
    for batch in receipts.iter_batches(batch_size=None, batch_format="pyarrow"):
        for line in batch["receipt"].to_pylist():
            yield Receipt(**json.loads(line))


class ShardEmbedder:
    """The actor: holds one encoder and embeds whole shards."""

    def __init__(self, documents: Artifact, target: Artifact, config: EmbedConfig) -> None:
        self._documents, self._target, self._config = documents, target, config
        self._encoder = encoder_from(config)
        set_threads(config.threads)

    def __call__(self, batch: pa.Table) -> pa.Table:
        receipts = [self._embed(key) for key in batch["key"].to_pylist()]
        return pa.table({"receipt": [json.dumps(asdict(receipt)) for receipt in receipts]})

    def _embed(self, key: str) -> Receipt:
        columns = ["doc_id", "content_id", "role", "target_lang", "lang", "text", "reject"]
        documents = records.documents_only(self._documents.read(key, columns))
        texts = documents["text"].to_pylist()
        tokenized = self._encoder.tokenize(texts)
        batches = token_batches(tokenized.sizes(), self._config.batch_tokens, self._config.batch_texts)
        vectors, halved = encode_in_batches(self._encoder, tokenized.inputs, batches)
        finite = np.logical_and.reduce(np.isfinite(vectors), axis=1)
        table = documents.drop_columns(["text"])
        table = table.append_column("tokens", pa.array(tokenized.counts))
        table = table.append_column("vector", to_column(vectors, missing=~finite))
        summary = {
            "groups": group_counts(table.filter(pa.array(finite))),
            "non_finite": int((~finite).sum()),
            "halved_batches": halved,
            "cut": tokenized.cut,
            "unknown": _count_unknown(documents["lang"], tokenized.unknown),
        }
        return self._target.write(key, table.cast(records.embedding_schema(self._encoder.dim)), summary)


def _count_unknown(langs: pa.ChunkedArray, unknown: NDArray[np.bool_] | None) -> dict[str, int]:
    """Count the texts that are mostly unknown tokens, by language."""
    return {} if unknown is None else dict(sorted(Counter(langs.filter(pa.array(unknown)).to_pylist()).items()))


def encode_in_batches(
    encoder: Encoder, inputs: Sequence[Input], batches: Sequence[NDArray[np.intp]]
) -> tuple[NDArray[np.float32], int]:
    """Encode texts, or what the encoder's tokenizer made of them, batch by batch.

    Rows that come out non-finite are tried once more in float32. A batch for which the GPU's memory
    does not suffice is halved until it fits.

    Returns
    -------
    vectors : ndarray of shape (n, dim), float32
    halved : int
        How often a batch was halved; above zero, the bits may differ from those of another machine.
    """
    vectors = np.empty((len(inputs), encoder.dim), dtype=np.float32)
    halved = 0
    pending = list(batches)[::-1]
    while pending:
        positions = pending.pop()
        try:
            rows = encoder.encode([inputs[position] for position in positions])
        except _out_of_memory():
            if len(positions) == 1:
                raise
            middle = len(positions) // 2
            pending += [positions[middle:], positions[:middle]]
            halved += 1
            continue
        bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
        if len(bad):
            rows[bad] = encoder.encode_exactly([inputs[positions[index]] for index in bad])
        vectors[positions] = rows
    return vectors, halved


def _out_of_memory() -> tuple[type[BaseException], ...]:
    """List what running out of memory raises. torch counts only if the encoder has imported it."""
    torch: Any = sys.modules.get("torch")
    return (MemoryError,) if torch is None else (MemoryError, torch.OutOfMemoryError)


def group_counts(embeddings: pa.Table) -> list[list[Any]]:
    """Count rows by (role, language), as clustering weights them."""
    groups = Counter(zip(embeddings["role"].to_pylist(), embeddings["lang"].to_pylist(), strict=True))
    return sorted([*key, count] for key, count in groups.items())


def _check_finite(manifest: Manifest, config: EmbedConfig) -> None:
    lost = sum(receipt.summary["non_finite"] for receipt in manifest.receipts.values())
    if lost > config.max_non_finite_fraction * manifest.rows:
        raise NonFiniteEmbedding(
            f"{lost} of {manifest.rows} vectors are not finite even in float32, above embed.max_non_finite_fraction = "
            f"{config.max_non_finite_fraction}; the model {config.model} is damaged or its dtype does not suit it"
        )
