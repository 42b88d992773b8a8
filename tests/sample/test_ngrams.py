"""DSIR's features: the same buckets and weights as the authors' package, and what they are good for."""

from __future__ import annotations

import numpy as np
import pytest

from compass_ray.sample.ngrams import hashed_ngrams, importance

TARGET = ["The river rose after the rain.", "Rain fell on the river bank!"]
RAW = [
    "The match ended two to one.",
    "Mvua ilinyesha usiku kucha, mto ukajaa.",
    "मछली नदी में तैरती है।",
    "The rain stopped; the river fell.",
    "明日は雨です。",
]
# From data-selection 1.0.3 (get_ngram_counts, fit_importance_estimator) over the same texts.
LOG_WEIGHTS = [-157.68263336966953, -201.60047813450225, -158.1539305072942, -93.38294530797324, -43.13289013835296]
BUCKETS_OF_THE_FOURTH = [976, 1660, 2644, 3933, 3960, 4361, 4455, 6326, 6623, 7112, 8288, 8288, 9139, 9694, 9697]
BUCKETS_OF_THE_LAST = [2647, 4251, 5066]


def total(texts: list[str]) -> np.ndarray:
    return np.asarray(hashed_ngrams(texts).sum(axis=0)).ravel()


def test_buckets_are_those_of_the_authors_package() -> None:
    features = hashed_ngrams(RAW).toarray()
    assert np.repeat(np.arange(10_000), features[3]).tolist() == BUCKETS_OF_THE_FOURTH
    assert np.repeat(np.arange(10_000), features[4]).tolist() == BUCKETS_OF_THE_LAST


def test_log_weights_are_those_of_the_authors_package() -> None:
    weights = hashed_ngrams(RAW) @ importance(total(TARGET), total(RAW))
    assert weights.tolist() == pytest.approx(LOG_WEIGHTS, rel=1e-12)


def test_words_like_the_targets_weigh_more_than_others_of_the_same_length() -> None:
    weights = hashed_ngrams(RAW) @ importance(total(TARGET), total(RAW))
    assert weights[3] > weights[0]


def test_counts_of_parts_add_up() -> None:
    assert (total(RAW[:2]) + total(RAW[2:])).tolist() == total(RAW).tolist()
    assert total([]).tolist() == [0] * 10_000
    assert hashed_ngrams([""]).sum() == 0
