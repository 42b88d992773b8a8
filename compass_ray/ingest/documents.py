"""Rows -> documents: pure functions from a reader's batch to the INGESTED schema.

Everything is done by column; a row is looked at alone only if something is wrong with it, or to hash it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from compass_ray import records, shards
from compass_ray.ingest import hashes
from compass_ray.ingest.config import DETECT, SourceConfig, View
from compass_ray.ingest.contamination import Evaluations
from compass_ray.ingest.content import Content, RowRejects, content_of, text_of
from compass_ray.ingest.detection import detected_languages
from compass_ray.ingest.language import language_from_path, languages_of
from compass_ray.ingest.readers.batch import MISSING, RAW_BYTES, Fault, RawBatch, as_value, is_text
from compass_ray.ingest.timestamps import UTC_MICROSECONDS, timestamps
from compass_ray.ingest.where import Allowed
from compass_ray.values import Scalar, kind_of, written

FILTERS = frozenset(
    {
        "duplicate",
        "near_duplicate",
        "filtered",
        "empty",
        "too_short",
        "too_long",
        "outside_dates",
        "language_unknown",
        "contaminated",
    }
)
"""Reasons that are decisions about sound rows; all others are structural faults."""

_SHOWN_DEPTH = 8
_SHOWN_ITEMS = 100


def to_documents(
    batch: RawBatch,
    name: str,
    source: SourceConfig,
    uri: str,
    view: View,
    n_shards: int,
    evaluations: Evaluations | None = None,
) -> pa.Table:
    """Turn one batch into documents and rejects.

    Parameters
    ----------
    batch : RawBatch
        Parsed rows.
    name, source
        The source they come from.
    uri : str
        The file, relative to the source's root.
    view : {"prompt", "completion", "full"}
        Which part of a conversation becomes ``text``, the part that is embedded.
    n_shards : int
    evaluations : Evaluations, optional
        Pool rows that share a passage with them are refused.

    Returns
    -------
    Table of schema INGESTED plus ``shard`` (int32)
        One row for every row and fault of the batch; documents first.
    """
    batch, faults = select_rows(batch, source.where)
    documents = records.INGESTED.empty_table()
    if len(batch.rows):
        documents, refused = _judge(batch, name, source, uri, view, evaluations)
        faults = [*faults, *refused]
    table = pa.concat_tables([documents, _rejects(faults, name, source.role, uri)])
    shard = shards.shard_of(records.ids_to_numpy(table["content_id"]), n_shards)
    return table.append_column("shard", pa.array(shard))


def select_rows(batch: RawBatch, where: Mapping[str, list[Scalar]]) -> tuple[RawBatch, list[Fault]]:
    """Select the rows whose columns have one of the allowed values.

    With them come the faults of the batch, the rows left out among them.
    """
    faults = batch.faults
    for column, allowed in where.items():
        if len(batch.rows):
            batch, left_out = _where(batch, column, allowed)
            faults = [*faults, *left_out]
    return batch, faults


def _judge(
    batch: RawBatch, name: str, source: SourceConfig, uri: str, view: View, evaluations: Evaluations | None
) -> tuple[pa.Table, list[Fault]]:
    """Separate the documents of a batch that has rows from the other rows."""
    verdicts = RowRejects()
    content = content_of(batch, source.columns, view, verdicts)
    langs, source_langs = _languages(batch, source, uri, content, verdicts)
    times = _times(batch, source, verdicts)
    _check_length(content, source, verdicts)
    _check_dates(times, source, verdicts)
    if evaluations is not None and source.role == "pool":
        for row, message in evaluations.find(content.whole()).items():
            verdicts.refuse(row, "contaminated", message)
    kept = np.array([row for row in range(len(batch.rows)) if row not in verdicts], dtype=np.intp)
    rows = pa.array(np.asarray(batch.rows, dtype=np.int64)).take(pa.array(kept))
    whole = [rows, *(column.take(pa.array(kept)) for column in (langs, source_langs, times))]
    documents = _documents(content.take(kept), whole, name, source, uri)
    return documents, [_refused(batch, row, *verdicts[row]) for row in sorted(verdicts)]


def _where(batch: RawBatch, name: str, values: list[Scalar]) -> tuple[RawBatch, list[Fault]]:
    column = batch.columns[name]
    allowed = Allowed(values)
    mask = allowed.mask(column)
    if mask.all():
        return batch, []
    message = f"{name} is not one of {allowed.shown}"
    faults = []
    for row in np.flatnonzero(~mask).tolist():
        value = None if is_text(column) else as_value(column[row])
        if value is MISSING:
            faults.append(_refused(batch, row, "missing_column", f"the row has no {name}"))
        elif written(value) is None:
            wanted = "text, a number, a date, true, false or null"
            found = kind_of(value)
            faults.append(_refused(batch, row, "wrong_type", f"{name}: expected {wanted}, found {found}"))
        else:
            faults.append(Fault(batch.rows[row], "filtered", message))
    return batch.take(np.flatnonzero(mask)), faults


def _languages(
    batch: RawBatch, source: SourceConfig, uri: str, content: Content, verdicts: RowRejects
) -> tuple[pa.StringArray, pa.StringArray]:
    """Tell the tag of every row, and the code as found."""
    n_rows = len(batch.rows)
    if source.lang == DETECT:
        tags, unknown = detected_languages(content.texts.to_pylist(), source.min_confidence)
        codes = tags
    elif source.lang:
        codes = pa.repeat(source.lang, n_rows)
        return codes, codes
    elif source.columns.lang:
        codes = pc.utf8_trim_whitespace(text_of(batch, source.columns.lang, verdicts, null=""))
        tags, unknown = languages_of(codes, source.lang_map, source.columns.lang)
    else:
        codes = pa.repeat(language_from_path(source, uri), n_rows)
        tags, unknown = languages_of(codes, source.lang_map, str(source.lang_pattern))
    for row, message in unknown.items():
        verdicts.refuse(row, "language_unknown", message)
    return tags, codes


def _times(batch: RawBatch, source: SourceConfig, verdicts: RowRejects) -> pa.Array:
    name = source.columns.timestamp
    if name is None:
        return pa.nulls(len(batch.rows), UTC_MICROSECONDS)
    column = batch.columns[name]
    if isinstance(column, list):
        for row in [row for row, value in enumerate(column) if value is MISSING]:
            verdicts.refuse(row, "missing_column", f"the row has no {name}")
    times, bad = timestamps(column)
    for row, why in bad.items():
        found = as_value(column[row])
        shown = repr(found) if isinstance(found, str) else written(found) or found
        message = f"{name}: expected ISO 8601, RFC 2822 or Unix time, found {shown!s:.60}"
        verdicts.refuse(row, "bad_timestamp", f"{message}; {why}" if why else message)
    return times


def _check_length(content: Content, source: SourceConfig, verdicts: RowRejects) -> None:
    long = content.characters > source.max_characters if source.max_characters else np.zeros(len(content.keys), bool)
    for row in np.flatnonzero((content.characters < source.min_characters) | long).tolist():
        found = int(content.characters[row])
        if long[row]:
            verdicts.refuse(row, "too_long", f"{found:,} characters, above max_characters = {source.max_characters:,}")
        else:
            verdicts.refuse(row, "too_short", f"{found:,} characters, below min_characters = {source.min_characters:,}")


def _check_dates(times: pa.Array, source: SourceConfig, verdicts: RowRejects) -> None:
    since, until = source.since, source.until
    if since is None and until is None:
        return
    inside = times.is_valid()
    if since is not None:
        inside = pc.and_(inside, pc.greater_equal(times, pa.scalar(since, times.type)))
    if until is not None:
        inside = pc.and_(inside, pc.less(times, pa.scalar(until, times.type)))
    bounds = " and ".join(f"{name} {value}" for name, value in (("since", since), ("until", until)) if value)
    for row in np.flatnonzero(~np.asarray(pc.fill_null(inside, False))).tolist():
        found = times[row].as_py()
        what = "no timestamp" if found is None else f"dated {found}"
        verdicts.refuse(row, "outside_dates", f"{what}, and only rows {bounds} are read")


def _documents(content: Content, whole: list[pa.Array], name: str, source: SourceConfig, uri: str) -> pa.Table:
    rows, langs, source_langs, times = whole
    n_rows = len(rows)
    target_langs = pa.nulls(n_rows, pa.string())
    if source.role != "pool":
        target_langs = pa.repeat(source.target_lang, n_rows) if source.target_lang else langs
    ids = hashes.doc_ids(source.role, target_langs.to_pylist(), langs.to_pylist(), content.hashes())
    columns = {
        "doc_id": hashes.to_arrow(ids),
        "content_id": hashes.to_arrow(hashes.content_ids(content.keys)),
        "role": pa.repeat(source.role, n_rows),
        "target_lang": target_langs,
        "lang": langs,
        "source_lang": source_langs,
        "source": pa.repeat(name, n_rows),
        "uri": pa.repeat(uri, n_rows),
        "row": rows,
        "text": content.texts,
        "messages": content.messages,
        "tools": None if content.tools is None else pa.array(content.tools, pa.string()),
        "timestamp": times,
        "notes": None if content.notes is None else pa.array(content.notes, records.INGESTED.field("notes").type),
    }
    return _table(columns, n_rows)


def _rejects(faults: list[Fault], name: str, role: str, uri: str) -> pa.Table:
    places = hashes.to_arrow(hashes.place_ids(name, uri, [fault.row for fault in faults]))
    reject = [{"reason": fault.reason, "message": _with_loss(fault), "raw": fault.raw[:RAW_BYTES]} for fault in faults]
    lost = [None if fault.rows == 1 else {"rows": fault.rows, "bytes": fault.lost_bytes} for fault in faults]
    columns = {
        "doc_id": places,
        "content_id": places,
        "role": pa.repeat(role, len(faults)),
        "source": pa.repeat(name, len(faults)),
        "uri": pa.repeat(uri, len(faults)),
        "row": pa.array([fault.row for fault in faults], pa.int64()),
        "lost": pa.array(lost, records.LOST),
        "reject": pa.array(reject, records.REJECT),
    }
    return _table(columns, len(faults))


def _with_loss(fault: Fault) -> str:
    """Add what is lost to a message, if more than a row."""
    if fault.rows is None:
        return f"{fault.message}; {fault.lost_bytes:,} bytes of the file are lost"
    return fault.message if fault.rows == 1 else f"{fault.message}; {fault.rows:,} rows are lost"


def _table(columns: dict[str, pa.Array | None], n_rows: int) -> pa.Table:
    """Put the columns into a table as INGESTED, null where there is none."""
    arrays = [
        pa.nulls(n_rows, field.type) if (column := columns.get(field.name)) is None else column
        for field in records.INGESTED
    ]
    return pa.table(arrays, schema=records.INGESTED)


def _refused(batch: RawBatch, row: int, reason: str, message: str) -> Fault:
    fields = {field: _shown(value, _SHOWN_DEPTH) for field, value in batch.row(row).items()}
    raw = json.dumps(fields, ensure_ascii=False)[:RAW_BYTES].encode("utf-8", "replace")
    return Fault(batch.rows[row], reason, message, raw)


def _shown(value: Any, depth: int) -> Any:
    """Cut a value down to as much as a person can use. What is deep, long or not JSON is cut short."""
    if isinstance(value, dict) and depth:
        return {str(key): _shown(item, depth - 1) for key, item in islice(value.items(), _SHOWN_ITEMS)}
    if isinstance(value, list) and depth:
        return [_shown(item, depth - 1) for item in value[:_SHOWN_ITEMS]]
    if value is None or isinstance(value, bool | int | float):
        return value
    return "…" if isinstance(value, dict | list) else str(value)[:RAW_BYTES]
