"""Which languages go first inside a cluster: the target language, those near to it, the rest."""

from __future__ import annotations

from collections.abc import Sequence

import langcodes
import numpy as np
from numpy.typing import NDArray

from compass_ray.languages import macro_language
from compass_ray.sample.config import SampleConfig
from compass_ray.sample.uriel import read_features

OWN, NEAR, OTHER = 0, 1, 2

_NEAR_SIMILARITY = 0.75
"""URIEL similarity from which languages are near."""

_NEAR_DISTANCE = 80
"""CLDR distance below which languages are near. Unrelated languages of one script are 84 apart, of two scripts more."""


def language_tiers(target_lang: str, languages: Sequence[str], config: SampleConfig) -> NDArray[np.int64]:
    """Rank languages by how early their rows are drawn: 0 first.

    Parameters
    ----------
    target_lang, languages : BCP-47 tags
        Whose selection, and the pool's languages.
    config : SampleConfig
        ``language_prior`` decides: ``none`` makes all alike, ``own`` puts the target language first, ``near`` also
        those near to it: by URIEL where ``language_features`` is given, else those of one macro-language and by the
        distances of CLDR, which know related languages, what speakers of one commonly read, and scripts.

    Returns
    -------
    ndarray of shape (n_languages,), int64
    """
    if config.language_prior == "none":
        return np.zeros(len(languages), dtype=np.int64)
    near = _near(target_lang, languages, config) if config.language_prior == "near" else np.zeros(len(languages), bool)
    own = np.array(languages, dtype=object) == target_lang
    return np.where(own, OWN, np.where(near, NEAR, OTHER)).astype(np.int64)


def _near(target_lang: str, languages: Sequence[str], config: SampleConfig) -> NDArray[np.bool_]:
    if config.language_features is None:
        return np.array([_are_near(target_lang, lang) for lang in languages], dtype=bool)
    similarity = read_features(config.language_features).similarity(target_lang, languages)
    return np.asarray(np.nan_to_num(similarity, nan=0.0) >= _NEAR_SIMILARITY)


def _are_near(target_lang: str, lang: str) -> bool:
    if macro_language(target_lang) == macro_language(lang):  # whose members CLDR's distances know in part
        return True
    return langcodes.tag_distance(target_lang, lang) < _NEAR_DISTANCE
