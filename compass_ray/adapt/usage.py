"""Held-out usage: what an adapter is scored on in its own language, and nothing trains on.

Cost: roles and ids of the document shards that hold usage are read once, and the texts of those with a held-out row.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from compass_ray import records
from compass_ray.adapt.config import AdaptConfig
from compass_ray.adapt.examples import Example, check_template, example_of, not_in_template
from compass_ray.adapt.packing import Packs, make_packs
from compass_ray.adapt.split import heldout_mask
from compass_ray.artifacts import Artifact, Receipt, artifact
from compass_ray.errors import ConfigError
from compass_ray.holdout import Holdout
from compass_ray.holdout import heldout_mask as heldout_usage_mask
from compass_ray.runtime.stage import Session, map_keys

VERSION = 3


def heldout_usage(documents: Artifact, keys: Sequence[str], holdout: Holdout, session: Session) -> Artifact | None:
    """Take the held-out usage out of the documents; schema ``records.USAGE``.

    These are the rows that the certificate measures on.

    Parameters
    ----------
    documents : Artifact
        Of the ingest stage.
    keys : sequence of str
        Its shards that hold usage.
    holdout : Holdout
        Of the run that the documents belong to.

    Returns
    -------
    Artifact or None
        None where nothing can be held out.
    """
    if not keys or not holdout.fraction:
        return None
    body = {
        "version": VERSION,
        "documents": documents.fingerprint,
        "seed": holdout.seed,
        "fraction": holdout.fraction,
    }
    target = artifact(session.output, "usage", body)
    session.complete(target, keys, lambda missing: map_keys(_usage_shard, missing, documents, holdout, target))
    return target


def _usage_shard(key: str, documents: Artifact, holdout: Holdout, target: Artifact) -> Receipt:
    rows = documents.read(key, ["content_id", "role", "reject"])
    mask = pa.array(heldout_usage_mask(rows, holdout.seed, holdout.fraction) & rows["reject"].is_null().to_numpy())
    table = records.USAGE.empty_table()
    if pc.any(mask).as_py():
        found = documents.read(
            key, ["doc_id", "content_id", "target_lang", "lang", "text", "messages", "tools"]
        ).filter(mask)
        table = found.rename_columns(records.USAGE.names).cast(records.USAGE)
    languages = Counter(table["target_lang"].to_pylist())
    return target.write(key, table, {"documents": dict(sorted(languages.items()))})


def usage_packs(
    usage: Artifact | None, lang: str, tokenizer: Any, config: AdaptConfig, seed: int
) -> tuple[Packs, dict[str, Any]]:
    """Tokenise the held-out usage of one language as training would, at most ``heldout_documents`` rows of it.

    Answers of an assistant are scored as answers, all else as text: a bare question has no answer.

    Returns
    -------
    packs : Packs
        Of the rows that have a token to score, in the order of their ids.
    counts : dict
        ``heldout`` rows; ``scored`` ones, how many of these are ``in_language`` and how many ``truncated``, and what
        of them is ``not_in_template``;
        ``dropped_reasons`` of those that were tried and not scored.
    """
    rows = _rows_of(usage, lang)
    drawn = heldout_mask(records.ids_to_numpy(rows["content_id"]), seed, 1.0, config.heldout_documents)
    chosen = rows.filter(pa.array(drawn))
    chats = takes_chats(tokenizer)
    made = [scored_example(tokenizer, row, config.max_length, chats) for row in chosen.to_pylist()]
    examples = [example for example, _ in made if example]
    scored = zip(chosen["lang"].to_pylist(), made, strict=True)
    counts = {
        "heldout": rows.num_rows,
        "scored": len(examples),
        "in_language": sum(example is not None and spoken == lang for spoken, (example, _) in scored),
        "not_in_template": not_in_template(examples),
        "truncated": sum(example.truncated for example in examples),
        "dropped_reasons": dict(Counter(reason for _, reason in made if reason)),
    }
    return make_packs(examples, config.max_length, config.packing), counts


def _rows_of(usage: Artifact | None, lang: str) -> pa.Table:
    parts = [records.USAGE.empty_table()]
    if usage is not None:
        for key, receipt in usage.manifest().receipts.items():
            if lang in receipt.summary["documents"]:
                rows = usage.read(key)
                parts.append(rows.filter(pc.equal(rows["target_lang"], lang)))
    table = pa.concat_tables(parts)
    return table.take(pc.sort_indices(table["doc_id"].cast(pa.binary())))


def takes_chats(tokenizer: Any) -> bool:
    """Tell whether answers can be told from prompts. A base that trains on plain text alone need not be able to."""
    try:
        check_template(tokenizer, "adapt.chat_template")
    except ConfigError:
        return False
    return True


def scored_example(
    tokenizer: Any, row: Mapping[str, Any], max_length: int, chats: bool
) -> tuple[Example | None, str | None]:
    """Make the example that a document is scored as, or say in a word why there is none.

    Answers of an assistant are scored as answers, all else as text.

    Parameters
    ----------
    row
        Its ``text``, ``messages`` and ``tools``.
    chats : bool
        What :func:`takes_chats` says of the tokenizer.
    """
    answered = any(message["role"] == "assistant" for message in row["messages"] or ())
    if answered and not chats:
        return None, "no_chat_template"
    return example_of(tokenizer, row if answered else {"text": row["text"], "messages": None}, max_length)
