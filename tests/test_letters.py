"""What a reader sees of a text, and which characters are spellings of one."""

from __future__ import annotations

import unicodedata

import pyarrow as pa
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from compass_ray.letters import HIDING, all_seen, folding, seen

EVERYTHING = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
FLAGS = [f"\U0001f3f4{''.join(chr(0xE0000 + ord(c)) for c in code)}\U000e007f" for code in ("gbeng", "gbsct")]

hiding = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"]),
        st.sampled_from("\u00ad\u034f\u200b\u200c\u200d\u2800\ufe0f\ufeff\U0001f3f4\U000e0067\U000e0062\U000e007f"),
    ),
    max_size=12,
)


def test_unseen_are_ignorable_and_format_characters_but_those_with_a_shape() -> None:
    by_property = regex.compile(r"(?V1)[\p{Default_Ignorable_Code_Point}\p{Cf}--\p{Prepended_Concatenation_Mark}]")
    listed = regex.compile(f"[{HIDING}]")
    expected = {one for one in EVERYTHING if by_property.match(one)} | {"\u2800", "\U0001d159"}
    assert {one for one in EVERYTHING if listed.match(one)} == expected


@pytest.mark.parametrize("sign", ["\u0600", "\u06dd", "\u070f", "\u08e2"])
def test_signs_around_numbers_and_verses_are_seen(sign: str) -> None:
    assert unicodedata.category(sign) == "Cf"
    assert seen(f"a{sign}b") == f"a{sign}b"


@settings(deadline=None)
@given(st.lists(hiding, max_size=6))
def test_many_texts_are_seen_as_each_of_them(texts: list[str]) -> None:
    assert all_seen(pa.array(texts, pa.string())).to_pylist() == [seen(text) for text in texts]


@settings(deadline=None)
@given(hiding)
def test_nothing_is_left_to_drop_of_what_is_seen(text: str) -> None:
    assert seen(seen(text)) == seen(text)


def test_flags_that_are_spelled_with_tags_stay_apart_and_other_tags_go() -> None:
    england, scotland = FLAGS
    assert (seen(england), seen(scotland)) == (england, scotland)
    assert seen("a\U000e0067\U000e007fb") == "ab"
    assert seen("\U0001f3f4\U000e0067") == "\U0001f3f4"


@pytest.mark.parametrize("marks", [False, True])
def test_what_a_character_is_folded_to_is_folded(marks: bool) -> None:
    folds = folding(vowel_marks=marks)
    for character, spelled in folds.items():
        assert not set(spelled) & folds.keys(), hex(ord(character))
        assert unicodedata.is_normalized("NFC", spelled), hex(ord(character))


def test_compatibility_forms_and_cases_are_all_folded() -> None:
    folds = folding()
    for character in EVERYTHING:
        if not unicodedata.is_normalized("NFC", character):
            continue  # never in a text
        compatible = unicodedata.normalize("NFKC", character).casefold()
        if unicodedata.normalize("NFC", compatible) != character:
            assert character in folds, hex(ord(character))


def test_letters_that_differ_to_readers_are_no_spellings_of_one() -> None:
    folds = folding()
    apart = "ىيےہھةهأاإآؤوئەڪكەѕsıiçcñnåaøođdґгёеіијйשׂש가各カか"
    distinct = {folds.get(letter, letter) for letter in set(apart)}
    merged = {"ہ", "ه"}, {"ׂ"}  # heh and its Urdu form are one; the dot of sin is niqqud
    assert len(distinct) == len(set(apart)) - sum(len(one) - 1 for one in merged)
