"""The records that cross stage borders, as Arrow schemas.

A stage may rely on these columns and on nothing else of the stage before it. Changing a schema
means raising ``SCHEMA_VERSION``, which gives every artifact a new fingerprint.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

SCHEMA_VERSION = 3

ROLES = ("pool", "current", "usage")
"""pool = auxiliary data, current = what the adapter is trained on, usage = how it is used."""

ID = pa.binary(16)

CALL = pa.struct(
    [
        ("id", pa.string()),
        ("type", pa.string()),  # always "function"
        ("function", pa.struct([("name", pa.string()), ("arguments", pa.string())])),  # arguments: a JSON object
    ]
)
"""A call of a tool, as OpenAI writes it."""

MESSAGES = pa.list_(
    pa.struct(
        [
            ("role", pa.string()),  # system | user | assistant | tool
            ("content", pa.string()),  # empty where an assistant only calls, or a tool returns nothing
            ("name", pa.string()),  # from here on null where there is none
            ("tool_call_id", pa.string()),
            ("reasoning_content", pa.string()),
            ("tool_calls", pa.list_(CALL)),
            ("weight", pa.int8()),  # 0: an answer that is not trained
        ]
    )
)

DOCUMENT = pa.schema(
    [
        ("doc_id", ID),  # hash of role, target language, language and content
        ("content_id", ID),  # hash of the embedded text alone: equal text, equal id
        ("role", pa.string()),
        ("target_lang", pa.string()),  # the target language it counts for; null in the pool
        ("lang", pa.string()),  # canonical BCP-47
        ("source_lang", pa.string()),  # the code as found
        ("source", pa.string()),  # name in the config
        ("uri", pa.string()),  # relative to the source's root
        ("row", pa.int64()),  # byte offset of the line (JSON lines), row number elsewhere
        ("text", pa.string()),  # what is embedded
        ("messages", MESSAGES),  # null for plain text
        ("tools", pa.string()),  # what a conversation may call: a JSON list; null without any
        ("timestamp", pa.timestamp("us", tz="UTC")),
    ]
)

REJECT = pa.struct([("reason", pa.string()), ("message", pa.string()), ("raw", pa.binary())])

LOST = pa.struct([("rows", pa.int64()), ("bytes", pa.int64())])
"""What is lost with a fault: so many rows, or where nobody could count them (null) bytes of a file."""

INGESTED = pa.schema(
    [*DOCUMENT, pa.field("notes", pa.list_(pa.string())), pa.field("lost", LOST), pa.field("reject", REJECT)]
)
"""One ingest shard: documents (``reject`` null) sorted by ``doc_id``, then rejects. ``notes`` say what of a document
was not read or not there; null where nothing is to be said. ``lost`` is null for a single row.
"""

PARALLEL = pa.schema(
    [
        ("corpus", pa.string()),
        ("group", pa.int64()),  # texts of one group say the same; ascending
        ("lang", pa.string()),  # as the corpus writes it
        ("text", pa.string()),
        ("label", pa.string()),  # a topic, for scoring; null if there is none
    ]
)
"""Texts that translate one another: what encoders are trained and scored on."""

QUARANTINE = pa.schema(
    [
        ("source", pa.string()),
        ("uri", pa.string()),
        ("row", pa.int64()),
        ("reason", pa.string()),
        ("message", pa.string()),
        ("raw", pa.binary()),
        ("rows", pa.int64()),  # that are lost; null where nobody could count them
        ("lost_bytes", pa.int64()),  # of the file, where rows is null; else 0
    ]
)


DOCUMENT_KEYS = pa.schema(
    [
        ("doc_id", ID),
        ("content_id", ID),
        ("role", pa.string()),
        ("target_lang", pa.string()),
        ("lang", pa.string()),
        ("tokens", pa.int32()),
    ]
)
"""What later stages need to know of a document without reading its text."""


def embedding_schema(dim: int) -> pa.Schema:
    """Make the schema of documents' keys with their vectors. Rows are in the order of the document shard.

    The keys travel along so that clustering never has to read text. ``vector`` is null for a
    document whose embedding is not finite.
    """
    return pa.schema([*DOCUMENT_KEYS, pa.field("vector", pa.list_(pa.float16(), dim))])


ASSIGNMENT = pa.schema(
    [
        *DOCUMENT_KEYS,
        # What follows is of usage rows as if k-means, where it was fitted to these embeddings, had not seen them.
        pa.field("cluster", pa.int32()),  # the nearest centroid, for outliers too
        pa.field("similarity", pa.float32()),  # cosine with that centroid
        pa.field("outlier", pa.bool_()),
        pa.field("similarities", pa.list_(pa.float16())),  # of usage rows: cosine with every centroid; else null
    ]
)

NEAR_USAGE = pa.schema(
    [
        ("doc_id", ID),  # of the pool
        ("target_lang", pa.string()),  # the target language whose usage it nearly repeats: it may not be drawn for it
        ("usage", ID),  # which document of it: the lowest id, of those with the same words if there are any
        ("same_words", pa.bool_()),  # whether their words are the same; otherwise their cosine is high
    ]
)
"""Pool documents that nearly repeat usage, held out or not."""

HISTOGRAM = pa.schema(
    [
        ("target_lang", pa.string()),
        # pool | current | usage | heldout; of the pool what a target language may not have: ineligible | near_usage;
        # where an adapter is updated, the usage that it was made for: former
        ("role", pa.string()),
        ("lang", pa.string()),
        ("cluster", pa.int32()),  # n_clusters = the outlier bin
        ("documents", pa.int64()),
        ("tokens", pa.int64()),
        ("squares", pa.int64()),  # over distinct documents, of how often each is there
    ]
)

GAP = pa.schema(
    [
        ("target_lang", pa.string()),
        ("cluster", pa.int32()),
        ("label", pa.string()),
        ("exemplar", pa.string()),
        ("p_usage", pa.float64()),
        ("p_usage_low", pa.float64()),
        ("p_usage_high", pa.float64()),
        ("p_current", pa.float64()),  # null when the target language has no current data
        ("deficit", pa.float64()),
        ("capacity", pa.int64()),
        # What follows is null without cluster quotas: what the cluster would get from a pool without end, what near
        # clusters serve of that, what it serves for others, and what is left.
        ("asked", pa.int64()),
        ("moved_out", pa.int64()),
        ("moved_in", pa.int64()),
        ("unmet", pa.int64()),
        ("quota", pa.int64()),
        ("drawn", pa.int64()),
    ]
)

UNMET = pa.schema(
    [
        ("target_lang", pa.string()),
        ("cluster", pa.int32()),
        ("label", pa.string()),
        ("exemplar", pa.string()),
        ("p_usage", pa.float64()),
        ("capacity", pa.int64()),
        ("asked", pa.int64()),
        ("moved_out", pa.int64()),
        ("unmet", pa.int64()),
    ]
)
"""What usage asks for and neither its cluster nor near ones hold, in the unit of the budget; most first."""

CANDIDATE = pa.schema(
    [
        ("target_lang", pa.string()),
        ("cluster", pa.int32()),
        ("lang", pa.string()),
        ("key", pa.float64()),  # higher is drawn first
        ("doc_id", ID),
        ("tokens", pa.int64()),
        ("similarity", pa.float32()),
        ("shard", pa.int32()),
    ]
)
"""A document that may be drawn for a target language."""

SUPPRESSED = pa.schema([*CANDIDATE, pa.field("duplicate_of", ID), pa.field("copy", pa.bool_())])
"""A candidate that was passed over, and the accepted document that it says again: in its language or, as a copy, in
another one."""

DIRECTION = pa.schema([("target_lang", pa.string()), ("vector", pa.list_(pa.float64()))])
"""Where a target language's documents were drawn towards: what their keys were made of, beside noise."""

SELECTION = pa.schema(
    [
        *DOCUMENT,
        pa.field("selected_for", pa.string()),  # the target language whose adapter it is selected for
        pa.field("cluster", pa.int32()),
        pa.field("asked_by", pa.int32()),  # the cluster whose usage it serves; null where no cluster's asks for it
        pa.field("similarity", pa.float32()),
        pa.field("deficit", pa.float64()),
        pa.field("quota", pa.int64()),
        pa.field("rank", pa.int64()),  # 1-based, within target language and cluster
        pa.field("reason", pa.string()),
    ]
)

WINDOW = pa.schema(
    [
        ("target_lang", pa.string()),
        ("start", pa.timestamp("us", tz="UTC")),  # of the window; null where there is but one
        ("cluster", pa.int32()),  # n_clusters = the outlier bin
        ("documents", pa.int64()),
        ("similarity", pa.float32()),  # of the exemplar to its centroid
        ("exemplar", pa.string()),  # the start of the document nearest to it
    ]
)
"""New usage by window and cluster."""

TRAINING = pa.schema(
    [
        ("doc_id", ID),
        ("content_id", ID),
        ("target_lang", pa.string()),  # whose adapter it is trained into
        ("lang", pa.string()),
        ("selected", pa.bool_()),  # from the selection, not from current data
        ("equals_usage", pa.bool_()),  # its content is that of a held-out usage row: nothing trains on it
        ("text", pa.string()),
        ("messages", MESSAGES),
        ("tools", pa.string()),
    ]
)
"""Documents that adapters are trained on."""

USAGE = pa.schema(
    [
        ("doc_id", ID),
        ("content_id", ID),
        ("target_lang", pa.string()),  # whose usage it is
        ("lang", pa.string()),
        ("text", pa.string()),
        ("messages", MESSAGES),
        ("tools", pa.string()),
    ]
)
"""Held-out usage: rows of role usage that nothing is chosen by and nothing trains on."""

EXAMPLE = pa.schema(
    [
        ("doc_id", ID),
        ("content_id", ID),
        ("lang", pa.string()),
        ("selected", pa.bool_()),
        ("part", pa.string()),  # train | heldout | dropped
        ("reason", pa.string()),  # why it was dropped
        ("tokens", pa.int32()),
        ("trained", pa.int32()),
        ("truncated", pa.bool_()),
    ]
)
"""What became of every training document; packs number the documents of a part in this order."""

REPLAY = pa.schema(
    [("doc_id", ID), ("lang", pa.string()), ("text", pa.string()), ("messages", MESSAGES), ("tools", pa.string())]
)
"""Training documents of one training that are kept for later updates."""

BUFFER = pa.schema([*REPLAY, pa.field("content_id", ID), pa.field("cluster", pa.int32())])
"""The replay buffer of an adapter version: rows of all that it and its champions were trained on, and where they lie in
the codebook; n_clusters = the outlier bin, null where there is none.
"""

PLACE = pa.schema(
    [
        ("target_lang", pa.string()),
        # train = its adapter is trained on it; what it never is: heldout = held-out of what it is trained on, usage =
        # held-out usage, near_usage = of the pool, near to any usage
        ("part", pa.string()),
        ("doc_id", ID),
        ("content_id", ID),
        ("lang", pa.string()),
        ("cluster", pa.int32()),  # n_clusters = the outlier bin
        ("tokens", pa.int32()),  # as the encoder counts them
        ("selected", pa.bool_()),  # from the selection, not from current data
    ]
)
"""Where in the codebook a document of an adapter lies."""

TRAINED = pa.schema(
    [
        ("content_id", ID),
        ("lang", pa.string()),
        ("cluster", pa.int32()),  # n_clusters = the outlier bin
        ("tokens", pa.int32()),
        ("selected", pa.bool_()),  # from a selection, not from current data
    ]
)
"""What an adapter was trained on: distinct documents, of which the next update draws none again."""

UNSEEN = pa.schema([("content_id", ID)])
"""Contents that an adapter and its champions were not to see: held out, or near to usage. No update trains on them."""

CURVE = pa.schema(
    [
        ("step", pa.int64()),  # updates done, from 1
        ("epoch", pa.float64()),
        ("loss", pa.float64()),  # nats a trained token, mean of the global batch
        ("heldout_loss", pa.float64()),  # of the mixture; null where none was measured
        ("learning_rate", pa.float64()),
        ("grad_norm", pa.float64()),  # before clipping
        ("tokens", pa.int64()),
        ("trained_tokens", pa.int64()),
        ("seconds", pa.float64()),
    ]
)
"""The curve of a training that begins with a fresh adapter."""

UPDATE_CURVE = pa.schema(
    [
        *CURVE,
        ("replay_loss", pa.float64()),  # nats a trained token of the replayed packs; null without replay
        ("penalty", pa.float64()),  # of elastic weight consolidation, before its strength; null without one
    ]
)
"""The curve of a training that begins with an adapter."""

MEASURES = ("usage", "mixture", "other")
"""usage = held-out usage in the adapter's language, mixture = held-out documents of what it was trained on,
other = those of what an adapter of another language was trained on. In the order in which all scores are shown.
"""

SCORE = pa.schema(
    [
        ("adapter", pa.string()),  # the language of the adapter
        ("measures", pa.string()),  # one of MEASURES
        ("lang", pa.string()),  # whose usage, or whose adapter's mixture
        ("documents", pa.int64()),  # 0 where there was none to measure: then all below are null
        ("in_language", pa.int64()),  # documents that are in that language
        ("tokens", pa.int64()),  # predicted
        ("bytes", pa.int64()),  # UTF-8, of what they spell
        ("base_loss", pa.float64()),  # nats a token
        ("base_perplexity", pa.float64()),
        ("base_bits_per_byte", pa.float64()),
        ("loss", pa.float64()),
        ("perplexity", pa.float64()),
        ("bits_per_byte", pa.float64()),
    ]
)
"""Held-out scores of an adapter and of its base without it: usage, the mixture, then every other language's mixture."""


PROBE = pa.schema(
    [
        ("measures", pa.string()),  # what it is a sample of: one of PROBES
        ("target_lang", pa.string()),  # whose adapter is measured on it
        ("lang", pa.string()),
        ("doc_id", ID),
        ("content_id", ID),
        ("cluster", pa.int32()),  # of the codebook; n_clusters = the outlier bin; null where nobody asked
        ("block", pa.string()),  # what it came with: equal ones are not independent; null = independent
        ("text", pa.string()),
        ("messages", MESSAGES),
        ("tools", pa.string()),
    ]
)
"""Documents that adapters are compared on, one by one; nothing trains on them."""

PROBES = ("new_usage", "former_usage", "other")
"""new_usage = held-out usage that an update was made for, former_usage = held-out usage that the champion was made for,
other = texts that an adapter must not unlearn, such as English.
"""

LOSS = pa.schema(
    [
        ("adapter", pa.string()),  # a version, or "base"
        *((name, PROBE.field(name).type) for name in ("measures", "target_lang", "lang", "doc_id", "content_id")),
        ("cluster", pa.int32()),
        ("block", pa.string()),
        ("nats", pa.float64()),  # sum over the predicted tokens
        ("tokens", pa.int64()),  # predicted
        ("bytes", pa.int64()),  # UTF-8, of what they spell
    ]
)
"""How well an adapter predicts a document: one row for each adapter and document that has a token to predict."""


def ids_to_numpy(column: pa.ChunkedArray | pa.Array) -> NDArray[np.uint8]:
    """View a column of 16-byte ids as an array. The shape is (n, 16), uint8."""
    array = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    data = np.frombuffer(array.buffers()[1] or b"", dtype=np.uint8)
    return data[array.offset * 16 : (array.offset + len(array)) * 16].reshape(-1, 16)


def numpy_to_ids(ids: NDArray[np.uint8]) -> pa.Array:
    """Undo :func:`ids_to_numpy`."""
    flat = np.ascontiguousarray(ids, dtype=np.uint8)
    return pa.Array.from_buffers(ID, len(flat), [None, pa.py_buffer(flat)])


def unique_ids(parts: Iterable[pa.Array]) -> pa.Array:
    """List the ids of all parts, each once and sorted."""
    ids = pc.unique(pa.chunked_array(list(parts), ID)).cast(pa.binary())
    return ids.take(pc.sort_indices(ids)).cast(ID)


def has_text(rows: pa.Table) -> pa.ChunkedArray:
    """Tell which rows hold what they say: a text or messages. Where ids alone are kept none does."""
    return pc.or_(rows["text"].is_valid(), rows["messages"].is_valid())


def codes_of(ids: pa.ChunkedArray | pa.Array) -> NDArray[np.int64]:
    """Give the ids of a column numbers from 0, equal ones alike.

    They go in the order in which ids first appear; shape (n,).
    """
    array = ids.combine_chunks() if isinstance(ids, pa.ChunkedArray) else ids
    codes: NDArray[np.int64] = array.dictionary_encode().indices.to_numpy().astype(np.int64)
    return codes


def ids_to_words(ids: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """View ids of shape (..., 16) as two numbers each, shape (..., 2). Ids are in order as these numbers are."""
    words: NDArray[np.uint64] = np.ascontiguousarray(ids).view(">u8")
    return words


def documents_only(ingested: pa.Table) -> pa.Table:
    """Keep the documents of an ingest shard, in order, without its rejects."""
    documents = ingested.filter(ingested["reject"].is_null())
    return documents.drop_columns([name for name in ("notes", "lost", "reject") if name in documents.column_names])
