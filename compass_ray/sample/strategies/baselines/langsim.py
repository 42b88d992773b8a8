"""``langsim``: languages by their typological similarity to the target language's, in URIEL (Littell et al., 2017)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from compass_ray.sample.config import SampleConfig
from compass_ray.sample.problem import Problem
from compass_ray.sample.strategies.base import by_language
from compass_ray.sample.uriel import read_features

_POWER = 4.0
"""Similarities of languages lie close together; at this power the nearest ones stand out."""


def _weights(problem: Problem, config: SampleConfig) -> NDArray[np.float64]:
    """Weigh languages by their similarity to the target language, to a power. Shape (n_languages,).

    A language that the tables lack counts as the mean of the others.
    """
    assert config.language_features is not None, "the config has been checked"  # noqa: S101
    similarity = read_features(config.language_features).similarity(problem.target_lang, problem.languages)
    known = ~np.isnan(similarity)
    filled = np.where(known, similarity, similarity[known].mean() if known.any() else 1.0)
    weights: NDArray[np.float64] = filled**_POWER
    return weights


STRATEGY = by_language(_weights)
