"""From fields to documents: lengths and cleaning."""

from __future__ import annotations

import pyarrow as pa
from documents import documents, only
from hypothesis import example, given, settings
from hypothesis import strategies as st

from compass_ray.ingest.cleaning import clean, key_of, normalize
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
    assert cleaned.to_pylist() == [normalize(text) for text in texts]
    assert keys == [key_of(normalize(text)).encode() for text in texts]
    assert characters.tolist() == [len(seen(normalize(text)).strip()) for text in texts]


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


# --- lengths ------------------------------------------------------------------------------------


def test_content_outside_the_bounds_is_filtered_by_characters_of_all_turns() -> None:
    bounds = {"min_characters": 3, "max_characters": 5}
    found = documents([{"text": text} for text in ("漢字", "漢字漢", "abcde", "abcdef")], **bounds)
    assert [row["reject"] and row["reject"]["reason"] for row in found] == ["too_short", None, None, "too_long"]
    assert found[3]["reject"]["message"] == "6 characters, above max_characters = 5"
    pair = only([{"p": "ab", "c": "c"}], columns={"prompt": "p", "completion": "c"}, **bounds)
    assert pair["reject"] is None
