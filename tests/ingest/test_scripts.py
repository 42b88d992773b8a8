"""The script of a text, and the scripts of languages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray.ingest.scripts import han_variant, script_of, scripts_written


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("Plain English", "Latn"),
        ("đường ơi", "Latn"),
        ("Наш дом", "Cyrl"),
        ("ᱥᱟᱱᱛᱟᱲᱤ", "Olck"),
        ("ⵜⴰⵎⴰⵣⵉⵖⵜ", "Tfng"),
        ("𞤆𞤵𞤤𞤢𞤪", "Adlm"),
        ("ߒߞߏ", "Nkoo"),
        ("ދިވެހި", "Thaa"),
        ("नमस्ते", "Deva"),
        ("हि", "Deva"),  # the vowel sign counts with its letter
        ("한국어", "Hang"),
        ("漢字", "Hani"),
        ("漢字かな", "Jpan"),
        ("カタカナ", "Jpan"),
        ("今天我们去吃日本料理店的の字招牌", "Hani"),  # one kana does not make it Japanese
        ("東京都立大学の研究", "Jpan"),
        ("Наш hotel", "Cyrl"),
        ("我们用 Python", "Hani"),  # twelve bytes beside six
        ("see 我们 for the whole story", "Latn"),
        ("١٢٣ house", "Latn"),  # digits count for nothing
        ("「ok」、。", "Latn"),  # punctuation neither
        ("12345", None),
        ("", None),
        (" \n\t", None),
        ("🙂 … — 50 %", None),
        ("ー", None),  # common to both kana
        ("\u0301", None),  # an accent on nothing
        ("\ue000\uffff\U0010ffff", None),
    ],
)
def test_a_text_is_in_the_script_of_most_of_its_letters(text: str, script: str | None) -> None:
    assert script_of(text) == script


@given(st.text(), st.text(st.sampled_from("0123456789 .,;!?()-–“”。、।\n\u200d\ufeff🙂")))
def test_what_is_no_letter_never_changes_the_script(text: str, beside: str) -> None:
    assert script_of(text + beside) == script_of(beside + text) == script_of(text)


@given(st.text(st.characters(categories=["L", "M"]), max_size=4), st.text(st.sampled_from("абв"), min_size=30))
def test_a_few_foreign_letters_do_not_change_the_script(foreign: str, text: str) -> None:
    assert script_of(text + foreign) == "Cyrl"


@pytest.mark.parametrize(
    ("text", "variant"),
    [
        ("这个国家", "Hans"),
        ("這個國家", "Hant"),
        ("这个国家和這個", "Hans"),
        ("日本人口", None),
        ("这這", None),
        ("абв ไทย ABC", None),  # in neither standard or in one, but not Han
        ("", None),
    ],
)
def test_simplified_and_traditional_are_told_apart_by_characters_that_only_one_of_them_has(
    text: str, variant: str | None
) -> None:
    assert han_variant(text) == variant


@pytest.mark.parametrize(
    ("language", "scripts"),
    [
        ("sr", {"Cyrl", "Latn"}),
        ("zh", {"Hans", "Hant"}),
        ("am", {"Ethi"}),
        ("hi", {"Deva"}),  # romanised Hindi is no way in which the detectors know it
        ("no", {"Latn"}),  # in CLDR by its main member
        ("ckb", {"Arab"}),
        ("crh", {"Cyrl", "Latn"}),
        ("tlh", set()),  # CLDR does not say
    ],
)
def test_the_scripts_in_which_languages_are_in_use(language: str, scripts: set[str]) -> None:
    assert scripts_written(language) == scripts
