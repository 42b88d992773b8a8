"""From which cosine on texts of two languages say the same: fitted on text that the package carries."""

from __future__ import annotations

import csv

import numpy as np
import pytest

from compass_ray.embed.kinds import load_encoder
from compass_ray.embed.meaning import (
    MAX_FALSE_FRACTION,
    PARALLEL_TEXTS,
    meaning_threshold,
    parallel_text,
    parallel_vectors,
)
from compass_ray.vectors import unit_rows


def aligned(noise: float, languages: int = 5, sentences: int = 80, d: int = 64, seed: int = 0) -> np.ndarray:
    """Sentences as directions; a translation is the same with some noise."""
    rng = np.random.default_rng(seed)
    said = rng.normal(size=(sentences, d))
    return np.stack([unit_rows(said + noise * rng.normal(size=said.shape)) for _ in range(languages)])


def test_an_encoder_that_aligns_languages_finds_all_translations_and_takes_none_for_another() -> None:
    found = meaning_threshold(aligned(0.1))
    assert found.found_fraction == 1.0
    assert found.false_fraction <= MAX_FALSE_FRACTION
    assert (found.sentences, found.languages) == (80, 5)


def test_an_encoder_that_knows_no_translations_finds_hardly_any() -> None:
    rng = np.random.default_rng(1)
    found = meaning_threshold(unit_rows(rng.normal(size=(5 * 80, 64))).reshape(5, 80, 64))
    assert found.found_fraction < 0.02
    assert found.false_fraction <= MAX_FALSE_FRACTION


def test_the_threshold_is_the_lowest_that_keeps_to_the_false_fraction() -> None:
    vectors = aligned(1.0, sentences=250)
    found = meaning_threshold(vectors)
    centred = vectors - vectors.mean(axis=1, keepdims=True)
    centred /= np.linalg.norm(centred, axis=2, keepdims=True)
    nearest = []
    for one in range(5):
        for row in range(250):
            others = np.delete(np.delete(centred, one, axis=0), row, axis=1)
            nearest.append(float((others @ centred[one, row]).max()))
    allowed = int(MAX_FALSE_FRACTION * len(nearest))
    assert allowed == 1
    assert sum(value > found.similarity + 1e-6 for value in nearest) <= allowed
    assert sum(value > found.similarity - 1e-6 for value in nearest) > allowed


def test_what_all_texts_of_a_language_have_in_common_hides_no_translation() -> None:
    plain = aligned(0.3)
    leaning = np.random.default_rng(2).normal(size=(5, 1, 64))
    told = meaning_threshold(unit_rows((plain + 0.5 * leaning).reshape(-1, 64)).reshape(plain.shape))
    assert told.found_fraction > 0.95
    assert meaning_threshold(plain).found_fraction > 0.95


def test_the_packages_text_is_whole_and_says_each_thing_once() -> None:
    rows = list(csv.DictReader(parallel_text().decode().splitlines(), delimiter="\t", quoting=csv.QUOTE_NONE))
    languages = [name for name in rows[0] if name not in ("group", "story")]
    assert len(rows) * len(languages) == PARALLEL_TEXTS
    assert [row["group"] for row in rows] == [str(number) for number in range(len(rows))]
    for lang in languages:
        texts = [row[lang].strip() for row in rows]
        assert all(texts)
        assert len(set(texts)) == len(texts)


@pytest.mark.parametrize("model", ["bundled", "hashing"])
def test_fitting_twice_gives_the_same(model: str) -> None:
    encoder = load_encoder(model)
    first, again = (meaning_threshold(parallel_vectors(encoder)) for _ in range(2))
    assert first == again
    assert 0 < first.similarity < 1
