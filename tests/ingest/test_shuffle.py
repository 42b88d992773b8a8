"""A finished shard is a function of the set of its rows; nothing is lost on the way to it."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compass_ray import records
from compass_ray.artifacts import Manifest, Receipt
from compass_ray.errors import EmptyInput, TooManyBadRows
from compass_ray.ingest.config import IngestConfig, SourceConfig
from compass_ray.ingest.documents import to_documents
from compass_ray.ingest.files import HashCache, read_units
from compass_ray.ingest.listing import list_source
from compass_ray.ingest.readers import Fault, RawBatch
from compass_ray.ingest.shuffle import count_rows, finish_shard
from compass_ray.ingest.stage import check_usable, read_unit

SOURCES = {
    "pool": SourceConfig(role="pool", path="x", columns={"text": "text", "lang": "lang"}),
    "more": SourceConfig(role="pool", path="x", columns={"text": "text", "lang": "lang"}),
    "usage": SourceConfig(role="usage", path="x", columns={"text": "text", "lang": "lang"}),
    "data": SourceConfig(role="current", path="x", columns={"text": "text", "lang": "lang"}, target_lang="de"),
}


def rows_of(source: str, rows: list[tuple[str, str]], uri: str = "f", faults: int = 0) -> pa.Table:
    columns = {"text": [text for text, _ in rows], "lang": [lang for _, lang in rows]}
    broken = [Fault(1000 + index, "broken_json", "no", b"x") for index in range(faults)]
    batch = RawBatch(rows=[*range(len(rows))], columns=columns, faults=broken)
    return to_documents(batch, source, SOURCES[source], uri, "prompt", 1).drop_columns(["shard"])


def shuffled(table: pa.Table, order: list[int]) -> pa.Table:
    return table.take(pa.array(order, pa.int64()))


few_rows = st.lists(
    st.tuples(st.sampled_from(["a", "a ", "b", "c", ""]), st.sampled_from(["en", "eng", "de", "??"])), max_size=6
)


@given(
    groups=st.lists(st.tuples(st.sampled_from(sorted(SOURCES)), few_rows, st.integers(0, 2)), min_size=1, max_size=5),
    data=st.data(),
)
@settings(deadline=None, max_examples=120)
def test_any_order_of_the_rows_gives_the_same_shard_and_loses_none(
    groups: list[tuple[str, list[tuple[str, str]], int]], data: st.DataObject
) -> None:
    table = pa.concat_tables(
        [rows_of(source, rows, uri=f"f{index}", faults=faults) for index, (source, rows, faults) in enumerate(groups)]
    )
    finished = finish_shard(table)
    order = data.draw(st.permutations(range(table.num_rows)))
    assert finish_shard(shuffled(table, list(order))).equals(finished)
    assert finished.schema == records.INGESTED

    def places(found: pa.Table) -> Counter[Any]:
        return Counter(zip(*(found[name].to_pylist() for name in ("source", "uri", "row")), strict=True))

    assert places(finished) == places(table)


@given(few_rows, few_rows)
@settings(deadline=None, max_examples=60)
def test_documents_come_first_in_order_of_id_and_the_pool_has_each_once(
    one: list[tuple[str, str]], other: list[tuple[str, str]]
) -> None:
    finished = finish_shard(pa.concat_tables([rows_of("pool", one), rows_of("more", other), rows_of("usage", one)]))
    documents = records.documents_only(finished)
    assert finished["reject"].is_null().to_pylist() == [True] * documents.num_rows + [False] * (
        finished.num_rows - documents.num_rows
    )
    ids = documents["doc_id"].to_pylist()
    assert ids == sorted(ids)
    pool = [row["doc_id"] for row in documents.to_pylist() if row["role"] == "pool"]
    assert len(pool) == len(set(pool))
    known = {"en": "en", "eng": "en", "de": "de"}
    expected = {(text.strip(), known[lang]) for text, lang in one + other if text and lang in known}
    assert len(pool) == len(expected)


def test_a_repeated_pool_document_is_removed_and_explained_by_the_copy_that_stays() -> None:
    table = pa.concat_tables(
        [
            rows_of("pool", [("b", "en"), ("same  text", "en"), ("same text", "eng")], uri="z.jsonl"),
            rows_of("more", [("same\ntext", "en")], uri="a.jsonl"),
        ]
    )
    finished = finish_shard(table)
    assert sorted(records.documents_only(finished)["text"].to_pylist()) == ["b", "same\ntext"]
    duplicates = [row for row in finished.to_pylist() if row["reject"]]
    assert [(row["source"], row["uri"], row["row"]) for row in duplicates] == [
        ("pool", "z.jsonl", 1),
        ("pool", "z.jsonl", 2),
    ]
    for row in duplicates:
        assert row["reject"] == {
            "reason": "duplicate",
            "message": "same content and language as more:a.jsonl:0",
            "raw": b"",
        }
        assert (row["text"], row["messages"]) == (None, None)
        assert (row["role"], row["lang"]) == ("pool", "en")


def test_the_same_text_in_two_languages_is_two_pool_documents() -> None:
    finished = finish_shard(rows_of("pool", [("taxi", "en"), ("taxi", "de")]))
    assert records.documents_only(finished).num_rows == 2


@pytest.mark.parametrize("source", ["usage", "data"])
def test_repetition_in_target_and_current_is_weight_and_stays(source: str) -> None:
    finished = finish_shard(rows_of(source, [("a", "en")] * 3))
    assert finished["reject"].null_count == 3
    assert finished["row"].to_pylist() == [0, 1, 2]


def test_a_pool_document_equal_to_a_target_document_stays_for_sampling_to_judge() -> None:
    finished = finish_shard(pa.concat_tables([rows_of("pool", [("a", "en")]), rows_of("usage", [("a", "en")])]))
    assert finished["reject"].null_count == 2
    assert len(set(finished["content_id"].to_pylist())) == 1


def test_a_shard_without_rows_is_finished_empty() -> None:
    assert finish_shard(records.INGESTED.empty_table()).equals(records.INGESTED.empty_table())


def test_the_summary_counts_rows_by_outcome_and_documents_by_group() -> None:
    rows = [("a", "en"), ("a", "en"), ("", "en"), ("b", "de"), ("c", "??")]
    table = pa.concat_tables(
        [rows_of("pool", rows, faults=2), rows_of("usage", [("a", "en")] * 2), rows_of("data", [("q", "en")])]
    )
    assert count_rows(finish_shard(table)) == {
        "contaminated": [],
        "mojibake": [],
        "notes": [],
        "rows": [
            ["data", "document", 1],
            ["pool", "broken_json", 2],
            ["pool", "document", 2],
            ["pool", "duplicate", 1],
            ["pool", "empty", 1],
            ["pool", "language_unknown", 1],
            ["usage", "document", 2],
        ],
        "documents": [
            ["current", "de", "en", 1],
            ["pool", None, "de", 1],
            ["pool", None, "en", 1],
            ["usage", "en", "en", 2],
        ],
    }


def test_texts_that_look_like_mojibake_are_counted_and_kept() -> None:
    odd = ["cafÃ© au lait", "itâ€™s", "Ð¿Ñ€Ð¸Ð²ÐµÑ‚", "lost \ufffd", "ï»¿text"]
    even = ["NÃO", "café", "Âge", "привет", "Ð", "“it’s”", "Ñandú"]
    shard = finish_shard(rows_of("pool", [(text, "en") for text in [*odd, *even]]))
    summary = count_rows(shard)
    assert summary["mojibake"] == [["pool", len(odd)]]
    assert summary["rows"] == [["pool", "document", len(odd) + len(even)]]
    assert set(odd) <= set(shard["text"].to_pylist())


# --- from files to shards, without Ray ----------------------------------------------------------


def ingest(folder: Path, n_shards: int, range_bytes: int) -> tuple[dict[int, pa.Table], int]:
    """Finished shards of a messy corpus on disk, and how many rows it has."""
    lines = [json.dumps({"text": f"text {i % 40}", "lang": "en" if i % 3 else "??"}) for i in range(90)]
    lines[5], lines[50] = "{broken", "[]"
    (folder / "a.jsonl").write_text("\n".join(lines))
    (folder / "b.csv").write_text("text,lang\n" + "".join(f"text {i},en\n" for i in range(30)) + "only\n,en\n")
    sources = {
        "jl": SourceConfig(role="pool", path=f"{folder}/*.jsonl", columns={"text": "text", "lang": "lang"}),
        "csv": SourceConfig(role="usage", path=f"{folder}/*.csv", columns={"text": "text", "lang": "lang"}),
    }
    cache = HashCache(f"{folder}/cache.json")
    files = {name: cache.with_content(list_source(name, source).files) for name, source in sources.items()}
    shards = {}
    for shard in range(n_shards):  # one wanted shard at a time, as a resumed run asks for
        tables = [
            table
            for unit in read_units(files, range_bytes)
            for table in read_unit(unit, sources, "prompt", n_shards, frozenset({shard}))
        ]
        rows = pa.concat_tables(tables)
        assert set(rows["shard"].to_pylist()) <= {shard}
        shards[shard] = finish_shard(rows.select(records.INGESTED.names).cast(records.INGESTED))
    return shards, 90 + 32


def test_rows_in_are_documents_and_rejects_out(tmp_path: Path) -> None:
    shards, n_rows = ingest(tmp_path, 4, 1 << 20)
    outcomes: Counter[str] = Counter()
    for table in shards.values():
        for _, outcome, count in count_rows(table)["rows"]:
            outcomes[outcome] += count
    assert outcomes.total() == n_rows
    assert outcomes["document"] == sum(records.documents_only(table).num_rows for table in shards.values())
    for reason in ("duplicate", "language_unknown", "broken_json", "not_an_object", "wrong_column_count", "empty"):
        assert outcomes[reason] > 0, reason


def test_the_split_of_files_among_tasks_does_not_change_a_byte(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    whole, _ = ingest(tmp_path / "one", 4, 1 << 20)
    split, _ = ingest(tmp_path / "two", 4, 333)
    assert all(whole[shard].equals(split[shard]) for shard in range(4))


# --- is what was read usable? -------------------------------------------------------------------


def manifest_of(table: pa.Table) -> Manifest:
    shard = finish_shard(table)
    return Manifest("ingest", "f", {}, {"00000": Receipt("00000", shard.num_rows, 0, "", count_rows(shard))})


def test_too_many_broken_rows_stop_the_run_with_their_reasons() -> None:
    manifest = manifest_of(rows_of("pool", [("a", "en"), ("b", "en")], faults=2))
    with pytest.raises(TooManyBadRows) as caught:
        check_usable(manifest, IngestConfig(max_bad_fraction=0.25), ["pool"])
    assert str(caught.value).startswith(
        "2 of 4 rows are broken (50.00%), above ingest.max_bad_fraction = 25.00%; worst: sources.pool: 2 × broken_json."
    )
    check_usable(manifest, IngestConfig(max_bad_fraction=0.5), ["pool"])


def test_filtered_rows_are_not_broken_rows() -> None:
    rows = [("a", "en"), ("a", "en"), ("", "en"), ("c", "??")]
    manifest = manifest_of(rows_of("pool", rows))
    check_usable(manifest, IngestConfig(max_bad_fraction=0), ["pool"])


def test_a_role_that_lost_all_its_rows_stops_the_run() -> None:
    manifest = manifest_of(pa.concat_tables([rows_of("pool", [("a", "en")]), rows_of("usage", [("", "en")])]))
    with pytest.raises(
        EmptyInput, match=r"^no usage document is left of 2 rows \(.*'empty': 1.*\); check sources with"
    ):
        check_usable(manifest, IngestConfig(), ["pool", "usage"])
