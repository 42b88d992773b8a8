"""Two texts have one hash if and only if they are the same words to a reader."""

from __future__ import annotations

import unicodedata

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from compass_ray import words
from compass_ray.letters import compositions, folding, marks
from compass_ray.words import folded, word_hashes

FOLDS = {vowel_marks: folding(vowel_marks=vowel_marks) for vowel_marks in (False, True)}
JOINING = sorted({*compositions()[1], *marks()})
tricky = st.text(
    st.one_of(
        st.characters(exclude_categories=["Cs"]),
        st.sampled_from(sorted(FOLDS[False])),
        st.sampled_from(JOINING).map(chr),
        st.sampled_from("aES한ㅏᄀカｶيیه"),
    ),
    max_size=8,
).map(lambda text: unicodedata.normalize("NFC", text))


def hash_of(text: str) -> int | None:
    hashes, rows = word_hashes([unicodedata.normalize("NFC", text)])
    return int(hashes[0]) if len(rows) else None


@settings(deadline=None)
@given(tricky, st.booleans())
@example("E\u200c\u0301", False)
@example("\uff76\uff9e \u1100\u200b\u1161", False)
@example("\ufdfa\u0e33\u00bd\u00df", False)
@example("\u0647\u200c\u0655\u06cc\u0654", True)
def test_folding_is_nfc_of_what_the_characters_are(text: str, vowel_marks: bool) -> None:
    if "\n" in text:
        return
    characters = "".join(FOLDS[vowel_marks].get(one, one) for one in text if ord(one) <= 0xE1000)
    found = folded(text, vowel_marks=vowel_marks).tobytes().decode("utf-32-le")
    assert found.replace("\U000e1000", "") == unicodedata.normalize("NFC", characters).replace("\U000e1000", "")


@settings(deadline=None)
@given(st.lists(tricky, max_size=8))
def test_the_hash_of_a_text_does_not_depend_on_the_others(texts: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(words, "BLOCK", 9)  # blocks hold one text or several
        hashes, rows = word_hashes(texts)
        assert dict(zip(rows.tolist(), hashes.tolist(), strict=True)) == {
            row: found for row, text in enumerate(texts) if (found := hash_of(text)) is not None
        }


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Where is the well?", "where is the well"),
        ("Where is the well?", "  Where — is the “well”!\n"),
        ("cooperation", "co\u00adopera\u00adtion"),
        ("over\u200bflow", "overflow"),
        ("\ufeffWell", "Well\u2060"),
        ("Ｆｕｌｌ　ｗｉｄｔｈ　１２", "full width 12"),
        ("ﬁnd the ﬂower", "find the flower"),
        ("10⁵ m²", "105 m2"),
        ("ガギグ", "ｶﾞｷﾞｸﾞ"),
        ("كتاب", "ﻛﺘﺎﺏ"),
        ("سلام", "ﺳﻼﻡ"),
        ("العربية", "العـــربيـة"),
        ("نمی\u200cدانم", "نمیدانم"),
        ("کتاب من است", "كتاب من است"),
        ("می", "مي"),
        ("یٔ", "ئ"),
        ("ہم", "هم"),
        ("نامۀ من", "نامهٔ من"),
        ("ۃ", "ة"),
        ("كَتَبَ الوَلَدُ", "كتب الولد"),
        ("שָׁלוֹם", "שלום"),
        ("١٢٣", "123"),
        ("۱۲۳", "١٢٣"),
        ("१२३", "123"),
        ("învățător și", "învăţător şi"),
        ("ÎNVĂȚĂTOR ȘI", "învăţător şi"),
        ("м\u2019ята", "м\u02bcята"),
        ("Hawai\u02bbi", "Hawai'i"),
        ("അവൻ", "അവന്\u200d"),
        ("ৎসব", "ত্\u200dসব"),
        ("ශ්\u200dරී", "ශ්රී"),
        ("น้ำ", "น้\u200bํา"),
        ("e\u200c\u0301tude", "étude"),
        ("Straße", "STRASSE"),
        ("日本　語", "日本語"),
    ],
)
def test_spellings_of_the_same_words_have_one_hash(one: str, other: str) -> None:
    assert hash_of(one) == hash_of(other) is not None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("cannot", "can not"),
        ("1 05", "105"),
        ("10", "01"),
        ("على", "علي"),
        ("كرة", "كره"),
        ("ان", "أن"),
        ("ھم", "ہم"),
        ("year", "yeâr"),
        ("ı", "i"),
        ("か", "カ"),
        ("国", "國"),
        ("well well", "well"),
    ],
)
def test_other_words_have_another_hash(one: str, other: str) -> None:
    assert hash_of(one) != hash_of(other)


def test_vowel_marks_count_where_asked_for() -> None:
    one, other = (folded(text, vowel_marks=True).tolist() for text in ("كَتَبَ", "كتب"))
    assert one != other
    assert folded("كَتَبَ").tolist() == other


@pytest.mark.parametrize("text", ["", "?!", "\u200b", "👍", "\u0301", "—\u00a0…", "\u064b\u0640"])
def test_a_text_without_words_has_no_hash(text: str) -> None:
    assert hash_of(text) is None


def test_of_a_text_longer_than_a_block_its_beginning_counts() -> None:
    long = "word " * (words.BLOCK // 5 + 10)
    assert hash_of(long + "this") == hash_of(long + "that")
    assert hash_of("that " + long) != hash_of("this " + long)


def test_no_two_of_50000_sentences_share_a_hash() -> None:
    rng = np.random.default_rng(0)
    texts = sorted({" ".join(map(str, row)) for row in rng.integers(0, 9, (50_000, 9)).tolist()})
    assert len(np.unique(word_hashes(texts)[0])) == len(texts)
