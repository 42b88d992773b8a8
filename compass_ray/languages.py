"""Language codes: whatever notation the data use, one BCP-47 tag inside.

ISO 639-1/2/3, FLORES and GlotLID (``zho_Hans``), locales (``pt_BR``), BCP-47, Wikipedia codes (``zh-classical``) and
English names (``Bulgarian``, ``Simplified Chinese``) are read, and all of them are folded in one place:

- A macro-language and its main member are one language (``swh`` = ``sw``, ``nob`` = ``no``, ``fuv`` = ``ff``); which
  member that is, CLDR says, and ``_MEMBERS`` where CLDR is silent. Other members stay apart (``arz``, ``nn``).
- A tag has a script only if it is not the one that CLDR expects of the language (and of its region: ``zh-TW`` is
  ``zh-Hant``). A script that stands for several is the one it holds: ``zh-Hani`` is ``zh``, ``ko-Hang`` is ``ko``.
  Of a language of which CLDR expects none, no script is kept.
- The region carries no weight and is kept only as found (``source_lang``).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache, lru_cache

import langcodes
from babel.core import get_global
from babel.languages import get_official_languages
from langcodes.data_dicts import LANGUAGE_REPLACEMENTS, NORMALIZED_MACROLANGUAGES
from langcodes.tag_parser import LanguageTagError, parse_tag
from language_data.names import get_trie_value, load_trie, normalize_name
from language_data.util import data_filename

_MEMBERS = {"nb": "no", "pbt": "ps", "quy": "qu", "fuv": "ff", "gom": "kok"}
"""Main members of macro-languages that CLDR does not fold, though public data write the language by them: Bokmål,
southern Pashto, Ayacucho Quechua, Nigerian Fulfulde, Goan Konkani."""

_NOT_A_LANGUAGE = frozenset({"und", "mul", "mis", "zxx"})

_FAMILY_CODES = """
    aav afa alg alv apa aqa aql art ath auf aus awd azc bad bai bat ber bnt btk cai cau cba ccn ccs cdc cdd cel
    cmc cpe cpf cpp crp csu cus day dmn dra egx esx euq fiu fox gem gme gmq gmw grk hmx hok hyx iir ijo inc ine ira
    iro itc jpx kar kdo khi kro map mkh mno mun myn nah nai ngf nic nub omq omv oto paa phi plf poz pqe pqw pra qwe
    roa sai sal sdv sem sgn sio sit sla smi son sqj ssa syd tai tbq trk tup tut tuw urj wak wen xgn xnd ypk zhx zle
    zls zlw znd
"""
_FAMILIES = frozenset(_FAMILY_CODES.split())
"""Families and other collections of languages: ISO 639-5."""

_MISSING = frozenset({"nan", "unk"})
"""What tools write where there is no language. Both are codes as well (Min Nan, Enawene Nawe): these languages are read
by name or with a script, and so written."""

_VARIANTS = {"Aran": "Arab", "Cyrs": "Cyrl", "Latf": "Latn", "Latg": "Latn"} | dict.fromkeys(
    ("Syre", "Syrj", "Syrn"), "Syrc"
)
"""Hands in which a script is written, which have codes of their own in ISO 15924."""

_NO_SCRIPT = frozenset({"Zinh", "Zmth", "Zsye", "Zsym", "Zxxx", "Zyyy", "Zzzz"})

_HOLDS = {
    "Hani": {"Hans", "Hant"},
    "Hrkt": {"Hira", "Kana"},
    "Jpan": {"Hani", "Hira", "Hrkt", "Kana"},
    "Kore": {"Hang", "Hani", "Jamo"},
    "Hang": {"Jamo"},
}
"""Scripts that stand for several."""

WIKIPEDIA = {
    "als": "gsw",
    "bat-smg": "sgs",
    "be-x-old": "be",
    "bh": "bho",
    "cbk-zam": "cbk",
    "eml": "egl",
    "fiu-vro": "vro",
    "map-bms": "jv",
    "nds-nl": "nds",
    "nrm": "nrf",
    "roa-rup": "rup",
    "roa-tara": "nap",
    "simple": "en",
    "zh-classical": "lzh",
    "zh-min-nan": "nan-Latn",
}
"""Wikipedia's own codes. ``als`` and ``nrm`` are other languages in ISO 639-3 (Tosk Albanian, Narom), and BCP-47 gives
``zh-min-nan`` no script: that holds unless a source says ``lang_map: wikipedia``. The others mean nothing else."""

_MACRO_MEMBERS = {
    "ar": "aao abh abv acm acq acw acx acy adf aeb aec afb apc apd arb arq ars ary arz auz avl ayh ayl ayn ayp pga shu",
    "ku": "ckb kmr sdh",
    "zh": "cdo cjy cmn cnp cpx csp czh czo gan hak hsn lzh mnp nan wuu yue",
}
"""Macro-languages of ISO 639-3 with members that CLDR takes for strangers, and all their members. They stay languages
of their own: what is written in one is not what is written in another."""
_MACRO_LANGUAGE = {member: language for language, members in _MACRO_MEMBERS.items() for member in members.split()}

_SHORTEST_NAME, _LONGEST_CODE = 3, 3
"""Shorter names are more likely codes that nobody knows. Three letters are a name where they are no code."""


@lru_cache(maxsize=65536)
def canonical_language(code: str) -> str | None:
    """Find the BCP-47 tag of a language, whatever notation it is in. None if it is not a known one.

    A tag is its own tag. What stands for a missing value (``NA``, ``nan``, ``unk``), families of languages (``bat``),
    pairs (``en-fr``; as a locale it is ``en-FR``) and tags with a part that is not registered are no languages.

    >>> canonical_language("zho_Hans"), canonical_language("pt_BR"), canonical_language("Standard Arabic")
    ('zh', 'pt', 'ar')
    """
    code = code.strip().rstrip("-_")
    if code == "NA" or code.casefold() in _MISSING | _FAMILIES:
        return None
    wikipedia = WIKIPEDIA.get(code.lower().replace("_", "-"), "")
    first, second = (_from_code, _from_name) if len(code) <= _LONGEST_CODE else (_from_name, _from_code)
    tag = first(code) or second(code) or _from_code(wikipedia)
    return None if tag is None else _folded(tag)


def language_of(code: str) -> str | None:
    """Find the language of a code, without its script. Of macro-language and main member it is the former."""
    tag = canonical_language(code)
    return tag.partition("-")[0] if tag else None


def language_refusal(code: str) -> str:
    """Say what a code is that is no language, and what to write instead."""
    given = code.strip()
    if given == "NA" or given.casefold() in _MISSING:
        found = "what tools write for a missing value (for the language add its script)"
    elif given.casefold() in _FAMILIES:
        found = "a family of languages"
    elif _is_pair(given):
        language, region = re.split("[-_]", given)
        found = f"a pair of languages (a locale is written {language.lower()}-{region.upper()})"
    else:
        found = "no known language"
    return f"'{code}' is {found}; expected a BCP-47, ISO 639, FLORES or Wikipedia code or an English name"


@cache
def language_codes(tag: str) -> tuple[str, ...]:
    """List all codes of ISO 639 that are folded into a language.

    First its own, then its main member's, then former ones.

    >>> language_codes("sw"), language_codes("no")
    (('sw', 'swa', 'swh', 'swc'), ('no', 'nor', 'nb', 'nob'))
    """
    language = tag.partition("-")[0]
    members = filter(_is_code, {**_MEMBERS, **NORMALIZED_MACROLANGUAGES, **LANGUAGE_REPLACEMENTS})
    codes = [language, *(code for code in members if language_of(code) == language)]
    return tuple(dict.fromkeys(name for code in codes for name in (code, _three_letters(code)) if name))


@lru_cache(maxsize=4096)
def macro_language(tag: str) -> str:
    """Find the ISO 639-3 macro-language of a canonical tag's language, else that language.

    >>> macro_language("acm"), macro_language("yue-Hant"), macro_language("sw")
    ('ar', 'zh', 'sw')
    """
    language = str(langcodes.get(tag).prefer_macrolanguage().language)
    return _MACRO_LANGUAGE.get(language, language)


@lru_cache(maxsize=4096)
def language_name(tag: str) -> str:
    """Name a canonical tag in English, for people to read."""
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


def _folded(tag: langcodes.Language) -> str:
    """Find the one tag of a written language."""
    language = str(tag.language)
    usual = _usual_script(language, None)
    script = tag.script or (_usual_script(language, tag.territory) if tag.territory else None)
    if script is None or usual is None or _same_script(script, usual):
        script = usual if language in _MISSING else None
    return str(langcodes.Language.make(language=language, script=script).to_tag())


def _usual_script(language: str, region: str | None) -> str | None:
    """Look up the script that CLDR expects of a language. It is that in a region if CLDR knows of one there."""
    likely = get_global("likely_subtags")
    full = likely.get(f"{language}_{region}") or likely.get(language)
    return full.split("_")[1] if full else None


def _same_script(one: str, other: str) -> bool:
    return one == other or other in _HOLDS.get(one, ()) or one in _HOLDS.get(other, ())


def _from_code(code: str) -> langcodes.Language | None:
    """Read a language by code, with script and region if given. Main members are read as their macro-language."""
    try:
        given: list[tuple[str, str]] = parse_tag(code)  # type: ignore[no-untyped-call]
        tag = langcodes.get(langcodes.standardize_tag(_plain_script(code, given), macro=True))
    except LanguageTagError:
        return None
    language = str(tag.language or "")
    if not _is_code(language) or language in _NOT_A_LANGUAGE | _FAMILIES or not _is_registered(tag) or _is_pair(code):
        return None
    extended = [value for kind, value in given if kind == "extlang"]
    if extended and [language] != [langcodes.get(langcodes.standardize_tag(e, macro=True)).language for e in extended]:
        return None  # registered, but not as a member of that language: sr-lat is not Latin
    return tag.update_dict({"language": _MEMBERS.get(language, language)})


def _is_registered(tag: langcodes.Language) -> bool:
    """Tell whether all parts are known.

    The language has to be known to the registry of langcodes or to CLDR, which is the younger one.
    """
    language = str(tag.language)
    known = langcodes.tag_is_valid(language) or language in get_global("likely_subtags")
    return known and bool(tag.update_dict({"language": "en"}).is_valid())


def _plain_script(code: str, given: list[tuple[str, str]]) -> str:
    """Replace a code's script by one that texts are written in, or none."""
    for kind, script in given:
        if kind == "script" and (script in _VARIANTS or script in _NO_SCRIPT):
            plain = _VARIANTS.get(script)
            return re.sub(f"[-_]{script}", f"-{plain}" if plain else "", code, count=1, flags=re.IGNORECASE)
    return code


def _is_code(language: str) -> bool:
    """Tell whether it is a code of two or three letters. One for private use is none."""
    return bool(re.fullmatch(r"(?!q[a-t][a-z]$)[a-z]{2,3}", language))


def _is_pair(code: str) -> bool:
    """Tell whether a code reads as two languages, not one in a country. Parallel corpora name pairs so.

    Only where both halves are in one case and both are languages; it is a locale nevertheless if the language is an
    official one there, or that of most speakers, or has its home there.
    """
    halves = re.fullmatch("([A-Za-z]{2,3})[-_]([A-Za-z]{2})", code)
    if not halves or (halves[2].isupper() and not halves[1].isupper()):
        return False
    language, region = halves[1].lower(), halves[2].upper()
    if not langcodes.tag_is_valid(region.lower()):
        return False
    likely = get_global("likely_subtags")
    spoken = [*get_official_languages(region, regional=True, de_facto=True), likely.get(f"und_{region}", "")]
    at_home = likely.get(language, "").endswith(f"_{region}")
    return not at_home and language_of(language) not in {language_of(name) for name in spoken if name}


def _three_letters(language: str) -> str | None:
    try:
        return str(langcodes.Language.make(language=language).to_alpha3())
    except LookupError:
        return None


def _from_name(name: str) -> langcodes.Language | None:
    """Find a language by its English name. Several, as ISO 639-2 gives them with semicolons, must be names of one."""
    named = [_from_one_name(part.strip()) for part in name.split(";")]
    return named[0] if all(named) and len({_folded(tag) for tag in named if tag}) == 1 else None


def _from_one_name(name: str) -> langcodes.Language | None:
    """Find a language by a name that CLDR or the registry has. A script or territory may stand in brackets."""
    if len(name) < _SHORTEST_NAME:
        return None
    if code := _english("language", name.removesuffix(" language")):
        return _from_code(code)
    qualified = re.fullmatch(r"(.+?)\s*\((.+?)(?: [Ss]cript)?\)", name)
    if not qualified or not (code := _english("language", qualified[1])):
        return None
    part = _english("script", qualified[2]) or _english("territory", qualified[2])
    return _from_code(f"{code}-{part}") if part else None


def _english(kind: str, name: str) -> str | None:
    """Find the code of a language, script or territory by its English name. Looser matches are guesses."""
    known = _english_names(kind)
    key = " ".join(normalize_name(name).split())
    return str(get_trie_value(known, key)) if key.isprintable() and key in known else None


@cache
def _english_names(kind: str):  # type: ignore[no-untyped-def]  # marisa_trie.BytesTrie has no types
    return load_trie(data_filename(f"trie/en/name_to_{kind}.marisa"))
