"""Hashed n-grams of texts, to find copied passages: pure array functions.

What is compared is tokens (:mod:`compass_ray.words`): case, punctuation, white space and spellings of a letter are not
there. An n-gram is 13 words, or 13 tokens of which at least half are Chinese or Japanese characters, or 32 of which at
least half are Thai, Lao, Khmer, Burmese or Tibetan letters. So the script decides passage by passage: a Chinese
question is found in an English page, and "2020年3月" is not torn at its digits. Eight characters would not do: of 502
sentences of SIB-200, 457 in Thai and 122 in Japanese share eight with one of 502 others, by chance; of 32 and 13 it is
1 and 3.

A text that has no n-gram, because it is short, counts as one as a whole, if it has half as many tokens: it is found
where another text says the same and nothing else. What is shorter still has none.

Cost: 17 MB of text a second and core (33 languages of OLDI-Seed, measured on a shared one); memory some 25 MB beyond
texts and hashes, whatever their length. Two different n-grams collide with probability 2^-64: with a billion n-grams of
a pool and a million of evaluations, a row is wrongly found once in 20,000 runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from compass_ray.words import BLOCK, CHARACTER, LETTER, Hashes, Tokens, blocks, span_hashes, tokens_of

_OVERLAP = 1 << 12
"""A longer text is cut, at the same places wherever it is met; an n-gram within the overlap is not lost."""


class Lengths(NamedTuple):
    """Tokens of an n-gram, by script: see the module."""

    words: int = 13
    characters: int = 13  # Chinese, Japanese
    letters: int = 32  # Thai, Lao, Khmer, Burmese, Tibetan


def ngram_hashes(
    texts: Sequence[str], lengths: Lengths, *, vowel_marks: bool = False
) -> tuple[Hashes, NDArray[np.int64]]:
    """Hash the n-grams of all texts.

    Parameters
    ----------
    texts : sequence of str
        In NFC and without line breaks; see :func:`compass_ray.ingest.cleaning.key_of`.
    lengths : Lengths
    vowel_marks : bool, optional
        Whether Arabic harakat and Hebrew niqqud make a difference.

    Returns
    -------
    hashes : ndarray of shape (n_ngrams,), uint64
    target_langs : ndarray of shape (n_ngrams,), int64
        The text that each is of, ascending by block only. What a text gives does not depend on the others.
    """
    pieces = [
        (target_lang, text[start : start + BLOCK])
        for target_lang, text in enumerate(texts)
        for start in range(0, max(1, len(text) - _OVERLAP), BLOCK - _OVERLAP)
    ]
    target_lang_of = np.array([target_lang for target_lang, _ in pieces], dtype=np.int64)
    hashes, target_langs = [np.empty(0, dtype=np.uint64)], [np.empty(0, dtype=np.int64)]
    done = 0
    for block in blocks([piece for _, piece in pieces], BLOCK):
        found, of_piece = _ngrams(tokens_of(block, vowel_marks=vowel_marks), len(block), lengths)
        hashes.append(found)
        target_langs.append(target_lang_of[of_piece + done])
        done += len(block)
    return np.concatenate(hashes), np.concatenate(target_langs)


def _ngrams(tokens: Tokens, n_texts: int, lengths: Lengths) -> tuple[Hashes, NDArray[np.int64]]:
    """Hash the n-grams of the tokens of some texts. With each comes which of the texts it is of."""
    text, kinds = tokens.text, tokens.kinds
    # how many characters and letters of scripts without spaces there are before each token
    characters, letters = (np.concatenate([[0], np.cumsum(kinds == kind)]) for kind in (CHARACTER, LETTER))

    def length_of(first: NDArray[np.intp], end: NDArray[np.intp]) -> NDArray[np.intp]:
        """Tell how long an n-gram of such tokens has to be."""
        of_characters, of_letters = (2 * (count[end] - count[first]) >= end - first for count in (characters, letters))
        return np.where(of_letters, lengths.letters, np.where(of_characters, lengths.characters, lengths.words))

    firsts, ends = [], []
    for length in sorted(set(lengths)):
        first = np.arange(max(0, len(text) - length + 1))
        first = first[(text[first] == text[first + length - 1]) & (length_of(first, first + length) == length)]
        firsts.append(first)
        ends.append(first + length)

    bounds = np.searchsorted(text, np.arange(n_texts + 1))
    sizes = np.diff(bounds)
    has_none = np.bincount(text[np.concatenate(firsts)], minlength=n_texts) == 0
    whole = has_none & (sizes > 0) & (2 * sizes >= length_of(bounds[:-1], bounds[1:]))
    first = np.concatenate([*firsts, bounds[:-1][whole]])
    end = np.concatenate([*ends, bounds[1:][whole]])
    return span_hashes(tokens.hashes, first, end), text[first]
