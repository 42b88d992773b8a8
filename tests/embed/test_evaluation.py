"""Scores of encoders on parallel sentences, against cases computed by hand."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray import records
from compass_ray.embed.evaluation import (
    ParallelScores,
    language_entropy,
    parallel_scores,
    retrieval_at_1,
    topic_transfer,
)
from compass_ray.errors import EmptyInput


def at(*degrees: float) -> np.ndarray:
    """Unit vectors in the plane."""
    angles = np.deg2rad(degrees)
    return np.column_stack([np.cos(angles), np.sin(angles)]).astype(np.float32)


# --- retrieval ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("queries", "answers", "score"),
    [
        ((0, 90, 180), (10, 80, 170), 1.0),
        ((0, 90, 180), (80, 10, 170), 1 / 3),
        ((0, 90, 180), (170, 5, 80), 0.0),
        ((40,), (220,), 1.0),  # there is nothing else to choose
    ],
)
def test_retrieval_is_the_fraction_whose_nearest_answer_is_in_the_same_row(
    queries: tuple[float, ...], answers: tuple[float, ...], score: float
) -> None:
    assert retrieval_at_1(at(*queries), at(*answers)) == pytest.approx(score)


def test_equal_answers_are_a_tie_that_goes_to_the_lower_row() -> None:
    assert retrieval_at_1(at(0, 0, 90), at(30, 30, 90)) == pytest.approx(2 / 3)


def test_retrieval_is_asked_from_the_queries_and_may_differ_the_other_way() -> None:
    """From 0° and 50°, the nearest of 40° and 45° are both right; from 40°, 50° is nearer than 0°."""
    assert retrieval_at_1(at(0, 50), at(40, 45)) == 1.0
    assert retrieval_at_1(at(40, 45), at(0, 50)) == 0.5


# --- topics -------------------------------------------------------------------------------------

KNOWN = at(0, 10, 20, 100, 110)
TOPICS = np.array(["sport", "health", "health", "law", "law"])


@pytest.mark.parametrize(
    ("neighbours", "expected"),
    [
        (1, "sport"),
        (2, "sport"),  # one vote each: the nearest among the tied
        (3, "health"),
        (4, "health"),
        (5, "health"),  # two votes each for health and law, and health is nearer
        (99, "health"),
    ],
)
def test_the_majority_of_the_nearest_known_sentences_decides_and_ties_go_to_the_nearest(
    neighbours: int, expected: str
) -> None:
    query = at(-1)
    for topic in ("health", "law", "sport"):
        score = topic_transfer(query, np.array([topic]), KNOWN, TOPICS, neighbours)
        assert score == float(topic == expected)


def test_a_tie_between_topics_does_not_go_to_the_first_in_the_alphabet() -> None:
    known_topics = np.array(["z", "a", "a", "z"])
    assert topic_transfer(at(0), np.array(["z"]), at(1, 2, 3, 4), known_topics, 4) == 1.0


def test_known_sentences_equally_near_are_taken_in_order() -> None:
    assert topic_transfer(at(0), np.array(["b"]), at(7, 7, 7), np.array(["b", "a", "a"]), 1) == 1.0


def test_topic_transfer_is_the_fraction_of_queries_told_right_by_seven_neighbours() -> None:
    known = at(0, 1, 2, 3, 88, 89, 90, 91)
    topics = np.array(["a"] * 4 + ["b"] * 4)
    truth = np.array(["a", "a", "b", "a"])
    assert topic_transfer(at(0, 2, 90, 91), truth, known, topics) == pytest.approx(0.75)


# --- language entropy ---------------------------------------------------------------------------


def entropy(labels: Sequence[int], languages: Sequence[str]) -> float:
    return language_entropy(np.array(labels, dtype=np.int32), np.array(languages, dtype=np.str_))


def test_clusters_of_one_language_each_have_entropy_zero() -> None:
    assert entropy([0, 0, 4, 4, 4, 7], ["sw", "sw", "hi", "hi", "hi", "ta"]) == 0


def test_clusters_that_hold_languages_as_the_whole_does_have_entropy_one() -> None:
    assert entropy([0, 0, 0, 1, 1, 1, 1, 1, 1], ["sw", "hi", "hi"] * 3) == pytest.approx(1)
    assert entropy([5, 5, 5], ["sw", "hi", "ta"]) == pytest.approx(1)


def test_entropy_computed_by_hand() -> None:
    """Four of one cluster are half and half (1 bit), two of another are one language (0 bits); 4/6 over H(2/6)."""
    whole = -(2 / 6 * np.log2(2 / 6) + 4 / 6 * np.log2(4 / 6))
    assert entropy([0, 0, 0, 0, 1, 1], ["sw", "sw", "hi", "hi", "hi", "hi"]) == pytest.approx(4 / 6 / whole)


def test_one_language_alone_cannot_be_unmixed() -> None:
    assert entropy([0, 1, 1], ["sw", "sw", "sw"]) == 1


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from(["sw", "hi", "ta", "am"])), min_size=1, max_size=60))
def test_entropy_lies_between_zero_and_one_and_does_not_depend_on_names_or_order(rows: list[tuple[int, str]]) -> None:
    labels, languages = zip(*rows, strict=True)
    score = entropy(labels, languages)
    assert -1e-12 <= score <= 1 + 1e-12
    renamed = {"sw": "d", "hi": "c", "ta": "b", "am": "a"}
    again = entropy([9 - label for label in labels[::-1]], [renamed[lang] for lang in languages[::-1]])
    assert again == pytest.approx(score, abs=1e-12)


# --- what is reported ---------------------------------------------------------------------------

SCORES = ParallelScores(
    retrieval={"sw": 0.5, "am": 0.25, "hi": 0.9, "ta": 0.25},
    topics={"sw": 0.7, "am": 0.123456, "hi": 0.8, "ta": 0.6},
    pivot_topics=0.98765,
    candidates=204,
)


def test_means_are_over_all_languages_or_those_named() -> None:
    assert SCORES.mean() == pytest.approx((0.475, 0.555864))
    assert SCORES.mean(["sw", "hi", "en"]) == pytest.approx((0.7, 0.75))


@pytest.mark.parametrize(
    ("languages", "worst"), [(None, ("am", 0.25)), (["ta", "sw"], ("ta", 0.25)), ({"hi"}, ("hi", 0.9))]
)
def test_the_worst_language_has_the_lowest_retrieval_and_ties_go_by_name(
    languages: list[str] | set[str] | None, worst: tuple[str, float]
) -> None:
    assert SCORES.worst(languages) == worst


def test_as_dict_has_plain_values_in_order_of_language_rounded_to_four_decimals() -> None:
    plain = SCORES.as_dict()
    assert plain == {
        "candidates": 204,
        "pivot_topics": 0.9877,
        "languages": {
            "am": {"retrieval": 0.25, "topics": 0.1235},
            "hi": {"retrieval": 0.9, "topics": 0.8},
            "sw": {"retrieval": 0.5, "topics": 0.7},
            "ta": {"retrieval": 0.25, "topics": 0.6},
        },
    }
    assert list(plain["languages"]) == ["am", "hi", "sw", "ta"]


# --- a whole encoder ----------------------------------------------------------------------------

Row = tuple[int, str, str, str]


def parallel(*rows: Row) -> pa.Table:
    return pa.Table.from_pylist(
        [
            {"corpus": "c", "group": group, "lang": lang, "text": text, "label": label}
            for group, lang, text, label in rows
        ],
        schema=records.PARALLEL,
    )


def encode(texts: Sequence[str]) -> np.ndarray:
    """An encoder of texts that say their direction in degrees."""
    return at(*(float(text.split()[0]) for text in texts))


KNOWN_SENTENCES = parallel(
    *((group, "eng_Latn", f"{group} known", "a") for group in range(5)),
    *((group, "eng_Latn", f"{85 + group} known", "b") for group in range(5, 10)),
    *((group, "swh_Latn", f"{group + 180} never asked", "c") for group in range(10)),
)
SCORED: tuple[Row, ...] = (
    (0, "eng_Latn", "0 en", "a"),
    (1, "eng_Latn", "30 en", "a"),
    (2, "eng_Latn", "60 en", "b"),
    (3, "eng_Latn", "95 en", "a"),
)


def test_languages_are_scored_against_the_pivot_in_order_of_group_and_not_of_row() -> None:
    """Topics are a below 47° and b above: the last English sentence is told wrong, and two of four in Swahili."""
    swahili = ((3, "swh_Latn", "91 sw", "a"), (0, "swh_Latn", "2 sw", "a"), (2, "swh_Latn", "31 sw", "b"))
    scores = parallel_scores(encode, KNOWN_SENTENCES, parallel(*SCORED, *swahili, (1, "swh_Latn", "29 sw", "a")), "en")
    assert scores == ParallelScores({"swh_Latn": 0.75}, {"swh_Latn": 0.5}, 0.75, 4)


def test_a_language_that_lacks_sentences_is_scored_on_those_it_has_and_those_the_pivot_lacks_have_topics() -> None:
    few = ((1, "hin_Deva", "28 hi", "a"), (3, "hin_Deva", "64 hi", "a"), (9, "hin_Deva", "88 hi", "b"))
    scores = parallel_scores(encode, KNOWN_SENTENCES, parallel(*few, *SCORED), "en")
    assert scores.retrieval == {"hin_Deva": 1.0}  # 64° is nearer to 95° than to 30°; 60° is not among the candidates
    assert scores.topics == {"hin_Deva": pytest.approx(2 / 3)}


def test_of_several_texts_in_one_language_the_first_counts() -> None:
    swahili = tuple((group, "swh_Latn", text.replace("en", "sw"), label) for group, _, text, label in SCORED)
    again = tuple((group, "swh_Latn", "200 sw", label) for group, _, _, label in SCORED)
    scores = parallel_scores(encode, KNOWN_SENTENCES, parallel(*SCORED, *swahili, *again), "en")
    assert scores.retrieval == {"swh_Latn": 1.0}
    other = parallel_scores(encode, KNOWN_SENTENCES, parallel(*SCORED, *again, *swahili), "en")
    assert other.retrieval == {"swh_Latn": 0.25}


@pytest.mark.parametrize(
    ("known", "pivot", "found"),
    [
        (KNOWN_SENTENCES, "fr", "eng_Latn, hin_Deva in scored, eng_Latn, swh_Latn in known"),
        (KNOWN_SENTENCES, "sw", "eng_Latn, hin_Deva in scored, eng_Latn, swh_Latn in known"),
        (KNOWN_SENTENCES.slice(10), "en", "eng_Latn, hin_Deva in scored, swh_Latn in known"),
    ],
)
def test_a_pivot_that_is_not_in_both_sets_is_an_error_that_lists_their_languages(
    known: pa.Table, pivot: str, found: str
) -> None:
    with pytest.raises(EmptyInput) as caught:
        parallel_scores(encode, known, parallel(*SCORED, (0, "hin_Deva", "1 hi", "a")), pivot)
    assert str(caught.value) == f"scores: no sentences in the pivot language {pivot}; found {found}"


def test_a_language_that_shares_no_sentence_with_the_pivot_is_an_error() -> None:
    with pytest.raises(EmptyInput) as caught:
        parallel_scores(encode, KNOWN_SENTENCES, parallel(*SCORED, (8, "hin_Deva", "1 hi", "a")), "en")
    assert str(caught.value) == ("scores: hin_Deva shares no sentence with eng_Latn; check the key of scores.scored")
