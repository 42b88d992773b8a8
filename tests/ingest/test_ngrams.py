"""Hashed n-grams agree with tuples of tokens, and a text's do not depend on what it is read with."""

from __future__ import annotations

import numpy as np
import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st

from compass_ray.ingest import ngrams
from compass_ray.ingest.ngrams import Lengths, ngram_hashes

_CHARACTERS, _LETTERS = (
    "".join(rf"\p{{scx={name}}}" for name in names.split()) for names in ("Han Hira Kana", "Thai Laoo Khmr Mymr Tibt")
)
_CHARACTER = rf"[[{_CHARACTERS}{_LETTERS}]&&[\w--\p{{M}}]]"
_TOKEN = regex.compile(rf"(?V1){_CHARACTER}\p{{M}}*|[\w--\p{{M}}][[\w||\p{{M}}]--{_CHARACTER}]*")
_UNSPACED = [regex.compile(f"[{scripts}]") for scripts in (_CHARACTERS, _LETTERS)]

PARTS = [
    "a",
    "B",
    "Café",
    "ß",
    "e\u0301\u0323",
    "हिन्दी",
    "한국",
    "2020",
    "中",
    "国",
    "コー",
    "ヒ",
    "ที่",
    "ก็",
    "བོད",
    "ລາວ",
]
texts_of_parts = st.lists(
    st.tuples(st.sampled_from(PARTS), st.sampled_from(["", " ", ", ", "-", "。", "་", " \u0301"])), max_size=14
).map(lambda pairs: "".join(part + gap for part, gap in pairs))


def length_of(tokens: list[str], lengths: Lengths) -> int:
    characters, letters = (2 * sum(bool(of.match(token)) for token in tokens) >= len(tokens) for of in _UNSPACED)
    return lengths.letters if letters else lengths.characters if characters else lengths.words


def tuples_of(text: str, lengths: Lengths) -> list[tuple[str, ...]]:
    """The n-grams by definition."""
    tokens = _TOKEN.findall(text.casefold())
    found = [
        tuple(tokens[start : start + length])
        for length in set(lengths)
        for start in range(len(tokens) - length + 1)
        if length_of(tokens[start : start + length], lengths) == length
    ]
    return found or ([tuple(tokens)] if tokens and 2 * len(tokens) >= length_of(tokens, lengths) else [])


@settings(deadline=None)
@given(st.lists(texts_of_parts, max_size=6), st.builds(Lengths, *[st.integers(1, 5)] * 3))
def test_two_texts_share_a_hash_for_each_tuple_of_tokens_they_share(texts: list[str], lengths: Lengths) -> None:
    hashes, target_langs = ngram_hashes(texts, lengths)
    expected = [tuples_of(text, lengths) for text in texts]
    assert np.bincount(target_langs, minlength=len(texts)).tolist() == [len(tuples) for tuples in expected]
    for one in range(len(texts)):
        for other in range(len(texts)):
            shared = set(hashes[target_langs == one].tolist()) & set(hashes[target_langs == other].tolist())
            assert len(shared) == len(set(expected[one]) & set(expected[other]))


@settings(deadline=None)
@given(st.lists(texts_of_parts, max_size=8))
def test_what_a_text_gives_does_not_depend_on_the_others(texts: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:  # so that texts are cut, and blocks hold one or several
        patch.setattr(ngrams, "BLOCK", 24)
        patch.setattr(ngrams, "_OVERLAP", 8)
        hashes, target_langs = ngram_hashes(texts, Lengths(3, 3, 4))
        for index, text in enumerate(texts):
            alone, _ = ngram_hashes([text], Lengths(3, 3, 4))
            assert sorted(alone.tolist()) == sorted(hashes[target_langs == index].tolist())


@pytest.mark.parametrize("start", [0, 500_000, 524_270, 600_000])
def test_a_passage_is_found_anywhere_in_a_text_longer_than_a_block(start: int) -> None:
    passage = " ".join(f"word{number}" for number in range(13))
    [wanted] = ngram_hashes([passage], Lengths())[0]
    long = "x " * (start // 2) + passage + " y" * 300_000
    hashes, target_langs = ngram_hashes(["", long], Lengths())
    assert wanted in hashes
    assert set(target_langs.tolist()) == {1}


def test_60000_ngrams_over_few_words_have_as_many_hashes() -> None:
    draw = np.random.default_rng(0).integers(0, 3, (61, 1000)).astype(np.uint8)
    hashes, _ = ngram_hashes([" ".join(map(str, row)) for row in draw.tolist()], Lengths())
    windows = np.lib.stride_tricks.sliding_window_view(draw, 13, axis=1).reshape(-1, 13)
    assert len(hashes) == len(windows)
    assert len(np.unique(hashes)) == len(np.unique(windows.astype(np.int64) @ 3 ** np.arange(13)))
