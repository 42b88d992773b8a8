"""Languages whose data may go under another tag: said in a dry run, where usage would find none of them in the pool."""

from __future__ import annotations

from collections.abc import Collection

import langcodes

from compass_ray.languages import macro_language

_READ_ALIKE = 20
"""CLDR distance, of either tag from the other, up to which speakers of one read the other. Of related languages that
they do not (Spanish and Guarani) it is 24, of others more.
"""


def only_near(usage: Collection[str], pool: Collection[str]) -> dict[str, list[str]]:
    """Find languages of usage that the pool has under neighbouring tags alone. Each comes with these tags.

    Parameters
    ----------
    usage, pool : collection of str
        Canonical tags. Cost: one look-up in the tables of CLDR a pair.

    >>> only_near(["sw", "zh-Hant", "acm", "yue", "yo"], ["sw", "zh", "ar", "swc", "ha"])
    {'zh-Hant': ['zh'], 'acm': ['ar'], 'yue': ['zh']}
    """
    near = {lang: [other for other in sorted(pool) if _are_near(lang, other)] for lang in usage if lang not in pool}
    return {lang: others for lang, others in near.items() if others}


def _are_near(one: str, other: str) -> bool:
    """Tell whether two tags are of one language or macro-language. Languages that are read alike count, too."""
    if macro_language(one) == macro_language(other):
        return True
    return min(langcodes.tag_distance(one, other), langcodes.tag_distance(other, one)) <= _READ_ALIKE
