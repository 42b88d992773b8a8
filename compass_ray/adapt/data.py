"""Training data: current documents and a selection -> packs of tokens for every language.

Three passes of tasks. The first takes out of every document shard the rows that any adapter is trained on. The second
finds what each language holds out (see ``split``); the third gives each language a task that tokenises, masks and packs
its rows. Cost: document shards are read once and the gathered rows twice; a worker of the last pass holds one
language's rows and about 9 bytes for each of their tokens. The driver holds at most ``heldout_documents`` ids a
language.
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
from compass_ray.adapt import split
from compass_ray.adapt.examples import Example, check_template, ends_answers, example_of, not_in_template
from compass_ray.adapt.packing import Packs, make_packs
from compass_ray.adapt.tokenizer import TokenizerSource, asks_for_date
from compass_ray.adapt.usage import usage_packs
from compass_ray.artifacts import Artifact, Receipt, artifact, digest
from compass_ray.runtime.stage import Session, map_keys

VERSION = 4
TRAIN, HELDOUT, USAGE, DOCUMENTS, REPLAY = "train", "heldout", "usage", "documents", "replay"
_PARTS = (TRAIN, HELDOUT, USAGE, DOCUMENTS, REPLAY)


def key_of(lang: str, part: str) -> str:
    """Form the key of a language's part in the artifact of :func:`tokenize`."""
    return f"{lang}-{part}"


def gather(
    documents: Artifact,
    selection: Artifact | None,
    session: Session,
    *,
    current: bool = True,
    usage: Artifact | None = None,
    target_lang_of_all: str | None = None,
    without: frozenset[str] = frozenset(),
    recalled: Mapping[str, pa.Array] | None = None,
    unseen: pa.Array | None = None,
) -> Artifact:
    """Gather the rows that adapters are trained on.

    They come in the shards of the documents; schema ``records.TRAINING``.

    Parameters
    ----------
    documents : Artifact
        Of the ingest stage.
    selection : Artifact or None
        Of the select stage, over the same documents.
    current : bool
        Whether current rows of the documents are trained on.
    usage : Artifact, optional
        Of :func:`~compass_ray.adapt.usage.heldout_usage`: rows that equal one of its rows are marked.
    target_lang_of_all : str, optional
        Takes documents of every role and language, for this target language: what a base model is trained on.
    without : frozenset of str
        Languages left out.
    recalled : mapping of str to Array of ids, optional
        By target language, contents of pool documents that are trained on beside the selection: what its adapter was
        trained on before.
    unseen : Array of ids, optional
        Contents that are marked as if they equalled held-out usage: adapters before these were not to see them.
    """
    body = {
        "version": VERSION,
        "documents": documents.fingerprint,
        "selection": None if selection is None else selection.fingerprint,
        "current": current,
        "usage": None if usage is None else usage.fingerprint,
        "target_lang_of_all": target_lang_of_all,
        "without": sorted(without),
        **({} if recalled is None else {"recalled": _digests(recalled)}),
        **({} if unseen is None else {"unseen": _digests({"": unseen})}),
    }
    target = artifact(session.output, "gather", body)
    keys = list(documents.manifest().receipts)
    shared = (selection, current, usage, target_lang_of_all, without, target, recalled, unseen)
    session.complete(
        target,
        keys,
        lambda missing: map_keys(_gather_shard, missing, documents, *shared),
    )
    return target


def _gather_shard(
    key: str,
    documents: Artifact,
    selection: Artifact | None,
    current: bool,
    usage: Artifact | None,
    target_lang_of_all: str | None,
    without: frozenset[str],
    target: Artifact,
    recalled: Mapping[str, pa.Array] | None = None,
    unseen: pa.Array | None = None,
) -> Receipt:
    known = _usage_contents(key, usage)
    if unseen is not None:
        known = pa.chunked_array([*known.chunks, unseen], records.ID)
    parts = [records.TRAINING.empty_table()]
    if current:
        names = ["doc_id", "content_id", "role", "target_lang", "lang", "text", "messages", "tools", "reject"]
        rows = records.documents_only(documents.read(key, names))
        if target_lang_of_all is None:
            rows = rows.filter(pc.equal(rows["role"], "current"))
            parts.append(_training_rows(rows, rows["target_lang"], known, selected=False))
        else:
            target_lang = pa.array([target_lang_of_all] * rows.num_rows, pa.string())
            parts.append(_training_rows(rows, target_lang, known, selected=False))
    if selection is not None and key in selection.manifest().receipts:
        rows = selection.read(key, ["doc_id", "content_id", "lang", "text", "messages", "tools", "selected_for"])
        parts.append(_training_rows(rows, rows["selected_for"], known, selected=True))
    parts += _recalled_rows(key, documents, recalled or {}, known)
    table = pa.concat_tables(parts)
    if without:
        table = table.filter(pc.invert(pc.is_in(table["lang"], value_set=pa.array(sorted(without)))))
    target_langs = Counter(table["target_lang"].to_pylist())
    return target.write(key, table, {"documents": dict(sorted(target_langs.items()))})


def _digests(recalled: Mapping[str, pa.Array]) -> dict[str, str]:
    return {lang: digest(records.ids_to_numpy(ids).tobytes()) for lang, ids in sorted(recalled.items())}


def _recalled_rows(
    key: str, documents: Artifact, recalled: Mapping[str, pa.Array], known: pa.ChunkedArray
) -> Iterator[pa.Table]:
    if not recalled:
        return
    names = ["doc_id", "content_id", "role", "lang", "text", "messages", "tools", "reject"]
    rows = records.documents_only(documents.read(key, names))
    pool = rows.filter(pc.equal(rows["role"], "pool"))
    for lang, ids in sorted(recalled.items()):
        mine = pool.filter(pc.is_in(pool["content_id"], value_set=ids))
        yield _training_rows(mine, pa.array([lang] * mine.num_rows, pa.string()), known, selected=True)


def _usage_contents(key: str, usage: Artifact | None) -> pa.ChunkedArray:
    """Read the contents of a shard's held-out usage. Equal content is in one shard, so no other shard matters."""
    if usage is None or key not in usage.manifest().receipts:
        return records.USAGE.empty_table()["content_id"]
    return usage.read(key, ["content_id"])["content_id"]


def _training_rows(
    rows: pa.Table, target_lang: pa.ChunkedArray | pa.Array, usage: pa.ChunkedArray, *, selected: bool
) -> pa.Table:
    columns = {name: rows[name] for name in ("doc_id", "content_id", "lang", "text", "messages", "tools")}
    columns |= {
        "target_lang": target_lang,
        "selected": pa.array(np.full(rows.num_rows, selected)),
        "equals_usage": pc.is_in(rows["content_id"], value_set=usage),
    }
    return pa.table(columns).select(records.TRAINING.names).cast(records.TRAINING)


def languages_of(gathered: Artifact) -> dict[str, int]:
    """Count documents by target language."""
    counts: Counter[str] = Counter()
    for receipt in gathered.manifest().receipts.values():
        counts.update(receipt.summary["documents"])
    return dict(sorted(counts.items()))


def tokenize(
    gathered: Artifact,
    languages: Sequence[str],
    source: TokenizerSource,
    seed: int,
    session: Session,
    *,
    usage: Artifact | None = None,
) -> Artifact:
    """Make packs of tokens for training and scoring. What became of every document is kept beside them.

    For each language the keys ``<lang>-train``, ``<lang>-heldout`` and ``<lang>-usage`` (tables of :class:`Packs`),
    ``<lang>-documents`` (schema ``records.EXAMPLE``) and ``<lang>-replay``. The summary of ``-documents`` has the
    counts. What is held out depends on all languages gathered, not only on those asked for.

    Parameters
    ----------
    gathered : Artifact
    languages : sequence of str
    source : TokenizerSource
    seed : int
    session : Session
    usage : Artifact, optional
        What ``gathered`` was marked by.

    Raises
    ------
    ConfigError
        If there are conversations, and the tokenizer has no chat template or one that cannot be masked.
    """
    config = source.config
    body = {
        "version": VERSION,
        "gathered": gathered.fingerprint,
        "usage": None if usage is None else usage.fingerprint,
        "languages": sorted(languages),
        "tokenizer": source.fingerprint(),
        "seed": seed,
        **{
            name: getattr(config, name)
            for name in ("max_length", "packing", "heldout_fraction", "heldout_documents", "replay_fraction")
        },
    }
    target = artifact(session.output, "tokenize", body)

    def compute(missing: list[str]) -> Iterator[Receipt]:
        unfinished = sorted({key.rpartition("-")[0] for key in missing})
        drawing = (seed, config.heldout_fraction, config.heldout_documents)
        held = _union(map_keys(split.heldout_contents, languages_of(gathered), gathered, *drawing))
        for receipts in map_keys(_tokenize_language, unfinished, gathered, usage, held, source, seed, target):
            yield from (receipt for receipt in receipts if receipt.key in set(missing))

    session.complete(target, [key_of(lang, part) for lang in sorted(languages) for part in _PARTS], compute)
    return target


def counts_of(tokenized: Artifact, lang: str) -> dict[str, Any]:
    """Read one language's counts of documents, tokens and packs. Also how many rows were dropped and why."""
    counts: dict[str, Any] = tokenized.manifest().receipts[key_of(lang, DOCUMENTS)].summary
    return counts


def read_packs(tokenized: Artifact, lang: str, part: str) -> Packs:
    """Read the packs of one part of one language."""
    return Packs.from_table(tokenized.read(key_of(lang, part)))


def trained_documents(tokenized: Artifact, lang: str) -> list[str]:
    """List the ids of one language's training documents, in hex. The order is that in which its packs number them."""
    documents = tokenized.read(key_of(lang, DOCUMENTS), ["doc_id", "part"])
    trained = documents.filter(pc.equal(documents["part"], TRAIN))
    return [value.hex() for value in trained["doc_id"].to_pylist()]


def _union(contents: Iterable[pa.Array]) -> pa.Array:
    return pc.unique(pa.chunked_array(contents, records.ID))


def _tokenize_language(
    lang: str,
    gathered: Artifact,
    usage: Artifact | None,
    held: pa.Array,
    source: TokenizerSource,
    seed: int,
    target: Artifact,
) -> list[Receipt]:
    config = source.config
    rows = _rows_of(gathered, lang)
    tokenizer, templates = source.open()
    conversations = rows["messages"].is_valid()
    if any_chats := bool(pc.any(conversations).as_py()):
        check_template(tokenizer, "adapt.chat_template")
    heldout = split.language_mask(rows, seed, config.heldout_fraction, config.heldout_documents)
    made = [
        (None, reason) if reason else example_of(tokenizer, row, config.max_length)
        for row, reason in zip(_small(rows), split.barred(rows, heldout, held), strict=True)
    ]
    fates = _fates(made, heldout)
    parts = {
        part: make_packs(
            [example for (example, _), fate in zip(made, fates, strict=True) if fate == part and example],
            config.max_length,
            config.packing,
        )
        for part in (TRAIN, HELDOUT)
    }
    kept = pa.array([fate == TRAIN for fate in fates], pa.bool_())
    documents = _document_table(rows, made, fates)
    scored_usage, usage_counts = usage_packs(usage, lang, tokenizer, config, seed)
    in_language = Counter(fate for fate, spoken in zip(fates, rows["lang"].to_pylist(), strict=True) if spoken == lang)
    counts = {
        **{part: fates.count(part) for part in (TRAIN, HELDOUT, "dropped")},
        "in_language": {part: in_language[part] for part in (TRAIN, HELDOUT)},
        "usage": usage_counts,
        "dropped_reasons": dict(Counter(reason for _, reason in made if reason)),
        "chats": int(pc.sum(pc.and_(conversations, kept)).as_py() or 0),
        "ends_answers": ends_answers(tokenizer) if any_chats else None,
        "told_date": config.template_date.isoformat() if any_chats and asks_for_date(templates) else None,
        "not_in_template": not_in_template(example for example, _ in made),
        "truncated": sum(bool(example and example.truncated) for example, _ in made),
        "selected": int(pc.sum(documents.filter(pc.equal(documents["part"], TRAIN))["selected"]).as_py() or 0),
        "packs": len(parts[TRAIN]),
        "tokens": int(parts[TRAIN].lengths.sum()),
        "trained_tokens": int(parts[TRAIN].trained.sum()),
    }
    replay = _replay(rows.filter(kept), seed, lang, config.replay_fraction)
    return [
        target.write(key_of(lang, TRAIN), parts[TRAIN].to_table()),
        target.write(key_of(lang, HELDOUT), parts[HELDOUT].to_table()),
        target.write(key_of(lang, USAGE), scored_usage.to_table()),
        target.write(key_of(lang, REPLAY), replay),
        target.write(key_of(lang, DOCUMENTS), documents, counts),
    ]


def _rows_of(gathered: Artifact, lang: str) -> pa.Table:
    """Read one target language's rows in the order of their ids.

    Current ones come before selected ones of the same id.
    """
    table = split.rows_of(lang, gathered)
    order = pc.sort_indices(
        table.set_column(0, "doc_id", table["doc_id"].cast(pa.binary())),
        sort_keys=[("doc_id", "ascending"), ("selected", "ascending")],
    )
    return table.take(order)


def _small(rows: pa.Table) -> Iterator[Mapping[str, Any]]:
    for part in rows.select(["text", "messages", "tools"]).to_batches(max_chunksize=1024):
        yield from part.to_pylist()


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
