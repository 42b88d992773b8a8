"""From which cosine on two texts in different languages say the same, for one encoder.

Encoders differ: translations lie at a cosine of 0.8 for one and unrelated texts for another. So the threshold is
fitted on parallel text that the package carries: stories of five sentences, which are about one thing and say different
things, and questions of one form, in fourteen languages. Cost: one model load and a thousand short texts, once an
encoder and output folder.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray

from compass_ray.embed.encoder import Encoder
from compass_ray.vectors import unit_rows

MAX_FALSE_FRACTION = 0.001
"""Sentences that may be taken for a translation of another one, when the threshold is fitted: a tenth of what may be in
a pool, which is larger and in more languages."""

PARALLEL_TEXTS = 72 * 14
"""Texts of the parallel text that the package carries."""

_BATCH = 64


@dataclass(frozen=True)
class Meaning:
    """A fitted threshold and what it does on the text that it was fitted on.

    Attributes
    ----------
    similarity : float
        Cosine above which two texts of different languages say the same.
    found_fraction : float
        Pairs of translations that lie above it.
    false_fraction : float
        Sentences that have one with another meaning above it.
    sentences, languages : int
        What it was fitted on.
    """

    similarity: float
    found_fraction: float
    false_fraction: float
    sentences: int
    languages: int


def meaning_threshold(vectors: NDArray[np.float32]) -> Meaning:
    """Find the lowest cosine at which hardly any sentence is taken for a translation of another one.

    Language means are subtracted first, as where documents are compared (:mod:`compass_ray.centering`).

    Parameters
    ----------
    vectors : ndarray of shape (n_languages, n_sentences, d), float32
        Unit rows; sentences of one number say the same.

    Returns
    -------
    Meaning
        At most ``MAX_FALSE_FRACTION`` of all texts have a text of another language *and* meaning above the threshold.
    """
    languages, sentences, _ = vectors.shape
    vectors = unit_rows((vectors - vectors.mean(axis=1, keepdims=True)).reshape(languages * sentences, -1)).reshape(
        vectors.shape
    )
    nearest_other = np.full((languages, sentences), -1.0)
    translations = []
    for one in range(languages):
        for other in range(languages):
            if one == other:
                continue
            cosines = vectors[one].astype(np.float64) @ vectors[other].astype(np.float64).T
            translations.append(cosines.diagonal().copy())
            np.fill_diagonal(cosines, -1.0)
            nearest_other[one] = np.maximum(nearest_other[one], cosines.max(axis=1))
    similarity = float(np.quantile(nearest_other, 1 - MAX_FALSE_FRACTION, method="higher"))
    found = float((np.concatenate(translations) > similarity).mean())
    return Meaning(similarity, found, float((nearest_other > similarity).mean()), sentences, languages)


def parallel_vectors(encoder: Encoder) -> NDArray[np.float32]:
    """Encode the parallel text that the package carries, shape (n_languages, n_sentences, d)."""
    rows = list(csv.DictReader(parallel_text().decode().splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))
    languages = [name for name in rows[0] if name not in ("group", "story")]
    return np.stack([encode_all(encoder, [row[lang] for row in rows]) for lang in languages])


def encode_all(encoder: Encoder, texts: list[str]) -> NDArray[np.float32]:
    """Encode texts a batch at a time, shape (n, d)."""
    parts = [encoder.encode(texts[start : start + _BATCH]) for start in range(0, len(texts), _BATCH)]
    return np.concatenate(parts).astype(np.float32)


def parallel_text() -> bytes:
    """Read the parallel text that the package carries, written for it.

    It is tab-separated, with a column for each language.
    """
    return files("compass_ray.embed").joinpath("parallel.tsv").read_bytes()
