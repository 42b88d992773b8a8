"""The schemas that cross stage borders, and ids between Arrow and numpy."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from compass_ray import records

ids = st.lists(st.binary(min_size=16, max_size=16), max_size=12)


@given(ids)
def test_ids_survive_the_way_to_numpy_and_back(values: list[bytes]) -> None:
    column = pa.array(values, records.ID)
    array = records.ids_to_numpy(column)
    assert (array.shape, array.dtype) == ((len(values), 16), np.uint8)
    assert [row.tobytes() for row in array] == values
    assert records.numpy_to_ids(array).equals(column)


@given(ids, st.data())
def test_slices_and_chunks_of_ids_read_right(values: list[bytes], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(values)))
    stop = data.draw(st.integers(start, len(values)))
    column = pa.array(values, records.ID)
    assert [row.tobytes() for row in records.ids_to_numpy(column.slice(start, stop - start))] == values[start:stop]
    chunked = pa.chunked_array([column.slice(0, start), column.slice(start)], type=records.ID)
    assert [row.tobytes() for row in records.ids_to_numpy(chunked)] == values
    assert [row.tobytes() for row in records.ids_to_numpy(chunked.slice(start))] == values[start:]


def test_a_column_without_chunks_has_no_ids() -> None:
    assert records.ids_to_numpy(pa.chunked_array([], type=records.ID)).shape == (0, 16)


def test_ids_from_rows_that_are_not_contiguous_are_copied_right() -> None:
    array = np.arange(64, dtype=np.uint8).reshape(4, 16)[::-2]
    assert records.numpy_to_ids(array).to_pylist() == [bytes(range(48, 64)), bytes(range(16, 32))]


def test_only_documents_are_left_without_rejects_and_in_order() -> None:
    rows = [
        {
            "doc_id": bytes([n]) * 16,
            "text": str(n),
            "reject": {"reason": "empty", "message": "", "raw": b""} if n % 2 else None,
        }
        for n in range(5)
    ]
    documents = records.documents_only(pa.Table.from_pylist(rows, schema=records.INGESTED))
    assert documents["text"].to_pylist() == ["0", "2", "4"]
    assert documents.schema == records.DOCUMENT


def test_an_ingest_shard_is_a_document_with_notes_losses_and_a_reject() -> None:
    assert records.INGESTED.names == [*records.DOCUMENT.names, "notes", "lost", "reject"]
    assert records.SELECTION.names[: len(records.DOCUMENT)] == records.DOCUMENT.names


def test_what_sampling_joins_on_is_the_same_in_every_schema() -> None:
    keys = ["doc_id", "content_id", "role", "target_lang", "lang"]
    embedding = records.embedding_schema(384)
    for schema in (records.DOCUMENT, records.ASSIGNMENT, embedding):
        assert [schema.field(name) for name in keys] == [records.DOCUMENT.field(name) for name in keys]
    assert embedding.field("vector").type == pa.list_(pa.float16(), 384)
    assert embedding.field("tokens") == records.ASSIGNMENT.field("tokens")


def test_no_schema_names_a_column_twice() -> None:
    schemas = [value for value in vars(records).values() if isinstance(value, pa.Schema)]
    assert len(schemas) >= 8
    for schema in [*schemas, records.embedding_schema(4)]:
        assert len(set(schema.names)) == len(schema.names)


@given(st.lists(st.binary(min_size=16, max_size=16), max_size=8))
def test_ids_as_words_are_in_the_order_of_ids(ids: list[bytes]) -> None:
    words = records.ids_to_words(np.frombuffer(b"".join(ids), dtype=np.uint8).reshape(-1, 16))
    assert words.shape == (len(ids), 2)
    assert [ids[row] for row in np.lexsort((words[:, 1], words[:, 0]))] == sorted(ids)
