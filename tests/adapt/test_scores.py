"""Loss, perplexity and bits per byte of a case worked out by hand."""

from __future__ import annotations

import math

import pytest

from compass_ray.adapt.scores import Score


def test_a_model_that_gives_every_byte_one_half_needs_one_bit_for_it() -> None:
    score = Score(nats=10 * math.log(2), tokens=5, n_bytes=10, documents=1)
    assert score.bits_per_byte == pytest.approx(1)
    assert score.loss == pytest.approx(2 * math.log(2))
    assert score.perplexity == pytest.approx(4)


def test_the_same_text_in_more_tokens_has_other_perplexity_and_equal_bits_per_byte() -> None:
    coarse, fine = Score(30.0, 10, 40, 1), Score(30.0, 20, 40, 1)
    assert coarse.perplexity > fine.perplexity
    assert coarse.bits_per_byte == fine.bits_per_byte


def test_a_hopeless_model_has_infinite_perplexity_and_no_overflow() -> None:
    score = Score(nats=1e6, tokens=1, n_bytes=1, documents=1)
    assert score.perplexity == math.inf
    assert "perplexity" not in score.to_json()


def test_scores_survive_json() -> None:
    score = Score(12.5, 4, 9, 2)
    assert Score.from_json(score.to_json()) == score
