r"""What is kept of a text: NFC, ``\n`` line ends, no control characters, no outer white space.

Indentation and inner line breaks stay, because code and poetry need them. Most texts of most corpora are a line that is
clean already: one scan of a batch finds those that are not, and only they are looked at one by one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache

import pyarrow as pa
import pyarrow.compute as pc

_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]")
"""Control characters that are not white space."""

_SPACES = "\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""All white space but the space."""

_LAST_MARK = 0x20000
"""Beyond the first two planes there are neither combining marks nor second halves of a composition."""


def normalise(text: str) -> str:
    r"""NFC, ``\n`` line ends, no control characters but white space, no outer white space."""
    text = unicodedata.normalize("NFC", _CONTROL.sub("", text))
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


def key_of(text: str) -> str:
    """What makes two texts equal: the words, blind to how much white space there is between them."""
    return " ".join(text.split())


def clean(texts: pa.StringArray) -> tuple[pa.StringArray, list[bytes]]:
    """Every text normalised, and its key in UTF-8.

    Parameters
    ----------
    texts : StringArray
        Valid UTF-8 without nulls.
    """
    texts = pc.utf8_trim_whitespace(texts)
    keys: list[bytes] = texts.cast(pa.binary()).to_pylist()
    unusual = pc.match_substring_regex(texts, _unusual())
    rows = pc.indices_nonzero(unusual).to_pylist()
    if rows:
        values = [normalise(text) for text in texts.filter(unusual).to_pylist()]
        for row, value in zip(rows, values, strict=True):
            keys[row] = key_of(value).encode()
        texts = pc.replace_with_mask(texts, unusual, pa.array(values, pa.string()))
    return texts, keys


@lru_cache(maxsize=1)
def _unusual() -> str:
    """A pattern that finds every trimmed text that ``normalise`` or ``key_of`` would change, and some others.

    NFC changes a text only if it holds a character that is never or not always kept (``NFC_Quick_Check`` No or Maybe),
    or two marks that follow one another and may be out of order.
    """
    starts = range(_LAST_MARK)
    pairs = (unicodedata.decomposition(chr(code)).split() for code in starts)
    second = {int(pair[1], 16) for pair in pairs if len(pair) == 2 and not pair[0].startswith("<")}
    jamo = {*range(0x1161, 0x1176), *range(0x11A8, 0x11C3)}
    never = {code for code in range(0x30000) if not unicodedata.is_normalized("NFC", chr(code))}
    marks = _class(code for code in starts if unicodedata.combining(chr(code)))
    return f"[{_CONTROL.pattern[1:-1]}{_SPACES}]|  |{_class(second | jamo | never)}|{marks}{marks}"


def _class(codes: Iterable[int]) -> str:
    """A character class of RE2."""
    ranges: list[list[int]] = []
    for code in sorted(codes):
        if ranges and code == ranges[-1][1] + 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "[" + "".join(rf"\x{{{low:x}}}-\x{{{high:x}}}" for low, high in ranges) + "]"
