r"""What is kept of a text: NFC, ``\n`` line ends, no control characters, no outer white space.

Indentation and inner line breaks stay, because code and poetry need them; so do characters that nobody sees, because
Persian, Sinhala and emojis need some of them. Only keys and lengths are blind to these. Most texts of most corpora are
a line that is clean already: one scan of a batch finds those that are not, and only they are looked at one by one.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from compass_ray.letters import HIDING, all_seen, character_class, compositions, marks, seen

_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1b\x7f-\x84\x86-\x9f]")
"""Control characters that are not white space."""

_SPACES = "\t\n\x0b\x0c\r\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"
"""All white space but the space."""


def normalize(text: str) -> str:
    r"""Normalise a text to NFC and ``\n`` line ends.

    No control characters but white space stay, and no outer white space.
    """
    text = unicodedata.normalize("NFC", _CONTROL.sub("", text))
    return text.replace("\r\n", "\n").replace("\r", "\n").strip()


def key_of(text: str) -> str:
    """Compute the key that equal texts share: their words.

    It is blind to how much white space there is between them and to what is unseen. Empty if a reader sees nothing of
    the text.
    """
    return _spaced(seen(text))


class Cleaned(NamedTuple):
    """Texts as they are kept, with their keys in UTF-8 and how many characters of each a reader sees."""

    texts: pa.StringArray
    keys: list[bytes]
    characters: NDArray[np.int64]


def clean(texts: pa.StringArray) -> Cleaned:
    """Normalise every text.

    Parameters
    ----------
    texts : StringArray
        Valid UTF-8 without nulls.
    """
    texts = pc.utf8_trim_whitespace(texts)
    odd = pc.match_substring_regex(texts, f"[{HIDING}]|{_unusual()}")
    if not pc.any(odd).as_py():
        return Cleaned(texts, _in_bytes(texts), _lengths(texts))
    hiding = pc.replace_with_mask(odd, odd, pc.match_substring_regex(texts.filter(odd), f"[{HIDING}]"))
    others = pc.and_not(odd, hiding)
    values = [normalize(text) for text in texts.filter(others).to_pylist()]
    texts = pc.replace_with_mask(texts, others, pa.array(values, pa.string()))
    found = Cleaned(texts, _in_bytes(texts), _lengths(texts))
    for row, value in zip(pc.indices_nonzero(others).to_pylist(), values, strict=True):
        found.keys[row] = " ".join(value.split()).encode()
    return _without_unseen(found, hiding) if pc.any(hiding).as_py() else found


def _without_unseen(found: Cleaned, hiding: pa.BooleanArray) -> Cleaned:
    """Normalise the texts that hide something, too.

    Their keys and lengths leave it out; the other texts stay the same.
    """
    texts = _where_unusual(normalize, found.texts.filter(hiding))
    shown = pc.utf8_trim_whitespace(all_seen(texts))
    keys = _in_bytes(_where_unusual(_spaced, shown))
    for row, key, length in zip(pc.indices_nonzero(hiding).to_pylist(), keys, _lengths(shown), strict=True):
        found.keys[row], found.characters[row] = key, length
    return found._replace(texts=pc.replace_with_mask(found.texts, hiding, texts))


def _spaced(shown: str) -> str:
    """Join the words of a text in NFC, with a space between."""
    return " ".join(unicodedata.normalize("NFC", shown).split())


def _in_bytes(texts: pa.StringArray) -> list[bytes]:
    found: list[bytes] = texts.cast(pa.binary()).to_pylist()
    return found


def _lengths(texts: pa.StringArray) -> NDArray[np.int64]:
    return np.asarray(pc.utf8_length(texts).to_numpy(zero_copy_only=False).astype(np.int64))


def _where_unusual(change: Callable[[str], str], texts: pa.StringArray) -> pa.StringArray:
    """Change those texts that ``normalize`` or one space between words may change."""
    unusual = pc.match_substring_regex(texts, _unusual())
    changed = [change(text) for text in texts.filter(unusual).to_pylist()]
    return pc.replace_with_mask(texts, unusual, pa.array(changed, pa.string()))


@lru_cache(maxsize=1)
def _unusual() -> str:
    """Build a pattern that finds every unusual trimmed text, and some others.

    Unusual is one that is not NFC, or has more than spaces between words. NFC changes a text only if it holds a
    character that is never or not always kept (``NFC_Quick_Check`` No or Maybe), or two marks that follow one another
    and may be out of order.
    """
    never = {code for code in range(0x30000) if not unicodedata.is_normalized("NFC", chr(code))}
    _, second = compositions()
    mark = character_class(marks())
    return f"[{_CONTROL.pattern[1:-1]}{_SPACES}]|  |{character_class(second | never)}|{mark}{mark}"
