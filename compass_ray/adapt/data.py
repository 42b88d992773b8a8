"""Training data: current documents and a selection -> packs of tokens for every language.

Two passes of tasks. The first takes out of every document shard the rows that any adapter is trained on; the second
gives each language a task that splits, tokenises, masks and packs its rows. Cost: document shards are read once; a
worker of the second pass holds one language's rows and about 9 bytes for each of their tokens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from compass_ray import records, seeding
from compass_ray.adapt.examples import Example, TemplateMismatch, chat_example, check_template, text_example
from compass_ray.adapt.packing import Packs, make_packs
from compass_ray.adapt.tokenizer import TokenizerSource
from compass_ray.artifacts import Artifact, Receipt, artifact
from compass_ray.runtime.stage import Session, map_keys

VERSION = 1
TRAIN, HELDOUT, DOCUMENTS, REPLAY = "train", "heldout", "documents", "replay"
_PARTS = (TRAIN, HELDOUT, DOCUMENTS, REPLAY)


def key_of(lang: str, part: str) -> str:
    """The key of one part of one language in the artifact that :func:`tokenised` makes."""
    return f"{lang}-{part}"


def gathered(
    documents: Artifact,
    selection: Artifact | None,
    data: str,
    session: Session,
    *,
    owner_of_all: str | None = None,
    without: frozenset[str] = frozenset(),
) -> Artifact:
    """The rows that adapters are trained on, in the shards of the documents; schema ``records.TRAINING``.

    Parameters
    ----------
    documents : Artifact
        Of the ingest stage; gives current rows.
    selection : Artifact or None
        Of the select stage, over the same documents.
    data : {"union", "selection"}
    owner_of_all : str, optional
        Takes documents of every role and language, for this owner: what a base model is trained on.
    without : frozenset of str
        Languages left out.
    """
    body = {
        "version": VERSION,
        "documents": documents.fingerprint,
        "selection": None if selection is None else selection.fingerprint,
        "data": data,
        "owner_of_all": owner_of_all,
        "without": sorted(without),
    }
    target = artifact(session.output, "gather", body)
    keys = list(documents.manifest().receipts)
    current = data == "union"
    session.complete(
        target,
        keys,
        lambda missing: map_keys(_gather_shard, missing, documents, selection, current, owner_of_all, without, target),
    )
    return target


def _gather_shard(
    key: str,
    documents: Artifact,
    selection: Artifact | None,
    current: bool,
    owner_of_all: str | None,
    without: frozenset[str],
    target: Artifact,
) -> Receipt:
    parts = [records.TRAINING.empty_table()]
    if current:
        names = ["doc_id", "content_id", "role", "owner", "lang", "text", "messages", "reject"]
        rows = records.documents_only(documents.read(key, names))
        if owner_of_all is None:
            rows = rows.filter(pc.equal(rows["role"], "current"))
            parts.append(_training_rows(rows, rows["owner"], selected=False))
        else:
            owner = pa.array([owner_of_all] * rows.num_rows, pa.string())
            parts.append(_training_rows(rows, owner, selected=False))
    if selection is not None and key in selection.manifest().receipts:
        rows = selection.read(key, ["doc_id", "content_id", "lang", "text", "messages", "selected_for"])
        parts.append(_training_rows(rows, rows["selected_for"], selected=True))
    table = pa.concat_tables(parts)
    if without:
        table = table.filter(pc.invert(pc.is_in(table["lang"], value_set=pa.array(sorted(without)))))
    owners = Counter(table["owner"].to_pylist())
    return target.write(key, table, {"documents": dict(sorted(owners.items()))})


def _training_rows(rows: pa.Table, owner: pa.ChunkedArray | pa.Array, *, selected: bool) -> pa.Table:
    flags = pa.array(np.full(rows.num_rows, selected))
    columns = {name: rows[name] for name in ("doc_id", "content_id", "lang", "text", "messages")}
    return (
        pa.table({**columns, "owner": owner, "selected": flags}).select(records.TRAINING.names).cast(records.TRAINING)
    )


def languages_of(gathered: Artifact) -> dict[str, int]:
    """Documents by owner."""
    counts: Counter[str] = Counter()
    for receipt in gathered.manifest().receipts.values():
        counts.update(receipt.summary["documents"])
    return dict(sorted(counts.items()))


def tokenised(
    gathered: Artifact, languages: Sequence[str], source: TokenizerSource, seed: int, session: Session
) -> Artifact:
    """Packs of tokens for training and scoring, and what became of every document.

    For each language the keys ``<lang>-train`` and ``<lang>-heldout`` (tables of :class:`Packs`), ``<lang>-documents``
    (schema ``records.EXAMPLE``) and ``<lang>-replay``. The summary of ``-documents`` has the counts.

    Raises
    ------
    ConfigError
        If there are conversations, and the tokenizer has no chat template or one that cannot be masked.
    """
    config = source.config
    body = {
        "version": VERSION,
        "gathered": gathered.fingerprint,
        "languages": sorted(languages),
        "tokenizer": source.fingerprint(),
        "seed": seed,
        **{
            name: getattr(config, name)
            for name in ("max_length", "packing", "heldout_fraction", "heldout_documents", "replay_fraction")
        },
    }
    target = artifact(session.output, "tokenise", body)

    def compute(missing: list[str]) -> Iterator[Receipt]:
        unfinished = sorted({key.rpartition("-")[0] for key in missing})
        for receipts in map_keys(_tokenise_language, unfinished, gathered, source, seed, target):
            yield from (receipt for receipt in receipts if receipt.key in set(missing))

    session.complete(target, [key_of(lang, part) for lang in sorted(languages) for part in _PARTS], compute)
    return target


def counts_of(tokenised: Artifact, lang: str) -> dict[str, Any]:
    """Documents, tokens and packs of one language, and how many rows were dropped and why."""
    counts: dict[str, Any] = tokenised.manifest().receipts[key_of(lang, DOCUMENTS)].summary
    return counts


def read_packs(tokenised: Artifact, lang: str, part: str) -> Packs:
    """The packs of one part of one language."""
    return Packs.from_table(tokenised.read(key_of(lang, part)))


def trained_documents(tokenised: Artifact, lang: str) -> list[str]:
    """Ids in hex of the training documents of one language, as its packs number them."""
    documents = tokenised.read(key_of(lang, DOCUMENTS), ["doc_id", "part"])
    trained = documents.filter(pc.equal(documents["part"], TRAIN))
    return [value.hex() for value in trained["doc_id"].to_pylist()]


def _tokenise_language(
    lang: str, gathered: Artifact, source: TokenizerSource, seed: int, target: Artifact
) -> list[Receipt]:
    config = source.config
    rows = _rows_of(gathered, lang)
    tokenizer = source.load()
    conversations = rows["messages"].is_valid()
    if pc.any(conversations).as_py():
        check_template(tokenizer, "adapt.chat_template")
    made = [_example(tokenizer, row, config.max_length) for row in _small(rows)]
    heldout = heldout_mask(
        records.ids_to_numpy(rows["content_id"]), seed, lang, config.heldout_fraction, config.heldout_documents
    )
    fates = _fates(made, heldout)
    parts = {
        part: make_packs(
            [example for (example, _), fate in zip(made, fates, strict=True) if fate == part and example],
            config.max_length,
            config.packing,
        )
        for part in (TRAIN, HELDOUT)
    }
    documents = _document_table(rows, made, fates)
    counts = {
        **{part: fates.count(part) for part in (TRAIN, HELDOUT, "dropped")},
        "dropped_reasons": dict(Counter(reason for _, reason in made if reason)),
        "truncated": sum(bool(example and example.truncated) for example, _ in made),
        "selected": int(pc.sum(documents.filter(pc.equal(documents["part"], TRAIN))["selected"]).as_py() or 0),
        "packs": len(parts[TRAIN]),
        "tokens": int(parts[TRAIN].lengths.sum()),
        "trained_tokens": int(parts[TRAIN].trained.sum()),
    }
    kept = pa.array([fate == TRAIN for fate in fates], pa.bool_())
    replay = _replay(rows.filter(kept), seed, lang, config.replay_fraction)
    return [
        target.write(key_of(lang, TRAIN), parts[TRAIN].to_table()),
        target.write(key_of(lang, HELDOUT), parts[HELDOUT].to_table()),
        target.write(key_of(lang, REPLAY), replay),
        target.write(key_of(lang, DOCUMENTS), documents, counts),
    ]


def _rows_of(gathered: Artifact, lang: str) -> pa.Table:
    """One owner's rows in the order of their ids, current ones before selected ones of the same id."""
    parts = [records.TRAINING.empty_table()]
    for key, receipt in gathered.manifest().receipts.items():
        if lang in receipt.summary["documents"]:
            rows = gathered.read(key)
            parts.append(rows.filter(pc.equal(rows["owner"], lang)))
    table = pa.concat_tables(parts)
    order = pc.sort_indices(
        table.set_column(0, "doc_id", table["doc_id"].cast(pa.binary())),
        sort_keys=[("doc_id", "ascending"), ("selected", "ascending")],
    )
    return table.take(order)


def _small(rows: pa.Table) -> Iterator[Mapping[str, Any]]:
    for part in rows.select(["text", "messages"]).to_batches(max_chunksize=1024):
        yield from part.to_pylist()


def _example(tokenizer: Any, row: Mapping[str, Any], max_length: int) -> tuple[Example | None, str | None]:
    """The example of a row, or why there is none."""
    try:
        if row["messages"] is None:
            example = text_example(tokenizer, row["text"], max_length)
        else:
            example = chat_example(tokenizer, row["messages"], max_length)
    except TemplateMismatch:
        return None, "template_mismatch"
    if example.trained.any():
        return example, None
    answered = any(message["role"] == "assistant" for message in row["messages"] or ())
    return None, "cut_before_the_answer" if example.truncated and answered else "no_trainable_token"


def heldout_mask(content_ids: NDArray[np.uint8], seed: int, lang: str, fraction: float, most: int) -> NDArray[np.bool_]:
    """Which documents only scores see: a keyed hash of the content, so that equal content is on one side.

    Parameters
    ----------
    content_ids : ndarray of shape (n, 16), uint8
    fraction : float
        Expected share.
    most : int
        Documents, at most; those with the smallest hashes.
    """
    chance = seeding.uniform(content_ids, seed, "adapt-heldout", lang)
    limit = fraction
    if len(chance) > most:
        limit = min(fraction, float(np.partition(chance, most)[most]))
    return np.asarray(chance < limit)


def _fates(made: Iterable[tuple[Example | None, str | None]], heldout: NDArray[np.bool_]) -> list[str]:
    return [
        "dropped" if example is None else HELDOUT if held else TRAIN
        for (example, _), held in zip(made, heldout, strict=True)
    ]


def _document_table(
    rows: pa.Table, made: Sequence[tuple[Example | None, str | None]], fates: Sequence[str]
) -> pa.Table:
    examples = [example for example, _ in made]
    columns = {name: rows[name] for name in ("doc_id", "content_id", "lang", "selected")}
    columns |= {
        "part": pa.array(fates, pa.string()),
        "reason": pa.array([reason for _, reason in made], pa.string()),
        "tokens": pa.array([len(example.tokens) if example else 0 for example in examples], pa.int32()),
        "trained": pa.array([int(example.trained.sum()) if example else 0 for example in examples], pa.int32()),
        "truncated": pa.array([bool(example and example.truncated) for example in examples], pa.bool_()),
    }
    return pa.table(columns).select(records.EXAMPLE.names).cast(records.EXAMPLE)


def _replay(rows: pa.Table, seed: int, lang: str, fraction: float) -> pa.Table:
    chance = seeding.uniform(records.ids_to_numpy(rows["content_id"]), seed, "replay", lang)
    kept = rows.filter(pa.array(chance < fraction))
    return kept.select(records.REPLAY.names).cast(records.REPLAY)
