"""Find rows of a finished run: by id, by text, or by where they are in a source.

A text names its shard, since shards are parts of the range of content hashes. An id and a place do not: there one to
three columns of every shard are read, at most 16 bytes a row, side by side and by this process alone.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from compass_ray import records, shards, storage
from compass_ray.artifacts import Artifact
from compass_ray.errors import ConfigError
from compass_ray.ingest import hashes
from compass_ray.ingest.cleaning import key_of, normalize
from compass_ray.ingest.formats import FORMATS

_FILES_SHOWN = 10
_NEEDLE_BYTES = 1_000
"""How much of a text is looked for in the quarantine, which keeps the first 2,000 bytes of a row."""


@dataclass(frozen=True)
class Place:
    """A document or a reject: the key of its shard, and its id."""

    key: str
    doc_id: bytes


def by_id(documents: Artifact, doc_id: bytes) -> Place | None:
    """Find the shard of an id. Cost: 16 bytes a row of the run."""
    wanted = pa.scalar(doc_id, records.ID)

    def is_in(key: str) -> bool:
        return bool(pc.any(pc.equal(documents.read_columns(key, ["doc_id"])["doc_id"], wanted)).as_py())

    keys = documents.manifest().keys_with_rows
    found = zip(keys, storage.in_parallel(is_in, keys), strict=True)
    return next((Place(key, doc_id) for key, is_here in found if is_here), None)


def by_text(documents: Artifact, text: str) -> list[Place]:
    """Find all documents with a text, cleaned as ingest cleans it. Cost: two columns of one shard.

    Raises
    ------
    ConfigError
        If there is nothing left of the text, or it is not UTF-8.
    """
    key = key_of(normalize(_valid(text)))
    if not key:
        raise ConfigError("the text to explain is empty; give it as it stands in the source")
    (content_id,) = hashes.content_ids([key.encode()])
    shard = _shard_of(documents, content_id)
    rows = documents.read_columns(shard, ["doc_id", "content_id"])
    same = rows.filter(pc.equal(rows["content_id"], pa.scalar(content_id, records.ID)))
    return [Place(shard, doc_id) for doc_id in pc.unique(same["doc_id"]).to_pylist()]


def rejects_by_text(documents: Artifact, quarantine: str, text: str) -> Iterator[Place]:
    """Find rejected rows that hold a text as the whole value of a field, or begin with it if it is long.

    What was refused as it was read has no content hash. Cost: a pass over ``quarantine.parquet``, batch by batch.

    Parameters
    ----------
    quarantine : str
        The URL of that file.
    """
    needles = {_needle(text), _needle(normalize(text))}
    with storage.open_input(quarantine) as stream:
        for batch in pq.ParquetFile(stream).iter_batches(columns=["source", "uri", "row", "raw"], use_threads=False):
            for row in batch.to_pylist():
                if any(needle in row["raw"] for needle in needles):
                    (place,) = hashes.place_ids(row["source"], row["uri"], [row["row"]])
                    yield Place(_shard_of(documents, place), place)


def by_row(documents: Artifact, source: str, row: int, uri: str | None = None) -> Place:
    """Find a row by its source, its number as the tables show it, and its file.

    Parameters
    ----------
    row : int
        The byte offset of the line (JSON lines, text by line), the number from 0 elsewhere.
    uri : str, optional
        The file, as the tables show it; not needed where one file alone has such a row.

    Raises
    ------
    ConfigError
        If there is no such source, file or row, or several files have one.
    """
    _check_source(documents, source)
    keys = documents.manifest().keys_with_rows
    parts = storage.in_parallel(partial(_rows_of, documents, source, uri), keys)
    found = []
    for key, part in zip(keys, parts, strict=True):
        hits = part.filter(pc.equal(part["row"], row)).to_pylist()
        found += [(key, hit["position"], hit["uri"]) for hit in hits]
        if found and uri is not None:
            break
    if not found:
        raise _no_row(documents, source, row, uri)
    if len(found) > 1:
        raise _ambiguous(source, f"have a row {row}", (name for _, _, name in found))
    key, position, _ = found[0]
    return Place(key, documents.read_columns(key, ["doc_id"])["doc_id"][position].as_py())


def by_line(documents: Artifact, source: str, line: int, uri: str | None = None) -> Place:
    """Find a row of a line file by its number among the lines that are not blank, from 1.

    Cost: two or three passes as in :func:`by_row`, and the row numbers of one file in memory.

    Raises
    ------
    ConfigError
        As :func:`by_row`, and if the file has no lines.
    """
    _check_source(documents, source)
    files = [uri] if uri is not None else _files_of(documents, source)
    if len(files) > 1:
        raise _ambiguous(source, "have lines", files)
    (file,) = files
    kind = _format_of(documents, source, file)
    if kind is not None and not FORMATS[kind].in_ranges:
        raise ConfigError(f"source '{source}' ({file}): {kind} files have rows, not lines; give --row, counted from 0")
    parts = storage.in_parallel(partial(_rows_of, documents, source, file), documents.manifest().keys_with_rows)
    offsets = np.unique(np.concatenate([np.asarray(part["row"].drop_null()) for part in parts]))
    if not len(offsets):
        raise _no_row(documents, source, line, file)
    if not 1 <= line <= len(offsets):
        raise ConfigError(
            f"no line {line} of source '{source}' ({file}); it has {len(offsets):,} lines that are not blank, "
            "counted from 1"
        )
    return by_row(documents, source, int(offsets[line - 1]), file)


def _rows_of(documents: Artifact, source: str, uri: str | None, key: str) -> pa.Table:
    """Read uri, row and position of a shard's rows of one source or file."""
    rows = documents.read_columns(key, ["source", "uri", "row"])
    mine = pc.equal(rows["source"], source)
    if uri is not None:
        mine = pc.and_(mine, pc.equal(rows["uri"], uri))
    rows = rows.append_column("position", pa.array(np.arange(rows.num_rows)))
    return rows.select(["uri", "row", "position"]).filter(mine)


def _shard_of(documents: Artifact, content_id: bytes) -> str:
    ids = np.frombuffer(content_id, dtype=np.uint8)[None]
    return shards.shard_key(int(shards.shard_of(ids, len(documents.manifest().receipts))[0]))


def _valid(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise ConfigError(f"the text to explain is not UTF-8 ({exc.reason} at character {exc.start})") from exc
    return text


def _needle(text: str) -> bytes:
    """Write a text as the quarantine writes the fields of a row."""
    written = json.dumps(text, ensure_ascii=False).encode()
    return written if len(written) <= _NEEDLE_BYTES else written[:_NEEDLE_BYTES]


def _check_source(documents: Artifact, source: str) -> None:
    receipts = documents.manifest().receipts.values()
    known = sorted({name for receipt in receipts for name, *_ in receipt.summary["rows"]})
    if source not in known:
        raise ConfigError(f"no source '{source}' in this run; it has read {', '.join(known)}")


def _files_of(documents: Artifact, source: str) -> list[str]:
    """List all files of a source that rows were read from."""
    keys = documents.manifest().keys_with_rows
    parts = storage.in_parallel(lambda key: pc.unique(_rows_of(documents, source, None, key)["uri"]).to_pylist(), keys)
    return sorted({uri for part in parts for uri in part})


def _format_of(documents: Artifact, source: str, uri: str) -> str | None:
    """Look up the format of a file. None where the artifact does not say, as after ``ingest.minhash``."""
    files = documents.identity.get("sources", {}).get(source, {}).get("files", [])
    formats: dict[str, str] = {name: kind for name, kind, _ in files}
    return formats.get(uri)


def _no_row(documents: Artifact, source: str, row: int, uri: str | None) -> ConfigError:
    files = _files_of(documents, source)
    if uri is not None and uri not in files:
        return ConfigError(f"no file '{uri}' in source '{source}'; it has {_listed(files)}")
    kinds = {_format_of(documents, source, name) for name in ([uri] if uri else files)}
    advice = []
    if any(kind is None or FORMATS[kind].in_ranges for kind in kinds):
        advice.append(f"rows of JSON lines are byte offsets, give --line {row} for the line number")
    if any(kind is None or not FORMATS[kind].in_ranges for kind in kinds):
        advice.append("rows of other files are counted from 0")
    return ConfigError(f"no row {row} of source '{source}' ({uri or _listed(files)}); {'; '.join(advice)}")


def _ambiguous(source: str, have: str, files: Iterable[str]) -> ConfigError:
    return ConfigError(f"several files of source '{source}' {have}; give --uri, one of {_listed(sorted(files))}")


def _listed(files: list[str]) -> str:
    more = len(files) - _FILES_SHOWN
    return ", ".join(files[:_FILES_SHOWN]) + (f" and {more:,} more" if more > 0 else "")
