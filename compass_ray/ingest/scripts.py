"""The script of a text, and the scripts that a language is written in, by their codes in ISO 15924."""

from __future__ import annotations

from collections import Counter
from functools import cache
from xml.etree import ElementTree

import regex
from babel import Locale
from language_data.util import data_filename

from compass_ray.languages import canonical_language

_JAPANESE = 0.1
"""Share of kana among kana and Han from which these are Japanese; a kana or two stand in Chinese texts as well."""

_BESIDE_CLDR = {"crh": frozenset({"Latn"})}
"""CLDR knows Crimean Tatar in Cyrillic letters only."""


def script_of(text: str) -> str | None:
    """Find the script that most of a text is written in.

    None without letters. Cost: 0.05 ms a kilobyte. Letters count by their bytes in UTF-8, as Latin names and terms
    stand in texts of every script and one Chinese character says as much as several of their letters. Digits and
    punctuation count for nothing. Han is ``Hani``, and ``Jpan`` beside kana.
    """
    weights: Counter[str] = Counter()
    for character, count in Counter(text).items():
        if script := _script_of_letter(character):
            weights[script] += count * len(character.encode())
    kana = weights.pop("Hira", 0) + weights.pop("Kana", 0)
    if kana:
        together = kana + weights.pop("Hani", 0)
        weights["Jpan" if kana > _JAPANESE * together else "Hani"] = together
    return max(weights, key=weights.__getitem__, default=None)


def han_variant(text: str) -> str | None:
    """Tell whether a text is in ``Hans`` or ``Hant``.

    It is the one that has more of the characters that the other has not; None if neither has.
    """
    lean = sum(count * _lean(character) for character, count in Counter(text).items())
    return ("Hant" if lean > 0 else "Hans") if lean else None


def scripts_written(language: str) -> frozenset[str]:
    """List the scripts in which a language is in use, by CLDR. Transliterations and those of former times are left out.

    >>> sorted(scripts_written("sr")), sorted(scripts_written("hi"))
    (['Cyrl', 'Latn'], ['Deva'])
    """
    return _scripts_by_language().get(language, frozenset()) | _BESIDE_CLDR.get(language, frozenset())


@cache
def _script_of_letter(character: str) -> str | None:
    """Find the script of a letter or its mark. None for all else and for what all scripts share."""
    found = _letters().match(character)
    return found.lastgroup if found else None


@cache
def _letters() -> regex.Pattern[str]:
    """Build a pattern of a letter of any script. The letter is in a group that has the script's name."""
    scripts = filter(_in_unicode, map(str, Locale("en").scripts))
    groups = "|".join(rf"(?P<{script}>\p{{sc={script}}})" for script in scripts)
    return regex.compile(rf"(?=[\p{{L}}\p{{M}}])(?:{groups})")


def _in_unicode(script: str) -> bool:
    """Tell whether characters have this script.

    Unicode has no Hans, Jpan or Latf, and none of those not yet encoded.
    """
    try:
        regex.compile(rf"\p{{sc={script}}}")
    except regex.error:
        return False
    return script not in {"Zyyy", "Zinh", "Zzzz"}


@cache
def _lean(character: str) -> int:
    """Tell whether a character leans to Taiwan or to China.

    1 if it is in the standard of Taiwan alone, -1 if in that of China alone, else 0.
    """
    return _encodes(character, "big5") - _encodes(character, "gb2312") if _script_of_letter(character) == "Hani" else 0


def _encodes(character: str, codec: str) -> bool:
    try:
        character.encode(codec)
    except UnicodeEncodeError:
        return False
    return True


@cache
def _scripts_by_language() -> dict[str, frozenset[str]]:
    scripts: dict[str, frozenset[str]] = {}
    data = ElementTree.parse(data_filename("supplementalData.xml"))  # noqa: S314  # a file of a package that we install
    for entry in data.iterfind("./languageData/language"):
        if entry.get("alt") != "secondary":
            language = canonical_language(entry.get("type", "")) or ""
            scripts[language] = scripts.get(language, frozenset()) | frozenset(entry.get("scripts", "").split())
    return scripts
