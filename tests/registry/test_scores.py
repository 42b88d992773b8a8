"""Scores in words, against figures worked out by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
from registry_helpers import lineage

from compass_ray import records
from compass_ray.pipelines.registry import scores_for_people
from compass_ray.registry.card import model_card
from compass_ray.registry.scores import HEADINGS, score_lines


def row(measures: str, lang: str, documents: int, inside: int, base: float, after: float) -> dict[str, Any]:
    """Scores of texts of 2 bytes a token; the losses are in bits a token."""
    tokens = 10 * documents
    body: dict[str, Any] = {"measures": measures, "lang": lang, "documents": documents, "in_language": inside}
    body |= {"tokens": tokens, "bytes": 2 * tokens}
    for prefix, bits in (("base_", base), ("", after)):
        figures = {"loss": bits * math.log(2), "perplexity": 2**bits, "bits_per_byte": bits / 2}
        body |= {prefix + name: figures[name] for name in figures}
    return body


USAGE, MIXTURE = row("usage", "sw", 25, 25, 9.0, 8.0), row("mixture", "sw", 101, 7, 8.0, 6.0)
OTHERS = [row("other", "ta", 30, 10, 4.0, 5.0), row("other", "hi", 10, 4, 8.0, 9.0)]


def test_usage_comes_first_then_the_mixture_then_other_languages_whatever_the_order_of_the_rows() -> None:
    lines = score_lines([*OTHERS, MIXTURE, USAGE])
    assert [line.cells() for line in lines] == [
        ("held-out usage", "25 of 25", "6.238 → 5.545", "4.500 → 4.000", "-11.1%", "512.0 → 256.0"),
        ("trained mixture", "7 of 101", "5.545 → 4.159", "4.000 → 3.000", "-25.0%", "256.0 → 64.0"),
        # 300 tokens at 4 bits and 100 at 8 are 400 at 5
        ("other languages", "14 of 40", "3.466 → 4.159", "2.500 → 3.000", "+20.0%", "32.0 → 64.0"),
    ]
    assert HEADINGS == ("measured on", "in language", "loss", "bits per byte", "change", "perplexity")


@pytest.mark.parametrize("missing", records.MEASURES)
def test_what_was_not_measured_says_so_in_its_own_line(missing: str) -> None:
    nothing = {**dict.fromkeys(USAGE), "measures": missing, "lang": "sw", "documents": 0, "in_language": 0}
    rest = [each for each in (USAGE, MIXTURE, *OTHERS) if each["measures"] != missing]
    for rows in (rest, [nothing, *rest]):
        lines = score_lines(rows)
        assert len(lines) == 3
        line = lines[records.MEASURES.index(missing)]
        called = {"usage": "no held-out usage", "mixture": "no held-out mixture", "other": "no other languages"}
        assert line.cells() == (called[missing], *["–"] * 5)


def test_a_hopeless_model_has_infinite_perplexity_and_no_overflow() -> None:
    bad = {**USAGE, "base_loss": 1e4}
    assert score_lines([bad])[0].perplexity == "inf → 256.0"


def test_the_card_names_each_score_in_order() -> None:
    scores = {"heldout": [USAGE, MIXTURE, *OTHERS], "training": {"steps": 36}}
    card = model_card(lineage(scores=scores, documents={"train": 77}))
    places = [card.index(f"| {called} |") for called in ("held-out usage", "trained mixture", "other languages")]
    assert places == sorted(places)
    assert f"| {' | '.join(HEADINGS)} |\n| --- | --- | --- | --- | --- | --- |\n| held-out usage | 25 of 25 |" in card
    assert "| training.steps | 36 |" in card
    assert "no held-out usage" in model_card(lineage(scores={"heldout": [MIXTURE]}))


def test_a_version_is_shown_with_the_same_words_and_one_of_an_older_release_as_it_is() -> None:
    told = scores_for_people({"training": {"steps": 36}, "heldout": [USAGE, MIXTURE]})
    assert list(told) == ["held-out usage", "trained mixture", "no other languages", "training"]
    assert told["trained mixture"] == (
        "in language 7 of 101, loss 5.545 → 4.159, bits per byte 4.000 → 3.000, change -25.0%, perplexity 256.0 → 64.0"
    )
    older = {"heldout": {"sw": {"loss": 1.0}}}
    assert scores_for_people(older) == older
