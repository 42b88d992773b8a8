"""Hashed n-grams of texts, to find copied passages: pure array functions.

What is compared is casefolded tokens; punctuation and white space are not there. A token is a word, that is a run of
letters, digits and their marks; in scripts that put no spaces between words it is one character with its marks. An
n-gram is 13 words, or 13 tokens of which at least half are Chinese or Japanese characters, or 32 of which at least half
are Thai, Lao, Khmer, Burmese or Tibetan letters. So the script decides passage by passage: a Chinese question is found
in an English page, and "2020年3月" is not torn at its digits. Eight characters would not do: of 502 sentences of
SIB-200, 457 in Thai and 122 in Japanese share eight with one of 502 others, by chance; of 32 and 13 it is 1 and 3.

A text that has no n-gram, because it is short, counts as one as a whole, if it has half as many tokens: it is found
where another text says the same and nothing else. What is shorter still has none.

Hashes are 64 bits of a polynomial over mixed code points, and again over the hashes of tokens, so that a batch of texts
is a few dozen passes of numpy and no Python per word. Cost: 17 MB of text a second and core (33 languages of OLDI-Seed,
measured on a shared one); memory some 25 MB beyond texts and hashes, whatever their length. Two different n-grams
collide with probability 2^-64: with a billion n-grams of a pool and a million of evaluations, a row is wrongly found
once in 20,000 runs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import regex
from numpy.typing import NDArray

_BLOCK = 1 << 19
_OVERLAP = 1 << 12
"""A longer text is cut, at the same places wherever it is met; an n-gram within the overlap is not lost."""

_SEPARATOR, _WORD, _CHARACTER, _LETTER, _MARK = range(5)
_CHARACTERS = r"\p{scx=Han}\p{scx=Hira}\p{scx=Kana}"
_LETTERS = r"\p{scx=Thai}\p{scx=Laoo}\p{scx=Khmr}\p{scx=Mymr}\p{scx=Tibt}"
_PLANES = 0x40000
"""Beyond the first four planes there are no letters."""

_BASE = 0x9E3779B97F4A7C15  # odd, so it has an inverse modulo 2^64
_INVERSE = pow(_BASE, -1, 1 << 64)

Hashes = NDArray[np.uint64]


class Lengths(NamedTuple):
    """Tokens of an n-gram, by script: see the module."""

    words: int = 13
    characters: int = 13  # Chinese, Japanese
    letters: int = 32  # Thai, Lao, Khmer, Burmese, Tibetan


def ngram_hashes(texts: Sequence[str], lengths: Lengths) -> tuple[Hashes, NDArray[np.int64]]:
    """The n-grams of all texts.

    Parameters
    ----------
    texts : sequence of str
        In NFC and without line breaks; see :func:`compass_ray.ingest.cleaning.key_of`.
    lengths : Lengths

    Returns
    -------
    hashes : ndarray of shape (n_ngrams,), uint64
    owners : ndarray of shape (n_ngrams,), int64
        The text that each is of, ascending by block only. What a text gives does not depend on the others.
    """
    found = [_block_hashes(pieces, owners, lengths) for pieces, owners in _blocks(texts)]
    if not found:
        return np.empty(0, dtype=np.uint64), np.empty(0, dtype=np.int64)
    hashes, owners = zip(*found, strict=True)
    return np.concatenate(hashes), np.concatenate(owners)


def _blocks(texts: Sequence[str]) -> Iterator[tuple[list[str], list[int]]]:
    """Texts, and pieces of long ones, in lists of bounded length; and which text each is of."""
    pieces: list[str] = []
    owners: list[int] = []
    size = 0
    for owner, text in enumerate(texts):
        for start in range(0, max(1, len(text) - _OVERLAP), _BLOCK - _OVERLAP):
            piece = text[start : start + _BLOCK]
            if pieces and size + len(piece) > _BLOCK:
                yield pieces, owners
                pieces, owners, size = [], [], 0
            pieces.append(piece)
            owners.append(owner)
            size += len(piece)
    if pieces:
        yield pieces, owners


def _block_hashes(pieces: list[str], owners: list[int], lengths: Lengths) -> tuple[Hashes, NDArray[np.int64]]:
    codes = np.frombuffer("\n".join(pieces).casefold().encode("utf-32-le"), dtype=np.uint32)
    starts, stops, kinds = _tokens(codes)
    tokens = _span_hashes(mixed(codes.astype(np.uint64)), starts, stops)
    piece = np.cumsum(codes == ord("\n"))[starts]
    # how many characters and letters of scripts without spaces there are before each token
    characters, letters = (np.concatenate([[0], np.cumsum(kinds == kind)]) for kind in (_CHARACTER, _LETTER))

    def length_of(first: NDArray[np.intp], end: NDArray[np.intp]) -> NDArray[np.intp]:
        """How long an n-gram has to be that is made of such tokens."""
        of_characters, of_letters = (2 * (count[end] - count[first]) >= end - first for count in (characters, letters))
        return np.where(of_letters, lengths.letters, np.where(of_characters, lengths.characters, lengths.words))

    firsts, ends = [], []
    for length in sorted(set(lengths)):
        first = np.arange(max(0, len(piece) - length + 1))
        first = first[(piece[first] == piece[first + length - 1]) & (length_of(first, first + length) == length)]
        firsts.append(first)
        ends.append(first + length)

    bounds = np.searchsorted(piece, np.arange(len(pieces) + 1))
    sizes = np.diff(bounds)
    has_none = np.bincount(piece[np.concatenate(firsts)], minlength=len(pieces)) == 0
    whole = has_none & (sizes > 0) & (2 * sizes >= length_of(bounds[:-1], bounds[1:]))
    first = np.concatenate([*firsts, bounds[:-1][whole]])
    end = np.concatenate([*ends, bounds[1:][whole]])
    return _span_hashes(tokens, first, end), np.asarray(owners, dtype=np.int64)[piece[first]]


def _tokens(codes: NDArray[np.uint32]) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.uint8]]:
    """Where tokens start and end, and what each is."""
    kinds = _kinds()[np.minimum(codes, _PLANES - 1)]
    is_mark = kinds == _MARK
    stands_on = np.maximum.accumulate(np.where(is_mark, 0, np.arange(len(codes))))
    kinds = kinds[stands_on]
    kinds[kinds == _MARK] = _SEPARATOR  # marks before any letter
    inside = kinds != _SEPARATOR
    after_word = np.concatenate([[False], kinds[:-1] == _WORD])
    is_start = ((kinds > _WORD) & ~is_mark) | ((kinds == _WORD) & ~after_word)
    is_end = inside & np.concatenate([~inside[1:] | is_start[1:], [True]])
    starts = np.flatnonzero(is_start)
    return starts, np.flatnonzero(is_end) + 1, kinds[starts]


def _span_hashes(values: Hashes, starts: NDArray[np.intp], ends: NDArray[np.intp]) -> Hashes:
    """A hash of each span of values: a polynomial modulo 2^64 from differences of prefix sums, as Rabin and Karp."""
    powers, inverses = _powers(1 << max(0, len(values) - 1).bit_length())
    prefix = np.zeros(len(values) + 1, dtype=np.uint64)
    np.cumsum(values * powers[: len(values)], out=prefix[1:])
    sums = (prefix[ends] - prefix[starts]) * inverses[starts]
    return mixed(sums + (ends - starts).astype(np.uint64))


@lru_cache(maxsize=2)
def _powers(count: int) -> tuple[Hashes, Hashes]:
    """Powers of the base and of its inverse modulo 2^64."""
    both = []
    for base in (_BASE, _INVERSE):
        factors = np.full(count, base, dtype=np.uint64)
        factors[0] = 1
        both.append(np.cumprod(factors, dtype=np.uint64))
    return both[0], both[1]


def mixed(values: Hashes) -> Hashes:
    """The finaliser of SplitMix64 (Steele, Lea and Flood, 2014): a bijection that spreads every bit."""
    values = values + np.uint64(_BASE)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@lru_cache(maxsize=1)
def _kinds() -> NDArray[np.uint8]:
    """What each code point is."""
    everything = "".join(map(chr, range(_PLANES)))
    kinds = np.full(_PLANES, _SEPARATOR, dtype=np.uint8)
    patterns = {_CHARACTER: rf"(?V1)[[{_CHARACTERS}]&&\w]", _LETTER: rf"(?V1)[[{_LETTERS}]&&\w]", _MARK: r"\p{M}"}
    for kind, pattern in {_WORD: r"\w", **patterns}.items():
        kinds[[match.start() for match in regex.finditer(pattern, everything)]] = kind
    return kinds
