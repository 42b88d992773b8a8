"""Rows -> documents: what is kept of a text, what makes two equal, whose they are, and why rows are refused."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray import records, shards
from compass_ray.ingest.config import SourceConfig
from compass_ray.ingest.documents import RAW_BYTES, content_hash, content_id, doc_id, normalise, to_documents, view_of
from compass_ray.ingest.readers import MISSING, Fault, RawBatch

CHAT = [
    {"role": "system", "content": "S"},
    {"role": "user", "content": "U1"},
    {"role": "assistant", "content": "A1"},
    {"role": "user", "content": "U2"},
    {"role": "assistant", "content": "A2"},
]


def documents(
    rows: list[dict[str, Any]],
    *,
    view: Any = "prompt",
    uri: str = "f.jsonl",
    faults: tuple[Fault, ...] = (),
    n_shards: int = 4,
    **source: Any,
) -> list[dict[str, Any]]:
    """The rows as documents of a pool in English, unless told otherwise."""
    given_lang = any(name in source for name in ("lang", "lang_pattern")) or "lang" in source.get("columns", {})
    config = SourceConfig(**{"role": "pool", "path": "x", **({} if given_lang else {"lang": "en"}), **source})
    columns = {name: [row.get(name, MISSING) for row in rows] for name in config.wanted_columns}
    batch = RawBatch(rows=[10 * index for index in range(len(rows))], columns=columns, faults=list(faults))
    table = to_documents(batch, "src", config, uri, view, n_shards)
    assert table.schema.names == [*records.INGESTED.names, "shard"]
    found: list[dict[str, Any]] = table.to_pylist()
    assert len(found) == len(rows) + len(faults)
    return found


def only(rows: list[dict[str, Any]], **given: Any) -> dict[str, Any]:
    [document] = documents(rows, **given)
    return document


# --- text ---------------------------------------------------------------------------------------


def test_text_is_nfc_with_plain_line_ends_and_no_outer_white_space() -> None:
    document = only([{"text": " \r\n  cafe\u0301\r\n\tindented\rlast\u3000\n"}])
    assert document["text"] == "café\n\tindented\nlast"
    assert document["reject"] is None


@given(st.text())
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalise(text)
    assert normalise(once) == once
    assert "\r" not in once


@given(words=st.lists(st.text("abé漢", min_size=1, max_size=4), min_size=1), data=st.data())
def test_the_content_hash_is_blind_to_the_amount_and_kind_of_white_space(words: list[str], data: st.DataObject) -> None:
    gaps = data.draw(st.lists(st.text(" \t\n\u00a0\u3000", min_size=1, max_size=3), min_size=len(words)))
    spaced = "".join(word + gap for word, gap in zip(words, gaps, strict=False))
    assert content_hash(spaced, None) == content_hash(" ".join(words), None)
    turns = [{"role": "user", "content": spaced}]
    assert content_hash("", turns) == content_hash("", [{"role": "user", "content": " ".join(words)}])


@given(st.text("ab \n", max_size=6), st.text("ab \n", max_size=6))
def test_the_content_hash_tells_different_words_apart(one: str, other: str) -> None:
    assert (content_hash(one, None) == content_hash(other, None)) == (one.split() == other.split())


def test_composed_and_decomposed_text_are_one_document() -> None:
    one, other = documents(
        [{"text": "cafe\u0301  noir"}, {"text": unicodedata.normalize("NFC", "cafe\u0301") + " noir"}]
    )
    assert one["doc_id"] == other["doc_id"]


def test_who_says_what_is_part_of_the_content() -> None:
    user, assistant = ([{"role": role, "content": "a"}] for role in ("user", "assistant"))
    joined = [{"role": "user", "content": "a b"}]
    split = [{"role": "user", "content": "a"}, {"role": "user", "content": "b"}]
    hashes = {content_hash("a", turns) for turns in (None, user, assistant, joined, split)}
    assert len(hashes) == 5


def test_the_document_id_depends_on_role_owner_language_and_content_and_nothing_else() -> None:
    ids = {
        doc_id(role, owner, lang, content)
        for role, owner in (("pool", None), ("target", "en"), ("target", "de"), ("current", "en"))
        for lang in ("en", "de")
        for content in (b"1" * 16, b"2" * 16)
    }
    assert len(ids) == 16
    here, there = (only([{"text": "a"}], uri=uri)["doc_id"] for uri in ("f.jsonl", "g.jsonl"))
    assert here == there
    assert len(here) == 16


def test_the_shard_is_a_function_of_the_content_for_every_role() -> None:
    texts = [{"text": f"text {index}"} for index in range(200)]
    pool, target = (documents(texts, role=role, n_shards=16) for role in ("pool", "target"))
    assert [row["shard"] for row in pool] == [row["shard"] for row in target]
    assert {row["shard"] for row in pool} == set(range(16))
    ids = records.numpy_to_ids(np.array([list(row["content_id"]) for row in pool], dtype="uint8"))
    assert shards.shard_of(records.ids_to_numpy(ids), 16).tolist() == [row["shard"] for row in pool]


def test_a_document_says_where_it_is_from() -> None:
    first, second = documents([{"text": "a"}, {"text": "b"}], uri="sub/f.jsonl")
    assert (first["source"], first["uri"], first["row"], second["row"]) == ("src", "sub/f.jsonl", 0, 10)


# --- owner --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "given", "owner"),
    [
        ("pool", None, None),
        ("target", None, "fr"),
        ("current", None, "fr"),
        ("target", "de", "de"),
        ("current", "deu", "de"),
    ],
)
def test_rows_count_for_their_owner_their_own_language_by_default_and_pool_rows_for_none(
    role: str, given: str | None, owner: str | None
) -> None:
    document = only([{"text": "a"}], role=role, lang="fra", **({"for": given} if given else {}))
    assert (document["role"], document["owner"], document["lang"]) == (role, owner, "fr")


# --- language -----------------------------------------------------------------------------------


def test_the_language_column_is_read_row_by_row_and_kept_as_found() -> None:
    codes = ["zho_Hans", "pt_BR", "eng", " de ", "zh-TW"]
    found = documents([{"text": "a", "l": code} for code in codes], columns={"text": "text", "lang": "l"})
    assert [row["lang"] for row in found] == ["zh", "pt", "en", "de", "zh-Hant"]
    assert [row["source_lang"] for row in found] == ["zho_Hans", "pt_BR", "eng", "de", "zh-TW"]


def test_one_language_for_all_rows() -> None:
    document = only([{"text": "a"}], lang="swh_Latn")
    assert document["lang"] == "sw"


def test_the_language_in_the_path() -> None:
    document = only([{"text": "a"}], lang_pattern=r"(?:^|/)(?P<lang>[a-z]{3}_[A-Z][a-z]{3})\.", uri="d/hin_Deva.jsonl")
    assert (document["lang"], document["source_lang"]) == ("hi", "hin_Deva")


@pytest.mark.parametrize(
    ("source", "row", "reason", "message"),
    [
        ({"lang_pattern": "x/(?P<lang>[a-z]+)/"}, {}, "language_unknown", "found none by x/(?P<lang>[a-z]+)/"),
        ({"lang_pattern": "(?P<lang>[f-g])"}, {}, "language_unknown", "found 'f'"),
        ({"lang_pattern": "f|(?P<lang>z)"}, {}, "language_unknown", "found none by f|(?P<lang>z)"),
        ({"columns": {"text": "text", "lang": "l"}}, {"l": "qqqq-"}, "language_unknown", "found 'qqqq-'"),
        ({"columns": {"text": "text", "lang": "l"}}, {"l": ""}, "language_unknown", "found none by l"),
        ({"columns": {"text": "text", "lang": "l"}}, {"l": "und"}, "language_unknown", "found 'und'"),
        ({"columns": {"text": "text", "lang": "l"}}, {"l": 3}, "wrong_type", "l: expected text, found int"),
        ({"columns": {"text": "text", "lang": "l"}}, {}, "missing_column", "the row has no l"),
    ],
)
def test_a_row_without_a_known_language_is_refused(
    source: dict[str, Any], row: dict[str, Any], reason: str, message: str
) -> None:
    reject = only([{"text": "a", **row}], **source)["reject"]
    assert reject["reason"] == reason
    assert reject["message"].endswith(message)


@given(st.text(st.sampled_from("abenxqi-_ 1239\0é"), max_size=12))
def test_no_language_code_however_odd_stops_a_run(code: str) -> None:
    row = only([{"text": "a", "l": code}], columns={"text": "text", "lang": "l"})
    assert (row["reject"] is None) == (row["lang"] is not None)


# --- conversations ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("view", "text"), [("prompt", "S\nU1\nA1\nU2"), ("completion", "A2"), ("full", "S\nU1\nA1\nU2\nA2")]
)
def test_views_are_up_to_the_last_answer_that_answer_or_all(view: Any, text: str) -> None:
    document = only([{"m": CHAT}], columns={"messages": "m"}, view=view)
    assert document["text"] == text
    assert document["messages"] == CHAT
    assert view_of(CHAT, view) == text


def test_the_view_changes_what_is_embedded_and_not_which_document_it_is() -> None:
    ids = {
        only([{"m": CHAT}], columns={"messages": "m"}, view=view)["doc_id"] for view in ("prompt", "completion", "full")
    }
    assert len(ids) == 1


def test_a_conversation_without_an_answer_is_all_prompt() -> None:
    turns = CHAT[:2]
    assert (view_of(turns, "prompt"), view_of(turns, "completion"), view_of(turns, "full")) == ("S\nU1", "", "S\nU1")


def test_what_follows_the_last_answer_is_no_completion() -> None:
    turns = [*CHAT[:3], {"role": "user", "content": "bye"}]
    assert (view_of(turns, "prompt"), view_of(turns, "completion")) == ("S\nU1", "A1")


@pytest.mark.parametrize(("view", "text"), [("prompt", "Q"), ("completion", "A"), ("full", "Q\nA")])
def test_prompt_and_completion_become_a_conversation(view: Any, text: str) -> None:
    document = only(
        [{"inputs": " Q ", "targets": "A\r\n"}], columns={"prompt": "inputs", "completion": "targets"}, view=view
    )
    assert document["messages"] == [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
    assert document["text"] == text


def test_a_conversation_equals_the_prompt_and_completion_that_say_the_same() -> None:
    turns = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
    chat = only([{"m": turns}], columns={"messages": "m"})
    pair = only([{"p": "Q", "c": "A"}], columns={"prompt": "p", "completion": "c"})
    assert chat["doc_id"] == pair["doc_id"]


def test_a_prompt_alone_has_nothing_to_embed_as_completion() -> None:
    columns = {"prompt": "p"}
    assert only([{"p": "Q"}], columns=columns)["text"] == "Q"
    reject = only([{"p": "Q"}], columns=columns, view="completion")["reject"]
    assert (reject["reason"], reject["message"]) == (
        "empty",
        "a turn is empty, or embed.view 'completion' leaves nothing to embed",
    )


@pytest.mark.parametrize(
    ("value", "reason", "message"),
    [
        ("hello", "wrong_type", "m: expected a list of messages, found str"),
        ([], "wrong_type", "m: expected a list of messages, found list"),
        (None, "wrong_type", "m: expected a list of messages, found NoneType"),
        (["hello"], "wrong_type", "m: each message needs a role of assistant, system, tool, user"),
        ([{"content": "a"}], "wrong_type", "m: each message needs a role of assistant, system, tool, user"),
        (
            [{"role": "boss", "content": "a"}],
            "wrong_type",
            "m: each message needs a role of assistant, system, tool, user",
        ),
        (
            [{"role": ["user"], "content": "a"}],
            "wrong_type",
            "m: each message needs a role of assistant, system, tool, user",
        ),
        ([{"role": {}, "content": "a"}], "wrong_type", "m: each message needs a role of assistant, system, tool, user"),
        ([{"role": "user"}], "missing_column", "the row has no content"),
        ([{"role": "user", "content": None}], "empty", "content is null"),
        ([{"role": "user", "content": [{"type": "text"}]}], "wrong_type", "content: expected text, found list"),
        (
            [{"role": "user", "content": " \n"}],
            "empty",
            "a turn is empty, or embed.view 'prompt' leaves nothing to embed",
        ),
    ],
)
def test_a_broken_conversation_is_refused_with_a_reason(value: Any, reason: str, message: str) -> None:
    reject = only([{"m": value}], columns={"messages": "m"})["reject"]
    assert (reject["reason"], reject["message"]) == (reason, message)


# --- rejects ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "reason", "message"),
    [
        ({"text": " \n"}, "empty", "text is empty"),
        ({"text": None}, "empty", "text is null"),
        ({"text": 3}, "wrong_type", "text: expected text, found int"),
        ({"text": ["a"]}, "wrong_type", "text: expected text, found list"),
        ({}, "missing_column", "the row has no text"),
    ],
)
def test_a_row_without_text_is_refused_and_shown(row: dict[str, Any], reason: str, message: str) -> None:
    reject = only([row])
    assert reject["reject"] == {"reason": reason, "message": message, "raw": json.dumps(row).encode()}
    assert (reject["text"], reject["messages"], reject["lang"], reject["role"]) == (None, None, None, "pool")


def test_a_fault_of_the_reader_becomes_a_reject_with_its_raw_bytes() -> None:
    fault = Fault(7, "broken_json", "no", b'{"text": "\xff' + b"x" * 5000)
    whole_file = Fault(None, "corrupt_file", "not gzip data")
    good, bad, worse = documents([{"text": "a"}], faults=(fault, whole_file))
    assert good["reject"] is None
    assert bad["row"] == 7
    assert bad["reject"] == {"reason": "broken_json", "message": "no", "raw": fault.raw[:RAW_BYTES]}
    assert (worse["row"], worse["reject"]["reason"]) == (None, "corrupt_file")
    assert len({row["doc_id"] for row in (good, bad, worse)}) == 3


def test_what_is_shown_of_a_rejected_row_is_bounded_and_readable() -> None:
    raw = only([{"text": None, "note": "é漢" * 5000}], where={"note": ["é漢" * 5000]})["reject"]["raw"]
    assert len(raw) == RAW_BYTES
    assert raw.startswith('{"text": null, "note": "é漢é漢'.encode())


def test_a_bad_row_costs_itself_alone() -> None:
    found = documents([{"text": "a"}, {"text": 5}, {"text": "b"}])
    assert [row["text"] for row in found] == ["a", None, "b"]
    assert [row["row"] for row in found] == [0, 10, 20]


# --- where --------------------------------------------------------------------------------------


def test_where_keeps_the_rows_with_one_of_the_values() -> None:
    rows = [{"text": name, "split": split} for name, split in (("a", "train"), ("b", "dev"), ("c", "test"), ("d", 1))]
    found = documents(rows, where={"split": ["train", "1", "dev"]})
    assert [row["text"] for row in found] == ["a", "b", None, "d"]
    assert found[2]["reject"] == {"reason": "filtered", "message": "split is not one of train, 1, dev", "raw": b""}


def test_all_conditions_of_where_must_hold() -> None:
    rows = [{"text": "a", "x": "1", "y": "1"}, {"text": "b", "x": "1", "y": "2"}]
    assert [row["text"] for row in documents(rows, where={"x": "1", "y": "2"})] == [None, "b"]


def test_a_row_without_the_column_of_where_is_broken_and_not_filtered() -> None:
    reject = only([{"text": "a"}], where={"split": "train"})["reject"]
    assert (reject["reason"], reject["message"]) == ("missing_column", "the row has no split")


def test_a_row_that_where_leaves_out_is_not_judged_further() -> None:
    assert only([{"text": None, "split": "dev"}], where={"split": "train"})["reject"]["reason"] == "filtered"


def test_a_prompt_has_the_content_id_of_the_same_question_as_plain_text() -> None:
    """Else a pool row with a held-out question as its prompt would be eligible, and in another shard."""
    question, turns = "How deep is it?", [{"role": "user", "content": "How  deep is it?"}]
    assert content_id(view_of(turns, "prompt")) == content_id(question)
    assert content_hash(question, turns) != content_hash(question, None)
