"""One logical shard from all rows that fell into it: canonical order and exact deduplication."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from compass_ray import records
from compass_ray.ingest.contamination import contaminated_by_file

_MOJIBAKE = "\ufffd|â€|ï»¿|[ÃÂ][\u0080-\u00bf]|(?:[ÐÑ][\u0080-\u00bf‚-™]){2}"
"""UTF-8 that was read as Latin-1 or Windows-1252 and written again, and characters that were lost."""

_NOTES = 200
"""How many kinds of notes of a shard are counted, the commonest: files may have fields without end."""


def finish_shard(rows: pa.Table) -> pa.Table:
    """Sort documents by id, then rejects, whatever order the rows arrived in.

    A pool document that occurs again becomes a reject with reason ``duplicate``; repetition in
    usage and current data is usage weight and stays. The copy that is kept is the first by
    source, uri and row.

    Parameters
    ----------
    rows : Table of schema INGESTED
        All rows of one shard. Cost: one sort in memory.

    Returns
    -------
    Table of schema INGESTED
    """
    rows = in_order(rows)
    documents = rows.filter(rows["reject"].is_null())
    rejects = rows.filter(rows["reject"].is_valid())
    ids = records.ids_to_numpy(documents["doc_id"])
    repeated = np.zeros(len(ids), dtype=bool)
    repeated[1:] = (ids[1:] == ids[:-1]).all(axis=1)
    repeated &= np.asarray(pc.equal(documents["role"], "pool"))
    duplicates = as_rejects(documents.filter(pa.array(repeated)), "duplicate", _named_first(documents, repeated))
    rejects = in_order(pa.concat_tables([rejects, duplicates]))
    return pa.concat_tables([documents.filter(pa.array(~repeated)), rejects]).combine_chunks()


def in_order(rows: pa.Table) -> pa.Table:
    """Sort rows by id, then by where they are from."""
    order = [("doc_id", "ascending"), ("source", "ascending"), ("uri", "ascending"), ("row", "ascending")]
    keys = rows.select([name for name, _ in order])
    keys = keys.set_column(0, "doc_id", keys["doc_id"].cast(pa.binary()))
    return rows.take(pc.sort_indices(keys, sort_keys=order))


def _named_first(documents: pa.Table, repeated: np.ndarray[Any, np.dtype[np.bool_]]) -> list[str]:
    """Say of which document each of the repeated ones is a copy."""
    kept = np.maximum.accumulate(np.where(repeated, 0, np.arange(len(repeated))))[repeated]
    first = documents.take(pa.array(kept))
    places = zip(*(first[name].to_pylist() for name in ("source", "uri", "row")), strict=True)
    return [f"same content and language as {source}:{uri}:{row}" for source, uri, row in places]


def as_rejects(
    documents: pa.Table, reason: str, messages: Sequence[str], raw: Sequence[bytes] | None = None
) -> pa.Table:
    """Turn documents into rejects for one reason. They are without their content but for ``raw``."""
    bare = {name: documents[name] for name in ("doc_id", "content_id", "role", "lang", "source", "uri", "row")}
    rejects = zip(messages, raw or repeat(b"", len(messages)), strict=True)
    bare["reject"] = pa.array(
        [{"reason": reason, "message": message, "raw": start} for message, start in rejects], type=records.REJECT
    )
    return pa.table(
        [bare.get(field.name, pa.nulls(documents.num_rows, field.type)) for field in records.INGESTED],
        schema=records.INGESTED,
    )


def notes_of(shard: pa.Table) -> Iterator[tuple[str, list[str]]]:
    """List source and notes of each document that has some."""
    noted = shard.filter(pc.and_(shard["reject"].is_null(), shard["notes"].is_valid()))
    return zip(noted["source"].to_pylist(), noted["notes"].to_pylist(), strict=True)


def count_rows(shard: pa.Table) -> dict[str, Any]:
    """Count what a finished shard holds.

    Rows are counted by source and outcome, documents by role, target language and language. A fault counts as the rows
    that are lost with it. One whose rows nobody could count is one row, and is ``lost`` too: by source and reason how
    many such faults there are, and how many bytes of files were lost.

    Documents that look like mojibake are counted by source and left as they are: mending them is a guess. Contaminated
    rows are counted by evaluation file too, and documents by source and what their notes say.
    """
    outcomes = pc.if_else(shard["reject"].is_null(), "document", pc.struct_field(shard["reject"], "reason"))
    rows = Counter(zip(shard["source"].to_pylist(), outcomes.to_pylist(), strict=True))
    lost: Counter[tuple[str, str]] = Counter()
    lost_bytes: Counter[tuple[str, str]] = Counter()
    for fault in shard.filter(shard["lost"].is_valid()).select(["source", "lost", "reject"]).to_pylist():
        key = fault["source"], fault["reject"]["reason"]
        if fault["lost"]["rows"] is None:
            lost[key] += 1
            lost_bytes[key] += fault["lost"]["bytes"]
        else:
            rows[key] += fault["lost"]["rows"] - 1
    documents = records.documents_only(shard)
    groups = Counter(zip(*(documents[name].to_pylist() for name in ("role", "target_lang", "lang")), strict=True))
    odd = Counter(documents["source"].filter(pc.match_substring_regex(documents["text"], _MOJIBAKE)).to_pylist())
    notes = Counter((source, note) for source, said in notes_of(shard) for note in said)
    messages = pc.struct_field(shard["reject"], "message").filter(pc.equal(outcomes, "contaminated"))
    uncounted = {"lost": sorted([*key, count, lost_bytes[key]] for key, count in lost.items())} if lost else {}
    return {
        **uncounted,
        "contaminated": [[*entry] for entry in contaminated_by_file(messages.to_pylist())],
        "mojibake": sorted([source, count] for source, count in odd.items()),
        "notes": sorted([*key, count] for key, count in notes.most_common(_NOTES)),
        "rows": sorted([*key, count] for key, count in rows.items()),
        "documents": sorted(([*key, count] for key, count in groups.items()), key=json.dumps),
    }
