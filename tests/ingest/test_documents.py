"""Rows -> documents: what is kept of a text, what makes two equal, whose they are, and why rows are refused."""

from __future__ import annotations

import json
import unicodedata
from typing import Any

import numpy as np
import pytest
from documents import PINNED, documents, only, said
from hypothesis import given
from hypothesis import strategies as st

from compass_ray import records, shards
from compass_ray.ingest import hashes
from compass_ray.ingest.cleaning import key_of, normalize
from compass_ray.ingest.config import SourceConfig
from compass_ray.ingest.content import view_of
from compass_ray.ingest.documents import to_documents
from compass_ray.ingest.readers import Fault, RawBatch
from compass_ray.ingest.readers.batch import RAW_BYTES

CHAT = [
    {"role": "system", "content": "S"},
    {"role": "user", "content": "U1"},
    {"role": "assistant", "content": "A1"},
    {"role": "user", "content": "U2"},
    {"role": "assistant", "content": "A2"},
]


# --- text ---------------------------------------------------------------------------------------


def test_text_is_nfc_with_plain_line_ends_and_no_outer_white_space() -> None:
    document = only([{"text": " \r\n  cafe\u0301\r\n\tindented\rlast\u3000\n"}])
    assert document["text"] == "café\n\tindented\nlast"
    assert document["reject"] is None


@given(st.text())
def test_normalising_twice_changes_nothing(text: str) -> None:
    once = normalize(text)
    assert normalize(once) == once
    assert "\r" not in once


def text_hash(text: str) -> bytes:
    return hashes.text_hashes([key_of(text).encode()])[0]


def chat_hash(*turns: tuple[str, str]) -> bytes:
    return hashes.chat_hashes([[(role, key_of(text)) for role, text in turns]])[0]


@given(words=st.lists(st.text("abé漢", min_size=1, max_size=4), min_size=1), data=st.data())
def test_the_content_hash_is_blind_to_the_amount_and_kind_of_white_space(words: list[str], data: st.DataObject) -> None:
    gaps = data.draw(st.lists(st.text(" \t\n\u00a0\u3000", min_size=1, max_size=3), min_size=len(words)))
    spaced = "".join(word + gap for word, gap in zip(words, gaps, strict=False))
    assert only([{"text": spaced}])["doc_id"] == only([{"text": " ".join(words)}])["doc_id"]


@given(st.text("ab \n", max_size=6), st.text("ab \n", max_size=6))
def test_the_content_hash_tells_different_words_apart(one: str, other: str) -> None:
    assert (text_hash(one) == text_hash(other)) == (one.split() == other.split())


def test_composed_and_decomposed_text_are_one_document() -> None:
    one, other = documents(
        [{"text": "cafe\u0301  noir"}, {"text": unicodedata.normalize("NFC", "cafe\u0301") + " noir"}]
    )
    assert one["doc_id"] == other["doc_id"]


UNSEEN = {
    "zero width space": "\u200b",
    "soft hyphen": "\u00ad",
    "byte order mark": "\ufeff",
    "word joiner": "\u2060",
    "joiners": "\u200c\u200d",
    "marks of direction": "\u200e\u200f\u202a\u202e\u2066\u2069\u061c",
    "variation selectors": "\ufe0f\U000e0100",
    "Hangul fillers": "\u115f\u1160\u3164\uffa0",
    "tags": "\U000e0041\U000e007f",
    "annotation marks": "\ufff9\ufffa\ufffb",
    "grapheme joiner": "\u034f",
    "mathematical operators": "\u2061\u2062\u2063\u2064",
    "blank Braille": "\u2800",
    "white space between": "\u200b \u3000\n\u200b",
}


@pytest.mark.parametrize("unseen", UNSEEN.values(), ids=UNSEEN)
@pytest.mark.parametrize("columns", [{"text": "t"}, {"prompt": "t"}, {"messages": "m"}])
def test_a_text_that_nobody_sees_is_empty_however_long_it_is(unseen: str, columns: dict[str, str]) -> None:
    said = unseen * 50
    row = {"t": said, "m": [{"role": "user", "content": said}]}
    reject = only([row], columns=columns, min_characters=3)["reject"]
    assert reject["reason"] == "empty"


@pytest.mark.parametrize("unseen", [one for one in UNSEEN.values() if not set(one) & set(" \u2800")])
def test_texts_that_differ_in_what_nobody_sees_are_one_document_and_stay_as_they_are(unseen: str) -> None:
    plain, odd = "Where is the old well", f"{unseen}Where is the o{unseen}ld well{unseen}"
    one, other = documents([{"text": plain}, {"text": odd}])
    assert (one["doc_id"], one["content_id"]) == (other["doc_id"], other["content_id"])
    assert (one["text"], other["text"]) == (plain, odd)
    chats = [[{"role": "user", "content": said}] for said in (plain, odd)]
    one, other = documents([{"m": chat} for chat in chats], columns={"messages": "m"})
    assert (one["doc_id"], one["content_id"]) == (other["doc_id"], other["content_id"])
    assert [row["messages"][0]["content"] for row in (one, other)] == [plain, odd]


@pytest.mark.parametrize("text", ["می\u200cخواهم", "ශ්\u200dරී", "👩\u200d🔬 ❤\ufe0f", "co\u00adop"])
def test_characters_that_nobody_sees_stay_in_the_text(text: str) -> None:
    assert only([{"text": text}])["text"] == text


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("10⁵", "105"),
        ("x²", "x2"),
        ("½", "1⁄2"),
        ("ﬁne", "fine"),
        ("Ａ", "A"),
        ("①", "1"),
        ("ﻛ", "ك"),
        ("ｶ", "カ"),
        ("کتاب", "كتاب"),
        ("ـ", "ـــ"),
        ("Case", "case"),
        ("well", "well."),
        ("\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e007f", "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e007f"),
    ],
)
def test_forms_that_readers_tell_apart_are_two_documents(one: str, other: str) -> None:
    here, there = documents([{"text": one}, {"text": other}])
    assert here["content_id"] != there["content_id"]
    assert here["doc_id"] != there["doc_id"]


@pytest.mark.parametrize(
    ("text", "length"), [("a\u200bb", 2), ("\u200b a \u200b", 1), ("ab\n\ncd", 6), ("\u00adé\u200c\u0301", 2)]
)
def test_lengths_are_bounded_by_the_characters_that_are_seen(text: str, length: int) -> None:
    bounds = {"min_characters": length, "max_characters": length}
    assert only([{"text": text}], **bounds)["reject"] is None
    reject = only([{"text": text}], min_characters=length + 1)["reject"]
    assert reject["reason"] == "too_short"
    assert reject["message"] == f"{length} characters, below min_characters = {length + 1}"


def test_who_says_what_is_part_of_the_content() -> None:
    chats = [[("user", "a")], [("assistant", "a")], [("user", "a b")], [("user", "a"), ("user", "b")]]
    assert len({text_hash("a"), *(chat_hash(*chat) for chat in chats)}) == 5


def test_the_document_id_depends_on_role_target_language_language_and_content_and_nothing_else() -> None:
    ids = {
        hashes.doc_ids(role, [target_lang], [lang], [content])[0]
        for role, target_lang in (("pool", None), ("usage", "en"), ("usage", "de"), ("current", "en"))
        for lang in ("en", "de")
        for content in (b"1" * 16, b"2" * 16)
    }
    assert len(ids) == 16
    here, there = (only([{"text": "a"}], uri=uri)["doc_id"] for uri in ("f.jsonl", "g.jsonl"))
    assert here == there
    assert len(here) == 16


@pytest.mark.parametrize(
    ("row", "source", "doc_id", "content_id"),
    PINNED,
)
def test_ids_are_those_of_every_run_before(
    row: dict[str, Any], source: dict[str, Any], doc_id: str, content_id: str
) -> None:
    document = only([row], **source)
    assert (document["doc_id"].hex(), document["content_id"].hex()) == (doc_id, content_id)


def test_the_shard_is_a_function_of_the_content_for_every_role() -> None:
    texts = [{"text": f"text {index}"} for index in range(200)]
    pool, usage = (documents(texts, role=role, n_shards=16) for role in ("pool", "usage"))
    assert [row["shard"] for row in pool] == [row["shard"] for row in usage]
    assert {row["shard"] for row in pool} == set(range(16))
    ids = records.numpy_to_ids(np.array([list(row["content_id"]) for row in pool], dtype="uint8"))
    assert shards.shard_of(records.ids_to_numpy(ids), 16).tolist() == [row["shard"] for row in pool]


def test_a_document_says_where_it_is_from() -> None:
    first, second = documents([{"text": "a"}, {"text": "b"}], uri="sub/f.jsonl")
    assert (first["source"], first["uri"], first["row"], second["row"]) == ("src", "sub/f.jsonl", 0, 10)


# --- target language --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("role", "given", "target_lang"),
    [
        ("pool", None, None),
        ("usage", None, "fr"),
        ("current", None, "fr"),
        ("usage", "de", "de"),
        ("current", "deu", "de"),
    ],
)
def test_rows_count_for_their_target_language_their_own_language_by_default_and_pool_rows_for_none(
    role: str, given: str | None, target_lang: str | None
) -> None:
    document = only([{"text": "a"}], role=role, lang="fra", target_lang=given or None)
    assert (document["role"], document["target_lang"], document["lang"]) == (role, target_lang, "fr")


# --- language -----------------------------------------------------------------------------------


def test_the_language_column_is_read_row_by_row_and_kept_as_found() -> None:
    codes = ["zho_Hans", "pt_BR", "eng", " de ", "zh-TW"]
    found = documents([{"text": "a", "l": code} for code in codes], columns={"text": "text", "lang": "l"})
    assert [row["lang"] for row in found] == ["zh", "pt", "en", "de", "zh-Hant"]
    assert [row["source_lang"] for row in found] == ["zho_Hans", "pt_BR", "eng", "de", "zh-TW"]


def test_codes_that_only_this_source_uses_are_mapped() -> None:
    codes = ["North Macedonian", "de", "Norwegian Bokmål"]
    columns = {"text": "text", "lang": "l"}
    found = documents([{"text": "a", "l": code} for code in codes], columns=columns, lang_map={codes[0]: "mkd"})
    assert [row["lang"] for row in found] == ["mk", "de", "no"]
    assert found[0]["source_lang"] == "North Macedonian"


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
        ({"lang_pattern": "(?P<lang>[f-g])"}, {}, "language_unknown", "'f' is no known"),
        ({"lang_pattern": "f|(?P<lang>z)"}, {}, "language_unknown", "found none by f|(?P<lang>z)"),
        ({"columns": {"text": "text", "lang": "l"}}, {"l": "qqqq-"}, "language_unknown", "'qqqq-' is no known"),
        ({"columns": {"text": "text", "lang": "l"}}, {"l": ""}, "language_unknown", "found none by l"),
        ({"columns": {"text": "text", "lang": "l"}}, {"l": "und"}, "language_unknown", "'und' is no known"),
        (
            {"columns": {"text": "text", "lang": "l"}},
            {"l": 3},
            "wrong_type",
            'l: expected text, found int; "{l}" takes it as text',
        ),
        ({"columns": {"text": "text", "lang": "l"}}, {}, "missing_column", "the row has no l"),
    ],
)
def test_a_row_without_a_known_language_is_refused(
    source: dict[str, Any], row: dict[str, Any], reason: str, message: str
) -> None:
    reject = only([{"text": "a", **row}], **source)["reject"]
    assert reject["reason"] == reason
    assert message in reject["message"]


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
    assert said(document) == CHAT


def test_the_view_changes_what_is_embedded_and_not_which_document_it_is() -> None:
    ids = {
        only([{"m": CHAT}], columns={"messages": "m"}, view=view)["doc_id"] for view in ("prompt", "completion", "full")
    }
    assert len(ids) == 1


def embedded(roles: str, view: Any) -> str:
    """The turns of one conversation that are embedded, a letter each: ``u`` is a user's, ``a`` an answer."""
    starts, said = np.array([0, len(roles)]), np.array([{"u": "user", "a": "assistant"}[role] for role in roles])
    return "".join(np.array(list(roles))[view_of(starts, said, view)])


@pytest.mark.parametrize(
    ("roles", "prompt", "completion"),
    [("uu", "uu", ""), ("uau", "u", "a"), ("uaua", "uau", "a"), ("a", "", "a"), ("", "", "")],
)
def test_a_conversation_is_cut_at_its_last_answer(roles: str, prompt: str, completion: str) -> None:
    assert (embedded(roles, "prompt"), embedded(roles, "completion"), embedded(roles, "full")) == (
        prompt,
        completion,
        roles,
    )


def test_each_conversation_of_a_batch_is_cut_by_itself() -> None:
    rows = [{"m": CHAT[:length]} for length in (2, 3, 5)] + [{"m": []}, {"m": CHAT[1:2]}]
    found = documents(rows, columns={"messages": "m"})
    assert [row["text"] for row in found] == ["S\nU1", "S\nU1", "S\nU1\nA1\nU2", None, "U1"]
    assert [said(row) for row in found] == [CHAT[:2], CHAT[:3], CHAT, None, CHAT[1:2]]


@pytest.mark.parametrize(("view", "text"), [("prompt", "Q"), ("completion", "A"), ("full", "Q\nA")])
def test_prompt_and_completion_become_a_conversation(view: Any, text: str) -> None:
    document = only(
        [{"inputs": " Q ", "targets": "A\r\n"}], columns={"prompt": "inputs", "completion": "targets"}, view=view
    )
    assert said(document) == [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
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
    assert (reject["reason"], reject["message"]) == ("empty", "ingest.view 'completion' leaves nothing to embed")


@pytest.mark.parametrize(
    ("value", "reason", "message"),
    [
        ("hello", "wrong_type", "m: expected a list of messages or its JSON, found 'hello' (Expecting value: line 1"),
        ("7", "wrong_type", "m: expected a list of messages, found int"),
        ([], "wrong_type", "m: expected a list of messages, found an empty list"),
        (None, "wrong_type", "m: expected a list of messages, found NoneType"),
        ({"a": 1}, "wrong_type", "m: expected a list of messages, found dict"),
        (["hello"], "wrong_type", "m: message 0: expected an object with a role, found str"),
        ([{"content": "a"}], "wrong_type", "m: message 0: has no role (role or from), only content"),
        (
            [CHAT[1], {"role": "boss", "content": "a"}],
            "wrong_type",
            "m: message 1: the role 'boss' is not known; expected assistant, system, tool or user",
        ),
        ([{"role": ["user"], "content": "a"}], "wrong_type", "m: message 0: the role ['user'] is not known"),
        ([{"role": {}, "content": "a"}], "wrong_type", "m: message 0: has no role (role or from), only role, content"),
        (
            [{"role": "user", "said": "a"}],
            "missing_column",
            "m: message 0: has no content (content, value, text), only role, said",
        ),
        ([CHAT[1], {"role": "assistant", "content": None}], "empty", "m: message 1: assistant says nothing"),
        (
            [{"role": "user", "content": [{"type": "text"}]}],
            "wrong_type",
            "m: message 0: content: a part of type text has no text",
        ),
        ([CHAT[1], {"role": "assistant", "content": " \n"}], "empty", "assistant says nothing"),
    ],
)
def test_a_broken_conversation_is_refused_with_a_reason(value: Any, reason: str, message: str) -> None:
    reject = only([{"m": value}], columns={"messages": "m"})["reject"]
    assert reject["reason"] == reason
    assert reject["message"].startswith(message)


# --- rejects ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "reason", "message"),
    [
        ({"text": " \n"}, "empty", "text is empty"),
        ({"text": None}, "empty", "text is null"),
        ({"text": 3}, "wrong_type", 'text: expected text, found int; "{text}" takes it as text'),
        ({"text": 2.5}, "wrong_type", 'text: expected text, found float; "{text}" takes it as text'),
        ({"text": ["a"]}, "wrong_type", 'text: expected text, found list; "{text.*}" takes its items, a line each'),
        ({"text": {"a": "b"}}, "wrong_type", "text: expected text, found dict"),
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


def test_batches_of_faults_alone_and_of_rows_that_where_leaves_out_alone_have_no_documents() -> None:
    conditions = {"split": ["train"], "text": ["b"]}
    table = to_documents(
        RawBatch(faults=[Fault(None, "truncated_file", "no")]),
        "src",
        SourceConfig(role="pool", path="x", lang="en", where=conditions),
        "f",
        "prompt",
        4,
    )
    assert [row["reject"]["reason"] for row in table.to_pylist()] == ["truncated_file"]
    [row] = documents([{"text": "a", "split": "dev"}], where=conditions)
    assert row["reject"]["reason"] == "filtered"


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
    question = only([{"text": "How deep is it?"}])
    chat = only([{"p": "How  deep is it?", "c": "Very."}], columns={"prompt": "p", "completion": "c"})
    assert chat["content_id"] == question["content_id"]
    assert chat["doc_id"] != question["doc_id"]


# --- dates --------------------------------------------------------------------------------------


def dated(**bounds: str) -> list[tuple[str | None, str | None]]:
    """Which of four rows stay, and why the others do not."""
    rows = [
        {"text": text, "at": at}
        for text, at in zip("abcd", ("2026-01-31", "2026-02-01", "2026-03-01", None), strict=True)
    ]
    fields = {"columns": {"text": "text", "timestamp": "at"}, "lang": "sw", **bounds}
    return [(row["text"], row["reject"] and row["reject"]["reason"]) for row in documents(rows, **fields)]


def test_rows_are_read_from_one_moment_up_to_another_and_the_others_are_counted() -> None:
    found = dated(since="2026-02-01T00:00:00Z", until="2026-03-01T00:00:00Z")
    assert [text for text, reason in found if reason is None] == ["b"]
    assert [reason for _, reason in found if reason] == ["outside_dates"] * 3
    assert [text for text, reason in dated(since="2026-02-01T00:00:00+02:00") if reason is None] == ["b", "c"]
    assert [text for text, reason in dated() if reason is None] == ["a", "b", "c", "d"], (
        "undated rows stay without bounds"
    )


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"columns": {"text": "text"}, "since": "2026-02-01T00:00:00Z"},
            r"since goes by timestamps: name their column",
        ),
        (
            {"since": "2026-02-01T00:00:00Z", "until": "2026-02-01T00:00:00Z"},
            r"since 2026-02-01 .* is not before until 2026-02-01",
        ),
        ({"since": "2026-02-01T00:00:00"}, r"timezone"),
    ],
)
def test_bounds_that_cannot_be_are_refused(fields: dict[str, Any], message: str) -> None:
    raw = {"role": "usage", "path": "x", "lang": "sw", "columns": {"text": "text", "timestamp": "at"}}
    with pytest.raises(ValueError, match=message):
        SourceConfig(**(raw | fields))
