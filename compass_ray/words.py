"""The words of texts as hashes: what copies of a text have in common. Pure array functions.

Case, punctuation, white space and spellings of a letter (:func:`compass_ray.letters.folding`) make no difference. A
token is a word, that is a run of letters, digits and their marks; in scripts that put no spaces between words it is one
character with its marks.

Hashes are 64 bits of a polynomial over mixed code points, and again over the hashes of tokens, so that a batch of texts
is a few dozen passes of numpy and no Python per word.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import regex
from numpy.typing import NDArray

from compass_ray.letters import compositions, folding, marks

BLOCK = 1 << 19
"""Characters that are looked at at once."""

CHARACTER, LETTER = 2, 3
"""Kinds of tokens: Chinese or Japanese; Thai, Lao, Khmer, Burmese or Tibetan."""

_SEPARATOR, _WORD, _MARK = 0, 1, 4
_CHARACTERS = r"\p{scx=Han}\p{scx=Hira}\p{scx=Kana}"
_LETTERS = r"\p{scx=Thai}\p{scx=Laoo}\p{scx=Khmr}\p{scx=Mymr}\p{scx=Tibt}"
_PLANES = 0x40000
"""Beyond the first four planes there are no letters."""

_END = 0xE1000
"""Beyond this there is private use alone, which is no part of words: all of it counts as this."""

_BASE = 0x9E3779B97F4A7C15  # odd, so it has an inverse modulo 2^64
_INVERSE = pow(_BASE, -1, 1 << 64)

Codes = NDArray[np.uint32]
Hashes = NDArray[np.uint64]


class Tokens(NamedTuple):
    """Tokens of some texts, in order; arrays of shape (n_tokens,)."""

    hashes: Hashes
    kinds: NDArray[np.uint8]
    text: NDArray[np.int64]  # which text each is of


def tokens_of(texts: Sequence[str], *, vowel_marks: bool = False) -> Tokens:
    """Cut texts into tokens.

    Parameters
    ----------
    texts : sequence of str
        In NFC and without line breaks.
    vowel_marks : bool, optional
        Whether Arabic harakat and Hebrew niqqud make a difference.
    """
    codes = folded("\n".join(texts), vowel_marks=vowel_marks)
    starts, stops, kinds = _tokens(codes)
    hashes = span_hashes(mixed(codes.astype(np.uint64)), starts, stops)
    return Tokens(hashes, kinds, np.cumsum(codes == ord("\n"))[starts])


def word_hashes(texts: Sequence[str]) -> tuple[Hashes, NDArray[np.int64]]:
    """Hash all words of each text as one.

    Parameters
    ----------
    texts : sequence of str
        In NFC. Of a longer one the first ``BLOCK`` characters count.

    Returns
    -------
    hashes : ndarray of shape (n_found,), uint64
        Equal if, and but for collisions only if, two texts are the same words.
    rows : ndarray of shape (n_found,), int64
        Which texts these are, ascending: all that have a word.
    """
    hashes, rows = [np.empty(0, dtype=np.uint64)], [np.empty(0, dtype=np.int64)]
    start = 0
    for block in blocks([text[:BLOCK].replace("\n", " ") for text in texts], BLOCK):
        tokens = tokens_of(block)
        found, first = np.unique(tokens.text, return_index=True)
        hashes.append(span_hashes(tokens.hashes, first, np.append(first[1:], len(tokens.text))))
        rows.append(found + start)
        start += len(block)
    return np.concatenate(hashes), np.concatenate(rows)


def blocks(texts: Sequence[str], characters: int) -> Iterator[list[str]]:
    """Group texts, in order, into lists of at most so many characters, or of one text."""
    block: list[str] = []
    size = 0
    for text in texts:
        if block and size + len(text) > characters:
            yield block
            block, size = [], 0
        block.append(text)
        size += len(text)
    if block:
        yield block


def folded(text: str, *, vowel_marks: bool = False) -> Codes:
    """Fold a text in NFC, see :func:`compass_ray.letters.folding`; code points of shape (n_characters,), uint32."""
    table = _table(vowel_marks)
    codes = np.minimum(np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32), np.uint32(_END))
    found = table.codes[codes]
    changed = np.flatnonzero(found != codes)
    # NFC composes or reorders only what has changed, or follows something that has
    near = np.concatenate([changed[changed > 0], changed[changed < len(codes) - 1] + 1])
    joins = near[table.joins[found[near]] & table.is_joined[found[near - 1]]]
    if (found[changed] > _END).any():
        found = _written_out(found, table)
    if not len(joins):
        return found
    lines = found.tobytes().decode("utf-32-le").split("\n")
    for number in np.unique(np.cumsum(codes == ord("\n"))[joins]).tolist():
        lines[number] = unicodedata.normalize("NFC", lines[number])
    return np.frombuffer("\n".join(lines).encode("utf-32-le"), dtype=np.uint32)


class _Table(NamedTuple):
    """Folding by code point."""

    codes: Codes  # what each becomes; beyond _END, in order, those that become no or several characters
    joins: NDArray[np.bool_]  # whether NFC may compose or reorder what each becomes with what is before it
    is_joined: NDArray[np.bool_]  # the same with what is after it
    written: Codes  # what those beyond _END become, one after another
    bounds: NDArray[np.intp]  # where each of them begins and ends in ``written``


def _written_out(codes: Codes, table: _Table) -> Codes:
    """Replace codes beyond _END by what they become."""
    beyond = codes > _END
    which = codes[beyond].astype(np.intp) - _END - 1
    lengths = np.ones(len(codes), dtype=np.intp)
    lengths[beyond] = np.diff(table.bounds)[which]
    found = np.repeat(codes, lengths)
    lengths, starts = lengths[beyond], table.bounds[which]
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    found[found > _END] = table.written[np.repeat(starts, lengths) + within]
    return found


@lru_cache(maxsize=2)
def _table(vowel_marks: bool) -> _Table:
    folds = folding(vowel_marks=vowel_marks)
    several = {character: spelled for character, spelled in folds.items() if len(spelled) != 1}
    codes = np.arange(_END + 1, dtype=np.uint32)
    is_joined, joins = (np.isin(codes, [*halves, *marks()]) for halves in compositions())
    for character in folds.keys() - several.keys():
        codes[ord(character)] = ord(folds[character])
    codes[[ord(character) for character in several]] = _END + 1 + np.arange(len(several))
    first = [bool(spelled) and joins[ord(spelled[0])] for spelled in several.values()]
    written = np.frombuffer("".join(several.values()).encode("utf-32-le"), dtype=np.uint32)
    return _Table(
        codes,
        np.concatenate([joins, first]),
        np.concatenate([is_joined, np.ones(len(several), dtype=bool)]),
        written,
        np.cumsum([0, *map(len, several.values())]),
    )


def _tokens(codes: NDArray[np.uint32]) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.uint8]]:
    """Find where tokens start and end, and what each is."""
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


def span_hashes(values: Hashes, starts: NDArray[np.intp], ends: NDArray[np.intp]) -> Hashes:
    """Hash each span of values: a polynomial modulo 2^64 from differences of prefix sums, as Rabin and Karp."""
    powers, inverses = _powers(1 << max(0, len(values) - 1).bit_length())
    prefix = np.zeros(len(values) + 1, dtype=np.uint64)
    np.cumsum(values * powers[: len(values)], out=prefix[1:])
    sums = (prefix[ends] - prefix[starts]) * inverses[starts]
    return mixed(sums + (ends - starts).astype(np.uint64))


@lru_cache(maxsize=2)
def _powers(count: int) -> tuple[Hashes, Hashes]:
    """Compute powers of the base and of its inverse modulo 2^64."""
    both = []
    for base in (_BASE, _INVERSE):
        factors = np.full(count, base, dtype=np.uint64)
        factors[0] = 1
        both.append(np.cumprod(factors, dtype=np.uint64))
    return both[0], both[1]


def mixed(values: Hashes) -> Hashes:
    """Spread every bit: the finaliser of SplitMix64 (Steele, Lea and Flood, 2014), a bijection."""
    values = values + np.uint64(_BASE)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@lru_cache(maxsize=1)
def _kinds() -> NDArray[np.uint8]:
    """Tell what each code point is."""
    everything = "".join(map(chr, range(_PLANES)))
    kinds = np.full(_PLANES, _SEPARATOR, dtype=np.uint8)
    patterns = {CHARACTER: rf"(?V1)[[{_CHARACTERS}]&&\w]", LETTER: rf"(?V1)[[{_LETTERS}]&&\w]", _MARK: r"\p{M}"}
    for kind, pattern in {_WORD: r"\w", **patterns}.items():
        kinds[[match.start() for match in regex.finditer(pattern, everything)]] = kind
    return kinds
