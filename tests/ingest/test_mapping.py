"""From fields to documents: templates, timestamps, chats of every kind, detection, lengths, cleaning."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from test_documents import documents, only

from compass_ray.ingest.cleaning import clean, key_of, normalise
from compass_ray.ingest.config import Columns
from compass_ray.ingest.timestamps import parse_timestamp, timestamps
from compass_ray.letters import seen

# --- cleaning -----------------------------------------------------------------------------------

tricky = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"]),
        st.sampled_from(
            "\u0301\u0323\u093c\u1100\u1161\u11a8\uac00\u2126\u212b\u0958 \t\r\n\x00\x1b\x1f\x85\u2028\u3000é"
            "\u00ad\u034f\u200b\u200d\u2800\ufe0f\ufeff\U0001f3f4\U000e0067\U000e007f"
        ),
    ),
    max_size=12,
)


def assert_cleaned_alike(texts: list[str]) -> None:
    cleaned, keys, characters = clean(pa.array(texts, pa.string()))
    assert cleaned.to_pylist() == [normalise(text) for text in texts]
    assert keys == [key_of(normalise(text)).encode() for text in texts]
    assert characters.tolist() == [len(seen(normalise(text)).strip()) for text in texts]


@settings(deadline=None)
@given(st.lists(tricky, min_size=1, max_size=6))
@example(["e\u0301\u0323", "\u1100\u1161", "a  b", "\x00", "\u0344", "\u0f71\u0f72\u0f74"])
def test_cleaning_a_batch_is_cleaning_each_text(texts: list[str]) -> None:
    assert_cleaned_alike(texts)


def test_no_character_is_cleaned_differently_in_a_batch() -> None:
    letters = [chr(code) for code in [*range(0x30000), *range(0xE0000, 0xE1000)] if not 0xD800 <= code < 0xE000]
    for before, after in (("", ""), ("a", "b"), ("a\u0301", ""), ("\u1100", "\u11a8"), ("e\u200c", "\u00ad\u0301")):
        texts = [before + letter + after for letter in letters]
        assert_cleaned_alike(texts)


def test_control_characters_are_removed_and_white_space_is_not() -> None:
    assert only([{"text": "a\x00\x1b[1m\tb\x7f\n\x9fc\x0c"}])["text"] == "a[1m\tb\nc"


def test_mojibake_is_left_alone() -> None:
    assert only([{"text": "cafÃ© â€™"}])["text"] == "cafÃ© â€™"


# --- templates ----------------------------------------------------------------------------------


def test_a_template_joins_fields_and_braces_are_doubled() -> None:
    row = {"title": "T", "q": {"stem": "S"}, "n": 3, "ok": True, "x": None}
    columns = {"text": "{title}: {{{q.stem}}} {n} {ok}{x}"}
    found = documents([{**row, "q.stem": "S"}], columns=columns)
    assert found[0]["text"] == "T: {S} 3 true"


def test_a_template_serves_prompts_and_completions_too() -> None:
    document = only([{"i": "Add", "x": "1 2", "a": "3"}], columns={"prompt": "{i}: {x}", "completion": "= {a}"})
    assert [turn["content"] for turn in document["messages"]] == ["Add: 1 2", "= 3"]


@pytest.mark.parametrize(
    ("row", "reason", "message"),
    [
        ({"a": "x"}, "missing_column", "the row has no b"),
        ({"a": "x", "b": ["y"]}, "wrong_type", "b: expected text, found list"),
        ({"a": " ", "b": None}, "empty", "{a}{b} is empty"),
    ],
)
def test_a_row_that_a_template_cannot_be_filled_from_is_refused(row: dict[str, Any], reason: str, message: str) -> None:
    reject = only([row], columns={"text": "{a}{b}"})["reject"]
    assert (reject["reason"], reject["message"]) == (reason, message)


@pytest.mark.parametrize("template", ["{a", "a}", "{}", "{a!r}", "{a:>9}", "{a:{b}}", "{{a}}"])
def test_templates_hold_names_and_no_code(template: str) -> None:
    with pytest.raises(ValidationError, match=r"text\n"):
        Columns(text=template)


def test_only_content_may_be_a_template() -> None:
    with pytest.raises(ValidationError, match="templates are for text, prompt and completion"):
        Columns(text="t", lang="{a}")


# --- timestamps ---------------------------------------------------------------------------------

LEAP = datetime(2024, 2, 29, 12, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    "notation",
    [
        "2024-02-29T12:30:00Z",
        "2024-02-29 12:30",
        "2024-02-29T18:00:00+05:30",
        "20240229T123000Z",
        "Thu, 29 Feb 2024 12:30:00 GMT",
        "Thu, 29 Feb 2024 07:30:00 -0500",
        "1709209800",
        1709209800,
        1709209800.0,
        1709209800000,
        "1709209800000000",
        1709209800000000000,
        LEAP,
    ],
)
def test_all_notations_of_one_moment_are_one_timestamp(notation: Any) -> None:
    found = only([{"text": "a", "t": notation}], columns={"text": "text", "timestamp": "t"})
    assert found["timestamp"] == LEAP


@pytest.mark.parametrize("notation", ["2024-02-29", "20240229", date(2024, 2, 29), 1709164800])
def test_a_day_is_its_first_moment(notation: Any) -> None:
    assert parse_timestamp(notation) == 1709164800 * 10**6


@pytest.mark.parametrize(
    "value", ["yesterday", "2024-13-01", True, [1], {}, float("nan"), 1e25, "inf", "99999999999-01-01"]
)
def test_what_is_no_time_is_refused(value: Any) -> None:
    reject = only([{"text": "a", "t": value}], columns={"text": "text", "timestamp": "t"})["reject"]
    assert reject["reason"] == "bad_timestamp"
    assert reject["message"].startswith("t: expected ISO 8601, RFC 2822 or Unix time, found ")


def test_an_empty_time_is_none_and_an_absent_one_a_fault() -> None:
    columns = {"text": "text", "timestamp": "t"}
    found = documents([{"text": "a", "t": None}, {"text": "b", "t": " "}, {"text": "c"}], columns=columns)
    assert [row["timestamp"] for row in found] == [None] * 3
    assert [row["reject"] and row["reject"]["reason"] for row in found] == [None, None, "missing_column"]


moments = st.datetimes(datetime(1902, 1, 1), datetime(2200, 1, 1))


@given(st.lists(moments, min_size=1, max_size=5), st.sampled_from(["", "Z", "+05:30"]), st.booleans())
def test_a_column_of_one_notation_is_read_as_its_values_one_by_one(
    values: list[datetime], zone: str, whole_seconds: bool
) -> None:
    texts = [value.isoformat(timespec="seconds" if whole_seconds else "microseconds") + zone for value in values]
    column, bad = timestamps(texts)
    assert bad == []
    assert column.cast(pa.int64()).to_pylist() == [parse_timestamp(text) for text in texts]
    arrow, bad = timestamps(pa.array(texts, pa.string()))
    assert (arrow.equals(column), bad) == (True, [])


def test_times_of_typed_columns_are_kept() -> None:
    days, _ = timestamps(pa.array([date(2024, 2, 29), None]))
    zoned, _ = timestamps(pa.array([LEAP, None], pa.timestamp("ns", tz="Asia/Kolkata")))
    assert days.to_pylist() == [datetime(2024, 2, 29, tzinfo=UTC), None]
    assert zoned.to_pylist() == [LEAP, None]


# --- chats --------------------------------------------------------------------------------------


def test_sharegpt_and_openai_chats_that_say_the_same_are_one_document() -> None:
    openai = [{"role": "developer", "content": "S"}, {"role": "user", "content": [{"type": "text", "text": "Q"}]}]
    openai += [{"role": "assistant", "content": "A"}]
    sharegpt = [{"from": "system", "value": "S"}, {"from": "human", "value": "Q"}, {"from": "GPT", "value": "A"}]
    found = documents([{"m": openai}, {"m": sharegpt}, {"m": [sharegpt]}], columns={"messages": "m"})
    assert len({row["doc_id"] for row in found}) == 1
    assert [turn["role"] for turn in found[0]["messages"]] == ["system", "user", "assistant"]


def test_a_picture_is_not_text() -> None:
    content = [{"type": "text", "text": "Q"}, {"type": "image_url", "image_url": {}}]
    reject = only([{"m": [{"role": "user", "content": content}]}], columns={"messages": "m"})["reject"]
    assert (reject["reason"], reject["message"]) == ("wrong_type", "content: expected text, found list")


# --- detection ----------------------------------------------------------------------------------


def test_a_language_is_told_from_the_text_above_a_floor_of_confidence() -> None:
    texts = ["Habari ya asubuhi, unaendeleaje leo?", "これは日本語の文章です", "12345"]
    found = documents([{"text": text} for text in texts], lang="detect", min_confidence=0.9)
    assert [row["lang"] for row in found] == ["sw", "ja", None]
    assert found[2]["reject"]["reason"] == "language_unknown"
    assert found[2]["reject"]["message"].endswith("below min_confidence = 0.9")


# --- lengths ------------------------------------------------------------------------------------


def test_content_outside_the_bounds_is_filtered_by_characters_of_all_turns() -> None:
    bounds = {"min_characters": 3, "max_characters": 5}
    found = documents([{"text": text} for text in ("漢字", "漢字漢", "abcde", "abcdef")], **bounds)
    assert [row["reject"] and row["reject"]["reason"] for row in found] == ["too_short", None, None, "too_long"]
    assert found[3]["reject"]["message"] == "6 characters, above max_characters = 5"
    pair = only([{"p": "ab", "c": "c"}], columns={"prompt": "p", "completion": "c"}, **bounds)
    assert pair["reject"] is None
