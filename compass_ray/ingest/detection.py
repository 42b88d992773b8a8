"""The language of a text from the text itself, or the reason why it is not known.

Two libraries are asked: CLD2 (Sites, 2013), which says itself whether it is sure, and py3langid, whose probabilities
are near one for languages that it has never seen too. What one of them says is taken only as far as the other one does
not contradict it:

- CLD2 is sure and py3langid names the same language: if its probability reaches the floor.
- CLD2 is sure and py3langid does not know the language: if the share of the text that is in it reaches the floor.
- CLD2 is not sure, and names the same language or does not know it: if py3langid leaves a tenth of the doubt that the
  floor allows (0.95 for 0.5).
- Else the language is unknown. The text may be in one that neither knows, in several, or too short.

The tag has the script of the text (``sr-Latn``). A text in a script in which its language is not in use is unknown.
``benchmarks/detection.py`` measures what this gains and costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any, NamedTuple

import pyarrow as pa
import regex

from compass_ray.errors import ResourcesMissing
from compass_ray.ingest.scripts import han_variant, script_of, scripts_written
from compass_ray.languages import canonical_language, language_name, language_of

_LOOKED_AT = 2000
"""Characters of a text that detection reads: its cost is linear in them, and its mind is made up long before."""

_MEANT_BY_CLD2 = {"ku": "ckb", "bh": None}
"""CLD2 knows Kurdish in Arabic letters, which is Sorani; its Bihari is Bhojpuri, Magahi and Maithili together."""

_REFUSED_BY_CLD2 = regex.compile(r"[\p{Cc}\p{Noncharacter_Code_Point}]+")


class Guess(NamedTuple):
    """What a library takes a text for."""

    language: str | None  # without script; None if it is none that has a tag
    confidence: float  # from 0 to 1


def detected_languages(texts: Sequence[str], floor: float) -> tuple[pa.StringArray, dict[int, str]]:
    """Detect the tag of every text.

    For rows without one, what was found is told. Cost: 0.3 to 0.5 ms a sentence on a busy core, most of it py3langid's.

    Parameters
    ----------
    texts : sequence of str
    floor : float
        Least confidence, from 0 to 1.

    Raises
    ------
    ResourcesMissing
        If pycld2 or py3langid is not installed.
    """
    tags: list[str | None] = []
    unknown = {}
    for row, text in enumerate(texts):
        tag, doubt = _detected(text[:_LOOKED_AT], floor)
        tags.append(tag)
        if doubt:
            unknown[row] = doubt
    return pa.array(tags, pa.string()), unknown


def _detected(text: str, floor: float) -> tuple[str | None, str]:
    """Detect the tag of a text, or say why there is none."""
    script = script_of(text)
    if script is None:
        return None, "a text without letters has no language"
    found, sure = ask_cld2(text)
    if not sure or found.language in known_to_py3langid():
        seen, found = found.language, ask_py3langid(text)
        confirmed = found.language == seen or (seen is None and found.language not in known_to_cld2())
        if not found.language or not confirmed:
            return None, f"CLD2 detected {seen or 'no language'}, py3langid {_said(found)}"
        if not sure and found.confidence < (needed := 1 - (1 - floor) / 10):
            return None, f"py3langid detected {_said(found)}, below the {needed:g} needed as CLD2 is not sure"
    if found.confidence < floor:
        return None, f"detected {_said(found)}, below min_confidence = {floor:g}"
    return tag_in_script(str(found.language), script, text)


def _said(guess: Guess) -> str:
    return f"{guess.language or 'no language'} with confidence {guess.confidence:.2f}"


def tag_in_script(language: str, script: str, text: str) -> tuple[str | None, str]:
    """Find the tag of a language in the script of the text. Where it is not written so, a message says that."""
    used = scripts_written(language)
    if script == "Hani" and "Hant" in used:
        script = han_variant(text) or script
    tag = canonical_language(f"{language}_{script}")
    if tag is None or (tag != canonical_language(language) and script not in used):
        return None, f"detected {language_name(language)}, which is not written in the script of the text, {script}"
    return tag, ""


def ask_cld2(text: str) -> tuple[Guess, bool]:
    """Ask CLD2 what it takes most of a text for.

    With it come the share of the text that is in that language, and whether CLD2 is sure.
    """
    reliable, _, languages = _cld2().detect(_REFUSED_BY_CLD2.sub(" ", text), isPlainText=True)
    _, code, percent, _ = languages[0]
    language = _meant_by_cld2(code)
    return Guess(language, percent / 100), bool(reliable and language)


def ask_py3langid(text: str) -> Guess:
    """Ask py3langid what it takes a text for.

    With it comes its probability among the languages that py3langid knows.
    """
    code, probability = _py3langid().classify(text)
    return Guess(language_of(code), probability)


@cache
def known_to_cld2() -> frozenset[str]:
    cld2 = _cld2()
    names = set(cld2.DETECTED_LANGUAGES)
    return frozenset(filter(None, (_meant_by_cld2(code) for name, code in cld2.LANGUAGES if name in names)))


@cache
def known_to_py3langid() -> frozenset[str]:
    return frozenset(filter(None, map(language_of, _py3langid().labels)))


def _meant_by_cld2(code: str) -> str | None:
    return _MEANT_BY_CLD2[code] if code in _MEANT_BY_CLD2 else language_of(code)


@cache
def _py3langid() -> Any:
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ImportError as exc:
        raise ResourcesMissing("lang: detect needs py3langid: run pip install py3langid on every node") from exc
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)


@cache
def _cld2() -> Any:
    try:
        import pycld2
    except ImportError as exc:
        raise ResourcesMissing("lang: detect needs pycld2: run pip install pycld2 on every node") from exc
    return pycld2
