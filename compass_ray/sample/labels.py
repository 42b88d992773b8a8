"""Names for clusters that a reader of the owner's language can check.

Terms are scored by class TF-IDF (Grootendorst, 2022): a cluster's documents are one class, and a term counts
by how often it occurs there against how often elsewhere. Scripts written without spaces are cut into
character n-grams, of which the longest that carry a score survive.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

import regex

TERMS = 4
DOCUMENTS_PER_CLUSTER = 32
"""A label is made from this many documents, those nearest to the centroid."""

_FUNCTION_WORD_SHARE = 0.1
_FEW_DOCUMENTS = 4
"""A term in more than a tenth of a language's documents, and in more than a few, is taken for a function word."""

_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}"
_RUN = regex.compile(rf"[{_UNSPACED}ー]+|[\p{{L}}\p{{M}}&&[^{_UNSPACED}]]+", regex.VERSION1)
_UNSPACED_RUN = regex.compile(rf"[{_UNSPACED}ー]", regex.VERSION1)
_KANA_ONLY = regex.compile(r"\p{Hiragana}+")
_HANGUL = regex.compile(r"\p{Hangul}{2}")
_GRAPHEME = regex.compile(r"\X")


def terms_of(text: str) -> list[str]:
    """Words in lower case, or n-grams of 2 to 4 graphemes where a script has no spaces.

    >>> terms_of("Rain fell")
    ['rain', 'fell']
    """
    terms: list[str] = []
    for run in _RUN.findall(text.lower()):
        if _UNSPACED_RUN.match(run):
            graphemes = _GRAPHEME.findall(run)
            for size in (2, 3, 4):
                terms += ["".join(graphemes[i : i + size]) for i in range(len(graphemes) - size + 1)]
        elif len(run) > 2 or _HANGUL.match(run):  # most Korean nouns have two syllables
            terms.append(run)
    return [term for term in terms if not _KANA_ONLY.fullmatch(term)]  # particles and inflections


def class_terms(documents: Mapping[int, Sequence[str]], count: int = TERMS) -> dict[int, list[str]]:
    """The most telling terms of each class.

    Parameters
    ----------
    documents : mapping of class to texts
        All in one language, so that function words are common to all classes.
    count : int
        Terms per class, at most.

    Returns
    -------
    dict of class to terms, best first
        Deterministic; ties by the term itself.
    """
    texts = {label: [terms_of(text) for text in members] for label, members in documents.items()}
    frequency = {label: Counter(term for terms in members for term in terms) for label, members in texts.items()}
    total: Counter[str] = sum(frequency.values(), Counter())
    average = total.total() / max(1, len(texts))
    documents_with = Counter(term for members in texts.values() for terms in members for term in set(terms))
    ceiling = max(_FEW_DOCUMENTS, _FUNCTION_WORD_SHARE * sum(map(len, texts.values())))
    result = {}
    for label, counts in frequency.items():
        spread = Counter(term for terms in texts[label] for term in set(terms))
        telling = [term for term in counts if documents_with[term] <= ceiling]
        repeated = [term for term in telling if spread[term] > 1] or telling
        size = max(1, counts.total())
        scores = {
            term: counts[term] / size * math.log1p(average / total[term]) * math.sqrt(len(term)) for term in repeated
        }
        result[label] = _without_parts(sorted(scores, key=lambda term: (-scores[term], term)), count)
    return result


def _without_parts(ranked: Sequence[str], count: int) -> list[str]:
    """The first terms that are neither part of, nor hold, one already chosen."""
    chosen: list[str] = []
    for term in ranked:
        if len(chosen) == count:
            break
        if not any(term in other or other in term for other in chosen):
            chosen.append(term)
    return chosen
