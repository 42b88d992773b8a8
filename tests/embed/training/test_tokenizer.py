"""One alphabet for most scripts, and pieces that are the same each time they are learnt."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import Metaspace

from compass_ray.embed.training.tokenizer import (
    SPACE,
    UNKNOWN,
    keep_pieces,
    latin_letters,
    normalizer,
    token_ids,
    train_tokenizer,
)

TEXTS = [
    *("the cats and the dogs walked", "the cat and the dog walk", "a dog walking to a cat", "cats walk to dogs") * 3,
    *("猫 と 犬", "고양이 와 개", "кошки и собаки", "кошка и собака"),
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS, 100, 8)


def vocabulary(tokenizer: Tokenizer) -> list[tuple[str, float]]:
    return [(piece, score) for piece, score in json.loads(tokenizer.to_str())["model"]["vocab"]]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Москва", "moskva"),
        ("Ελλάδα", "ellada"),
        ("हिन्दी", "hindi"),
        ("Tiếng Việt", "tieng viet"),
        ("Yorùbá ọ̀nà", "yoruba ona"),
        ("Straße", "strasse"),
        ("ქართული", "kartuli"),
        ("مُحَمَّد", "محمد"),
        ("שָׁלוֹם", "שלום"),
        ("漢字 カナ ひらがな", "漢字 カナ ひらがな"),
        ("한국어", "한국어"),
        ("ｶﾞ", "ガ"),
        ("१२३ ٣٤٥ ۴۵۶ ５ ௧", "123 345 456 5 1"),
        ("ﬁN É e\u0301", "fin e e"),
        ("😀 a, b!", "😀 a, b!"),
        ("", ""),
    ],
)
def test_letters_become_latin_ones_but_for_scripts_that_would_lose_by_it(text: str, expected: str) -> None:
    assert normalizer().normalize_str(text) == expected


def test_one_word_in_many_scripts_is_spelt_alike() -> None:
    spelt = {normalizer().normalize_str(text) for text in ("Kanada", "Канада", "Κανάδα", "KANADA")}
    assert spelt == {"kanada"}


def test_no_letter_becomes_one_that_would_be_changed_again() -> None:
    table = latin_letters()
    assert len(table) > 5000
    assert not {letter for latin in table.values() for letter in latin} & set(table)


def test_normalised_text_stays_as_it_is() -> None:
    rules = normalizer()
    for text in TEXTS:
        once = rules.normalize_str(text)
        assert rules.normalize_str(once) == once


def test_the_same_texts_give_the_same_pieces_and_scores_in_the_same_order(tokenizer: Tokenizer) -> None:
    for _ in range(4):  # the trainer's hash tables are seeded anew each time
        assert train_tokenizer(TEXTS, 100, 8).to_str() == tokenizer.to_str()


def test_pieces_are_ordered_by_falling_score_after_the_unknown_one(tokenizer: Tokenizer) -> None:
    unknown, *pieces = vocabulary(tokenizer)
    assert unknown == (UNKNOWN, 0.0)
    assert pieces == sorted(pieces, key=lambda row: (-row[1], row[0]))
    assert tokenizer.token_to_id(UNKNOWN) == 0


def test_every_character_of_the_texts_is_a_piece_and_the_rarest_score_lowest(tokenizer: Tokenizer) -> None:
    scores = dict(vocabulary(tokenizer))
    letters = {letter for text in TEXTS for letter in normalizer().normalize_str(text)} - {" "}
    assert letters <= set(scores)
    lowest = min(scores.values())
    assert {scores[letter] for letter in "猫と犬"} == {lowest}


def test_pieces_are_no_longer_than_asked_and_no_more(tokenizer: Tokenizer) -> None:
    pieces = [piece for piece, _ in vocabulary(tokenizer)]
    assert len(pieces) <= 100
    assert max(len(piece) for piece in pieces if piece != UNKNOWN) == 6  # ▁koshk, found in two words
    short = train_tokenizer(TEXTS, 100, 2)
    assert max(len(piece) for piece, _ in vocabulary(short) if piece != UNKNOWN) == 2


def test_whole_texts_have_the_pieces_of_their_words(tokenizer: Tokenizer) -> None:
    assert not any(SPACE in piece[1:] for piece, _ in vocabulary(tokenizer))
    by_word = Tokenizer.from_str(tokenizer.to_str())
    by_word.pre_tokenizer = Metaspace()
    for text in [*TEXTS, "", " ", "  the   cats ", "dogs\tand\ncats", "кошки と the 개", "xyz"]:
        assert tokenizer.encode(text).tokens == by_word.encode(text).tokens


def test_token_ids_leave_out_what_is_unknown(tokenizer: Tokenizer) -> None:
    ids = token_ids(tokenizer, ["cat", "cat 😀😀", "😀", "", "CÁT"])
    assert ids[0].dtype == np.int32
    pieces = [[tokenizer.id_to_token(number) for number in row] for row in ids]
    assert "".join(pieces[0]) == "▁cat"
    assert pieces[1][: len(pieces[0])] == pieces[0]
    assert UNKNOWN not in pieces[1]
    assert set(pieces[2]) <= {"▁"}  # the mark of a space is all that is left
    assert pieces[3] == []
    assert pieces[4] == pieces[0]


def test_kept_pieces_are_renumbered_in_order_with_their_scores(tokenizer: Tokenizer) -> None:
    before = vocabulary(tokenizer)
    kept = np.array([number % 3 != 1 or len(piece) == 1 for number, (piece, _) in enumerate(before)])
    assert 0 < kept.sum() < len(kept)
    small = keep_pieces(tokenizer, kept)
    assert vocabulary(small) == [row for row, keep in zip(before, kept, strict=True) if keep]
    assert [small.id_to_token(number) for number in range(small.get_vocab_size())] == [p for p, _ in vocabulary(small)]
    [ids] = token_ids(small, ["the cats walked"])
    assert "".join(small.id_to_token(number) for number in ids) == "▁the▁cats▁walked"
