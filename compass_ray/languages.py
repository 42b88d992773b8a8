"""Language codes: whatever notation the data use, one BCP-47 tag inside.

ISO 639-1/2/3, FLORES (``zho_Hans``), locales (``pt_BR``), BCP-47 and English names (``Bulgarian``) are
read. Two notations of one written language get one tag: matching is on the maximised language and script, so that
``zh-Hans`` = ``zh`` and ``az-Latn`` = ``az``, while ``zh-TW`` = ``zh-Hant`` stays apart. The region
carries no weight in matching and is kept only as found (``source_lang``).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import langcodes
from langcodes.tag_parser import LanguageTagError

_NOT_A_LANGUAGE = frozenset({"und", "mul", "mis", "zxx"})

_MEMBERS = {"pbt": "ps"}
"""Members of macro-languages that langcodes does not fold: southern Pashto, as FLORES writes Pashto."""

_SHORTEST_NAME = 4
"""Shorter words are more likely codes that nobody knows."""


@lru_cache(maxsize=65536)
def canonical_language(code: str) -> str | None:
    """The BCP-47 tag of a language code, without its default script; None if it is not a known language.

    >>> canonical_language("zho_Hans"), canonical_language("pt_BR"), canonical_language("swh_Latn")
    ('zh', 'pt', 'sw')
    """
    tag = _from_code(code.strip()) or _from_name(code.strip())
    if tag is None:
        return None
    full = tag.maximize()
    default = langcodes.Language.make(language=full.language).maximize()
    script = full.script if full.script != default.script else None
    return langcodes.Language.make(language=full.language, script=script).to_tag()


def _from_code(code: str) -> langcodes.Language | None:
    try:
        tag = langcodes.get(langcodes.standardize_tag(code.replace("_", "-"), macro=True))
        if tag.language in _MEMBERS:
            tag = tag.update_dict({"language": _MEMBERS[tag.language]})
    except LanguageTagError:
        return None
    if not tag.language or tag.language in _NOT_A_LANGUAGE or not tag.is_valid():
        return None
    return tag


def _from_name(name: str) -> langcodes.Language | None:
    """A language by its English name, spelled as Unicode spells it; looser matches are guesses."""
    if len(name) < _SHORTEST_NAME or not name.replace(" ", "").isalpha():
        return None
    try:
        tag = langcodes.find(name, language="en")
    except LookupError:
        return None
    return tag if tag.display_name("en").casefold() == name.casefold() else None


@lru_cache(maxsize=4096)
def language_name(tag: str) -> str:
    """The English name of a canonical tag, for people to read."""
    return str(langcodes.get(tag).display_name())


def language_mix(counts: Mapping[str, int], shown: int = 5) -> str:
    """Say what share of documents each language has: the largest few by name, the rest together.

    >>> language_mix({"sw": 3, "en": 1})
    'Swahili 75 %, English 25 %'
    """
    total = sum(counts.values())
    if not total:
        return "nothing"
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    named = [(language_name(lang), count) for lang, count in ranked[:shown]]
    if rest := sum(count for _, count in ranked[shown:]):
        others = len(ranked) - shown
        named.append((f"{others} other language{'s' if others > 1 else ''}", rest))
    return ", ".join(f"{name} {100 * count / total:.0f} %" for name, count in named)
