"""What a reader sees of a text: without characters that nobody sees, and with the spellings of a letter as one.

Texts are kept as they are; what follows is for keys alone. A key of equal texts leaves out what is not seen
(:func:`seen`) and folds nothing: 10⁵ is not 105. A key of nearly equal texts folds (:func:`folding`): compatibility
forms (NFKC), case, digits of all scripts, and letters that have several code points because keyboards and encodings
differ. Letters that differ to a reader of any language stay apart, with two exceptions, which readers of Persian and
Malayalam need more: Pashto's two letters ye count as one, and so do Malayalam's chillus and their consonants with a
virama.

All classes are lists of code points, and normal forms and cases are Python's alone, so that RE2 and Arrow may know
other versions of Unicode than it does.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

import pyarrow as pa
import pyarrow.compute as pc

PLANES = 0x20000
"""Beyond the first two planes are no marks, digits or cases, and NFKC changes only what NFC changes."""

_UNSEEN = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u3164\ufe00-\ufe0f"
    "\ufeff\uffa0\ufff0-\ufffb\U00013430-\U0001343f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
"""Characters without a shape of their own, as the inside of a class.

These are all of the property Default_Ignorable_Code_Point, and of the category Cf (format) all but the signs that are
written around numbers and verses, such as U+06DD.
"""

_BLANKS = "\u2800\U0001d159"
"""Symbols that look like white space: an empty Braille pattern, a note without a head."""

HIDING = _UNSEEN + _BLANKS
"""What makes a text look otherwise than its code points, as the inside of a class."""

_FLAG = "\U0001f3f4[\U000e0020-\U000e007e]+\U000e007f"
"""A flag spelled with tags, which tell England from Scotland."""

_HIDDEN = f"({_FLAG})|[{_UNSEEN}]"

_TATWEEL = "\u0640\u07fa\u0883-\u0885"
"""Strokes that lengthen a word on the page: Arabic and N'Ko."""

_VOWEL_MARKS = (
    "\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7"  # Hebrew niqqud and cantillation
    "\u0610-\u061a\u064b-\u0652\u0656-\u065f\u0670\u06d6-\u06dc\u06df-\u06e4\u06e7\u06e8\u06ea-\u06ed"  # harakat
    "\u0898-\u089f\u08ca-\u08e1\u08e3-\u08ff"  # Quranic marks, African and Asian vowels
)
"""Points that Arabic and Hebrew are written with or without; hamza and madda are parts of letters and stay."""

_LETTERS = {
    "\u06a9": "\u0643",  # keheh: Persian, Urdu -> kaf
    "\u06cc": "\u064a",  # Farsi yeh -> yeh
    "\u06c1": "\u0647",  # heh goal: Urdu -> heh
    "\u06c0": "\u0647\u0654",  # heh with hamza in one, and its Urdu form -> heh, hamza
    "\u06c2": "\u0647\u0654",
    "\u06c3": "\u0629",  # teh marbuta goal: Urdu -> teh marbuta
    "\u0219": "\u015f",  # Romanian s and t: comma -> cedilla, as older encodings have them
    "\u021b": "\u0163",
    "\u02bb": "'",  # apostrophes that are letters: Hawaiian, Uzbek; Ukrainian, Breton; saltillo
    "\u02bc": "'",
    "\ua78c": "'",
    "\u09ce": "\u09a4\u09cd",  # Bengali khanda ta, which was ta, virama, ZWJ before Unicode 4.1
    "\u0d7a": "\u0d23\u0d4d",  # Malayalam chillus, which were consonant, virama, ZWJ before Unicode 5.1
    "\u0d7b": "\u0d28\u0d4d",
    "\u0d7c": "\u0d30\u0d4d",
    "\u0d7d": "\u0d32\u0d4d",
    "\u0d7e": "\u0d33\u0d4d",
    "\u0d7f": "\u0d15\u0d4d",
}
"""Spellings of one letter, in lower case: what keyboards, encodings and versions of Unicode have made two of."""


def seen(text: str) -> str:
    """Drop what no reader sees; symbols that look blank become spaces, and flags keep the tags that spell them.

    What has come to stand side by side is not composed: the outcome need not be in NFC.
    """
    return re.sub(f"[{_BLANKS}]", " ", re.sub(_HIDDEN, r"\1", text))


def all_seen(texts: pa.StringArray) -> pa.StringArray:
    """Do what :func:`seen` does with many texts at once."""
    shown = pc.replace_substring_regex(texts, _HIDDEN, r"\1")
    return pc.replace_substring_regex(shown, f"[{_BLANKS}]", " ")


def folding(*, vowel_marks: bool = False) -> dict[str, str]:
    """Say what each character is in the key of nearly equal texts, where that is another.

    The key of a text in NFC is the NFC of what its characters are: NFKC and casefolded, without what is not seen and
    strokes that lengthen words, digits as ASCII, spellings of a letter as one.

    Parameters
    ----------
    vowel_marks : bool, optional
        Whether Arabic harakat and Hebrew niqqud are kept.

    Notes
    -----
    Cost: a third of a second.
    """
    dropped = re.compile(f"[{_UNSEEN}{_TATWEEL}{'' if vowel_marks else _VOWEL_MARKS}]")
    found = {}
    for character in map(chr, [*range(PLANES), *range(0xE0000, 0xE1000)]):
        folded = unicodedata.normalize("NFC", unicodedata.normalize("NFKC", character).casefold())
        kept = dropped.sub("", folded)
        spelled = "".join(_LETTERS.get(one, str(unicodedata.decimal(one, one))) for one in kept)
        if spelled != character:
            found[character] = spelled
    return found


def compositions() -> tuple[set[int], set[int]]:
    """List the first and the second halves of what NFC composes."""
    pairs = (unicodedata.decomposition(chr(code)).split() for code in range(PLANES))
    halves = [pair for pair in pairs if len(pair) == 2 and not pair[0].startswith("<")]
    first, second = ({int(pair[place], 16) for pair in halves} for place in (0, 1))
    leading, syllables = range(0x1100, 0x1113), range(0xAC00, 0xD7A4, 28)
    return {*first, *leading, *syllables}, {*second, *range(0x1161, 0x1176), *range(0x11A8, 0x11C3)}


def marks() -> set[int]:
    """List the characters that NFC may put in another order: combining marks."""
    return {code for code in range(PLANES) if unicodedata.combining(chr(code))}


def character_class(codes: Iterable[int]) -> str:
    """Spell a class of code points for RE2."""
    ranges: list[list[int]] = []
    for code in sorted(codes):
        if ranges and code == ranges[-1][1] + 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return "[" + "".join(rf"\x{{{first:x}}}-\x{{{last:x}}}" for first, last in ranges) + "]"
