"""Names for clusters that a reader of the target language can check.

Terms are scored by class TF-IDF (Grootendorst, 2022): a cluster's documents are one class, and a term counts
by how often it occurs there against how often elsewhere. Where a script has no spaces, terms are runs of kanji or
katakana in Japanese, and otherwise n-grams between function words, of which the longest that are repeated survive.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from functools import cache

import regex
import stopwordsiso

from compass_ray.languages import language_codes

TERMS = 4
DOCUMENTS_PER_CLUSTER = 32
"""A label is made from this many documents, those nearest to the centroid."""

_FUNCTION_WORD_SHARE = 0.1
_FEW_DOCUMENTS = 4
"""A term in more than a tenth of a language's documents, and in more than a few, is taken for a function word."""

_LONGEST = 12
"""Graphemes of an n-gram, at most."""
_MOSTLY = 0.7
"""An n-gram is part of a longer term if that is in so many of its documents."""

_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
_RUN = regex.compile(rf"[{_UNSPACED}ー]+|[\p{{L}}\p{{M}}&&[^{_UNSPACED}]]+", regex.VERSION1)
_UNSPACED_RUN = regex.compile(rf"[{_UNSPACED}ー]", regex.VERSION1)
_KANA = regex.compile(r"[\p{Hiragana}\p{Katakana}]")
_JAPANESE_WORD = regex.compile(r"\p{Han}{2,}|[\p{Katakana}ー]{2,}")
_HANGUL = regex.compile(r"\p{Hangul}{2}")
_GRAPHEME = regex.compile(r"\X")
_PARTICLES = regex.compile("[的了是吗嗎呢吧这這那与與]")
"""Chinese characters that join and end phrases and hardly occur inside of words: n-grams do not cross them."""
_ENDS_IN_A_LEADING_VOWEL = regex.compile(r"\p{Logical_Order_Exception}$")


@cache
def function_words(lang: str) -> frozenset[str]:
    """Look up the words that tell no topic in a language. They are from stopwords-iso; none where it has no list.

    >>> "the" in function_words("en"), "ang" in function_words("fil")
    (True, True)
    """
    listed = next((code for code in language_codes(lang) if stopwordsiso.has_lang(code)), None)
    return frozenset(stopwordsiso.stopwords(listed)) if listed else frozenset()


@cache
def _pieces_of_function_words(lang: str) -> frozenset[str]:
    """List function words of a script without spaces. What n-grams would cut out of them is in too."""
    unspaced = [word for word in function_words(lang) if _UNSPACED_RUN.match(word)]
    return frozenset(piece for word in unspaced for piece in [word, *_ngrams(word, len(word))])


def terms_of(text: str, lang: str = "") -> list[str]:
    """List a text's words in lower case without function words.
    In scripts without spaces they are n-grams of 2 to 12 graphemes.

    >>> terms_of("The rain fell", "en")
    ['rain', 'fell']
    """
    terms: list[str] = []
    japanese = _KANA.search(text) is not None
    for run in _RUN.findall(text.lower().replace("i\u0307", "i")):  # Turkish İ becomes an i and a dot
        if not _UNSPACED_RUN.match(run):
            if len(run) > 2 or _HANGUL.match(run):  # most Korean nouns have two syllables
                terms.append(run)
        elif japanese:  # hiragana are particles and inflections
            terms += _JAPANESE_WORD.findall(run)
        else:
            terms += _telling_ngrams(run, lang)
    words = function_words(lang)
    return [term for term in terms if term not in words]


def _telling_ngrams(run: str, lang: str) -> Iterator[str]:
    known = _pieces_of_function_words(lang)
    for piece in _PARTICLES.split(run):
        for term in _ngrams(piece, _LONGEST):
            if term not in known and not _ENDS_IN_A_LEADING_VOWEL.search(term):
                yield term


def _ngrams(text: str, longest: int) -> Iterator[str]:
    """Yield n-grams of two graphemes and more, short ones first."""
    graphemes = _GRAPHEME.findall(text)
    for size in range(2, min(longest, len(graphemes)) + 1):
        for start in range(len(graphemes) - size + 1):
            yield "".join(graphemes[start : start + size])


def class_terms(documents: Mapping[int, Sequence[str]], lang: str = "", count: int = TERMS) -> dict[int, list[str]]:
    """Find the most telling terms of each class.

    Parameters
    ----------
    documents : mapping of class to texts
        All in one language, so that function words are common to all classes.
    lang : str
        That language, whose function words are left out as far as they are known.
    count : int
        Terms per class, at most.

    Returns
    -------
    dict of class to terms, best first
        Deterministic; ties by the term itself.
    """
    texts = {label: [terms_of(text, lang) for text in members] for label, members in documents.items()}
    frequency = {label: Counter(term for terms in members for term in terms) for label, members in texts.items()}
    total: Counter[str] = sum(frequency.values(), Counter())
    average = total.total() / max(1, len(texts))
    documents_with = Counter(term for members in texts.values() for terms in members for term in set(terms))
    ceiling = max(_FEW_DOCUMENTS, _FUNCTION_WORD_SHARE * sum(map(len, texts.values())))
    result = {}
    for label, counts in frequency.items():
        spread = Counter(term for terms in texts[label] for term in set(terms))
        telling = [term for term in counts if documents_with[term] <= ceiling]
        repeated = _whole([term for term in telling if spread[term] > 1] or telling, spread)
        size = max(1, counts.total())
        scores = {
            term: counts[term] / size * math.log1p(average / total[term]) * math.sqrt(len(term)) for term in repeated
        }
        result[label] = _without_parts(sorted(scores, key=lambda term: (-scores[term], term)), count)
    return result


def _whole(terms: Sequence[str], spread: Mapping[str, int]) -> list[str]:
    """Leave out the n-grams that mostly occur as part of a longer one."""
    longer: dict[str, int] = {}
    for term in terms:
        if _UNSPACED_RUN.match(term):
            for part in _ngrams(term, len(term)):
                if part != term:
                    longer[part] = max(longer.get(part, 0), spread[term])
    return [term for term in terms if longer.get(term, 0) < _MOSTLY * spread[term]]


def _without_parts(ranked: Sequence[str], count: int) -> list[str]:
    """Choose the first terms that do not clash with one already chosen.

    They neither hold, nor are part of, nor overlap it.
    """
    chosen: list[str] = []
    for term in ranked:
        if len(chosen) == count:
            break
        if not any(term in other or other in term or _overlap(term, other) for other in chosen):
            chosen.append(term)
    return chosen


def _overlap(one: str, other: str) -> bool:
    """Tell whether two n-grams may be cut from the same word. Then the end of one is the start of the other."""
    if not (_UNSPACED_RUN.match(one) and _UNSPACED_RUN.match(other)):
        return False
    sizes = range(2, min(len(one), len(other)))
    return any(one[-size:] == other[:size] or other[-size:] == one[:size] for size in sizes)
