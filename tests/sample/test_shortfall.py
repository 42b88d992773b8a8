"""What is drawn where the pool lacks what usage asks for, in whose language, and what is said of it."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from draws import finish
from hypothesis import given, settings
from hypothesis import strategies as st

from compass_ray import records
from compass_ray.errors import ConfigError, InfeasibleBudget
from compass_ray.languages import language_name
from compass_ray.sample.config import SampleConfig
from compass_ray.sample.gaps import shares_of
from compass_ray.sample.near_duplicates import Sameness
from compass_ray.sample.problem import Problem
from compass_ray.sample.sampler import Sampler
from compass_ray.sample.shortfall import languages_of, near_usage_notes, shortfall_notes
from compass_ray.sample.target_draw import TargetDraw
from compass_ray.vectors import unit_rows

LANGUAGES = ("en", "rw", "sw")
ANGLES = np.array([0.0, 0.1, 1.5, 3.0])
DISTANCE = 1.0 - np.cos(ANGLES[:, None] - ANGLES)
"""Cluster 1 is near to 0; 2 and 3 are far from all."""

CAPACITY = np.array([[3, 0, 2], [10, 0, 5], [50, 0, 0], [40, 20, 30]])
"""By cluster and language."""

USAGE = np.array([80, 0, 20, 0])


def pool_rows(capacity: np.ndarray) -> pa.Table:
    cells = [(k, LANGUAGES[column]) for k, row in enumerate(capacity) for column, n in enumerate(row) for _ in range(n)]
    rng = np.random.default_rng(1)
    return pa.table(
        {
            "target_lang": ["sw"] * len(cells),
            "cluster": pa.array([k for k, _ in cells], pa.int32()),
            "lang": [lang for _, lang in cells],
            "key": rng.gumbel(size=len(cells)),
            "doc_id": records.numpy_to_ids(rng.integers(0, 256, (len(cells), 16), dtype=np.uint8)),
            "tokens": pa.array(np.full(len(cells), 10)),
            "similarity": pa.array([0.5] * len(cells), pa.float32()),
            "shard": pa.array([0] * len(cells), pa.int32()),
        },
        schema=records.CANDIDATE,
    )


def problem_of(capacity: np.ndarray, usage: np.ndarray = USAGE) -> Problem:
    counts = np.append(usage, 0)
    return Problem(
        target_lang="sw",
        languages=LANGUAGES,
        usage=counts,
        heldout=counts,
        current=counts * 0,
        capacity=capacity,
        other_usage=usage * 0,
        soft_counts=usage.astype(np.float64),
        own_soft_counts=usage.astype(np.float64),
        current_tokens=counts * 0,
        capacity_tokens=10 * capacity,
        usage_tokens=10 * usage,
        distance=DISTANCE,
    )


def settled(capacity: np.ndarray = CAPACITY, sameness: Sameness | None = None, **fields: Any) -> TargetDraw:
    """A finished draw from a pool whose documents are all distinct, unless a sameness is given."""
    config = SampleConfig(**{"budget": 100, "transport_reach": 0.2, **fields})
    problem, rows = problem_of(capacity), pool_rows(capacity)
    shares = shares_of(problem, transports=config.transports)
    if config.unit == "tokens":
        problem, shares = problem.in_tokens(), shares.in_tokens(problem)
    rule = sameness or Sameness(0.99)
    draw = TargetDraw(problem, shares, config, rule)
    vectors = dict(
        zip(
            rows["doc_id"].to_pylist(),
            unit_rows(np.random.default_rng(2).normal(size=(rows.num_rows, 64))),
            strict=True,
        )
    )
    finish(draw, [rows], vectors, config, rule)
    return draw


def notes_of(draw: TargetDraw, **fields: Any) -> list[str]:
    config = SampleConfig(**{"budget": 100, "transport_reach": 0.2, **fields})
    return shortfall_notes(draw, draw.drawn(), config)


def by_cluster(draw: TargetDraw) -> list[int]:
    return np.bincount(draw.drawn()["cluster"].to_numpy(), minlength=4).tolist()


def test_stop_draws_what_clusters_and_near_ones_hold_and_no_more() -> None:
    draw = settled(shortfall="stop")
    balance = draw.balance()
    assert balance is not None
    asked = balance.asked.tolist()
    assert sum(asked) == 100
    assert asked[0] > 70, "usage is there"
    assert by_cluster(draw)[:2] == [5, 15], "all of cluster 0, and all of the one near to it"
    assert by_cluster(draw)[2:] == asked[2:], "others give what they are asked for"
    assert balance.moved_out.tolist() == [15 - asked[1], 0, 0, 0]
    assert balance.moved_in.tolist() == [0, 15 - asked[1], 0, 0]
    assert balance.unmet.tolist() == [asked[0] - 5 - (15 - asked[1]), 0, 0, 0]
    assert draw.drawn().num_rows + balance.unmet.sum() == 100


def test_no_cluster_gets_more_than_it_is_asked_for_and_was_moved_to_it() -> None:
    for shortfall in ("stop", "nearest", "own_language"):
        draw = settled(shortfall=shortfall)
        balance = draw.balance()
        assert balance is not None
        assert (draw.quotas.sum(axis=1) <= balance.asked + balance.moved_in).all()


def test_nearest_goes_on_beyond_the_reach() -> None:
    draw = settled(shortfall="nearest")
    balance = draw.balance()
    assert draw.drawn().num_rows == 100
    assert balance is not None
    assert not balance.unmet.any()
    for_the_first = draw.drawn().filter(pc.equal(draw.drawn()["asked_by"], 0))
    assert {0, 1} < set(for_the_first["cluster"].to_pylist())


def test_own_language_draws_own_rows_that_are_asked_for_then_any_nearest_first() -> None:
    draw = settled(budget=20)
    rows = draw.drawn()
    assert set(rows["lang"].to_pylist()) == {"sw"}, "the pool holds enough"
    asked = rows.filter(rows["asked_by"].is_valid())
    assert sorted(asked["cluster"].to_pylist()) == [0] * 2 + [1] * 5, "all of the cluster and of the one near to it"
    before = set(asked["doc_id"].to_pylist())
    left = [row for row in pool_rows(CAPACITY).to_pylist() if row["lang"] == "sw" and row["doc_id"] not in before]
    best = sorted(left, key=lambda row: -row["key"])[:13]
    filled = rows.filter(rows["asked_by"].is_null())
    assert {row["doc_id"] for row in best} == set(filled["doc_id"].to_pylist())
    assert draw.balance().unmet.sum() == 13, "which no document of the kind that is asked for serves"


def test_other_languages_serve_what_clusters_ask_for_once_own_rows_are_all_drawn() -> None:
    draw = settled(own_language_epochs=1)
    rows = draw.drawn()
    own = rows.filter(pc.equal(rows["lang"], "sw"))
    assert own.num_rows == CAPACITY[:, 2].sum()
    others = rows.filter(pc.not_equal(rows["lang"], "sw"))
    assert others["asked_by"].null_count == 0
    balance = draw.balance()
    for cluster, held in enumerate([3, 10, 50, 60]):
        assert pc.sum(pc.equal(others["cluster"], cluster)).as_py() <= held
    assert rows.num_rows == min(100, own.num_rows + others.num_rows)
    asked = np.bincount(rows["asked_by"].drop_null().to_numpy(), minlength=4)
    assert (asked == balance.asked - balance.unmet).all()
    assert draw.repeats == 0
    assert not any(
        language_name(lang) in note for lang in ("en", "rw") for note in notes_of(draw, own_language_epochs=1)
    )


def test_own_rows_trained_on_again_come_before_other_languages() -> None:
    draw = settled()
    held = int(CAPACITY[:, 2].sum())
    assert languages_of(draw.drawn()) == {"sw": held}, "which fill the budget when trained on three times"
    assert draw.repeats == 100 - held
    unmet, left = notes_of(draw)
    assert unmet.endswith("comes before them, up to 4 times over (sample.own_language_epochs)")
    assert left == (
        f"{100 - held} of the 100 documents of the budget are left to Swahili trained on again, up to 4 times, and not "
        "given to other languages (sample.own_language_epochs; see adapt.training.epochs)"
    )


def test_other_languages_get_what_repeated_own_rows_leave_of_the_budget() -> None:
    held = int(CAPACITY[:, 2].sum())
    draw = settled(own_language_epochs=2)
    counts = languages_of(draw.drawn())
    assert counts.pop("sw") == held
    assert sum(counts.values()) == 100 - 2 * held
    assert draw.repeats == held
    assert draw.drawn()["asked_by"].drop_null().to_pylist().count(0) > 2, "what clusters ask for"
    assert notes_of(draw, own_language_epochs=2)[-1].startswith(f"{held} of the 100 documents of the budget are left")


def test_what_neither_own_rows_nor_clusters_fill_is_not_used() -> None:
    capacity = np.array([[0, 0, 2], [0, 0, 0], [0, 0, 0], [30, 0, 0]])
    draw = settled(capacity)
    assert languages_of(draw.drawn()) == {"sw": 2}, "no cluster asks for the English rows"
    assert [note.split(" of the budget")[0] for note in notes_of(draw)[1:]] == [
        "6 of the 100 documents",
        "92 more of the 100 documents",
    ]


@pytest.mark.parametrize("epochs", [1, 4])
def test_a_cap_on_the_target_language_bounds_its_repeats(epochs: int) -> None:
    draw = settled(max_language_fraction={"sw": 0.4}, own_language_epochs=epochs)
    counts = languages_of(draw.drawn())
    assert counts["sw"] == CAPACITY[:, 2].sum()
    assert draw.repeats == (3 if epochs > 1 else 0), "up to 40 of 100"
    assert counts["en"] == 33, "all that clusters still ask for and others hold"


def test_a_floor_of_another_language_comes_before_repeats() -> None:
    draw = settled(min_language_fraction={"en": 0.2})
    assert languages_of(draw.drawn()) == {"sw": 37, "en": 20}
    assert draw.repeats == 43


def test_repeats_are_counted_in_the_unit_of_the_budget() -> None:
    draw = settled(budget=None, budget_tokens=900, own_language_epochs=2)
    assert languages_of(draw.drawn())["sw"] == 37
    assert draw.repeats == 370
    rest = sum(draw.drawn()["tokens"].to_pylist()) - 370
    assert 900 - 740 - 10 <= rest <= 900 - 740
    [note] = [note for note in notes_of(draw, budget=None, budget_tokens=900, own_language_epochs=2) if "again" in note]
    assert note.startswith("370 of the 900 tokens of the budget are left to Swahili trained on again, up to 2 times")


@settings(max_examples=60, deadline=None)
@given(
    capacity=st.lists(st.lists(st.integers(0, 12), min_size=3, max_size=3), min_size=4, max_size=4),
    budget=st.integers(1, 60),
    reach=st.sampled_from([0.0, 0.2, 0.5, 1.0]),
    epochs=st.integers(1, 5),
)
def test_whatever_the_pool_own_rows_are_used_up_first_and_the_balance_adds_up(
    capacity: list[list[int]], budget: int, reach: float, epochs: int
) -> None:
    held = np.array(capacity)
    draw = settled(held, budget=budget, transport_reach=reach, own_language_epochs=epochs)
    rows, balance = draw.drawn(), draw.balance()
    assert balance is not None
    own = languages_of(rows).get("sw", 0)
    assert own == min(budget, held[:, 2].sum())
    assert len(set(rows["doc_id"].to_pylist())) == rows.num_rows <= budget
    assert rows.num_rows - own <= max(0, budget - epochs * own), "others get what repeated own rows leave"
    assert draw.repeats == min(epochs * own - own, budget - rows.num_rows)
    assert balance.asked.sum() == budget
    assert (balance.unmet >= 0).all()
    asked_by = np.bincount(rows["asked_by"].drop_null().to_numpy(), minlength=4)
    assert (asked_by == balance.asked - balance.unmet).all()
    assert (draw.quotas.sum(axis=1) <= balance.asked + balance.moved_in).all()


def test_rows_of_other_languages_give_way_and_the_note_says_so() -> None:
    draw = settled(budget=20)
    (note,) = notes_of(draw, budget=20)
    assert re.fullmatch(
        r"the pool holds \d+ distinct Swahili documents for \d+ % of Swahili usage, \d+ more come from near clusters; "
        r"13 of that share unfilled, though other languages hold \d+ more there: Swahili of other clusters comes "
        r"before them \(sample\.shortfall: own_language\)",
        note,
    )


def test_without_a_prior_own_rows_only_fill_what_is_left() -> None:
    stop, fill = (settled(shortfall=how, language_prior="none") for how in ("stop", "own_language"))
    drawn = set(fill.drawn()["doc_id"].to_pylist())
    assert set(stop.drawn()["doc_id"].to_pylist()) < drawn
    assert len(drawn) == stop.drawn().num_rows + fill.drawn()["asked_by"].null_count


def test_a_floor_of_another_language_is_set_aside_from_own_rows() -> None:
    draw = settled(budget=20, min_language_fraction={"en": 0.5})
    assert languages_of(draw.drawn()) == {"en": 10, "sw": 10}


def test_a_cap_inside_clusters_keeps_their_quotas() -> None:
    draw = settled(budget=40, max_cluster_language_fraction=0.5)
    quotas = draw.quotas
    assert (quotas[:, 2] <= np.ceil(quotas.sum(axis=1) / 2)).all()
    assert quotas[:, 0].sum() > 0


def test_a_fill_keeps_to_the_cap_on_its_language() -> None:
    draw = settled(max_language_fraction={"sw": 0.2})
    assert languages_of(draw.drawn())["sw"] == 20


def test_accept_fills_the_budget_from_anywhere_and_says_what_was_asked() -> None:
    draw = settled(shortfall="accept")
    assert draw.drawn().num_rows == 100
    assert draw.drawn()["asked_by"].null_count == 100
    balance = draw.balance()
    assert balance is not None
    assert balance.unmet[0] == balance.asked[0] - 5
    assert not balance.moved_out.any()


def test_own_language_goes_first_inside_every_cluster() -> None:
    own = settled(shortfall="stop", budget=10).quotas
    for cluster, row in enumerate(own):
        assert row[:2].sum() == 0 or row[2] == CAPACITY[cluster, 2], "others only where Swahili is used up"
    alike = settled(shortfall="stop", budget=10, language_prior="none").quotas
    assert alike[:, 2].sum() < own[:, 2].sum()


def test_near_languages_come_before_the_rest() -> None:
    """CLDR knows that speakers of Swahili commonly read English; Kinyarwanda is unrelated by its tables."""
    capacity = np.array([[30, 30, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0]])
    near = settled(capacity, language_prior="near", shortfall="stop", budget=20)
    assert near.quotas[0].tolist()[1:] == [0, 1]
    own = settled(capacity, language_prior="own", shortfall="stop", budget=20)
    assert own.quotas[0, 1] > 0


def test_a_floor_is_met_inside_clusters_or_said_not_to_be() -> None:
    capacity = np.array([[60, 0, 40], [9, 0, 9], [30, 0, 30], [0, 0, 0]])
    plain = settled(capacity, shortfall="stop", language_prior="none", budget=40)
    raised = settled(capacity, shortfall="stop", language_prior="none", budget=40, min_language_fraction=0.8)
    assert languages_of(plain.drawn())["sw"] < 24
    assert languages_of(raised.drawn())["sw"] == 32
    assert plain.quotas.sum(axis=1).tolist() == raised.quotas.sum(axis=1).tolist(), "clusters keep their quotas"
    config = SampleConfig(budget=40, min_language_fraction={"rw": 0.9}, shortfall="stop", transport_reach=0.2)
    short = settled(shortfall="stop", budget=40, min_language_fraction={"rw": 0.9})
    notes = shortfall_notes(short, short.drawn(), config)
    assert any("min_language_fraction asks for 36 documents of Kinyarwanda, and 0 were drawn" in note for note in notes)


def test_a_floor_for_the_target_language_above_its_cap_is_refused() -> None:
    config = SampleConfig(budget=9, min_language_fraction=0.5, max_language_fraction={"sw": 0.2})
    with pytest.raises(
        ConfigError, match=r"asks for 0\.5 of 'sw' in its own selection, and max_language_fraction allows 0\.2"
    ):
        config.check_floor("sw")
    config.check_floor("en")


def test_what_is_unmet_is_said_in_a_sentence() -> None:
    config = SampleConfig(budget=100, transport_reach=0.2, shortfall="stop")
    draw = settled(shortfall="stop")
    balance = draw.balance()
    assert balance is not None
    note, left = shortfall_notes(draw, draw.drawn(), config)
    assert left == f"{balance.unmet.sum()} of the 100 documents of the budget are not used"
    share = round(100 * draw.shares.usage[0])
    assert note == (
        f"the pool holds 5 distinct documents for {share} % of Swahili usage, {balance.moved_out[0]} more come from "
        f"near clusters; {balance.unmet[0]} of that share unfilled"
    )


def test_languages_without_documents_and_bounds_that_bind_nothing_are_noted() -> None:
    capacity = CAPACITY.copy()
    capacity[:, 2] = 0
    config = SampleConfig(budget=20, max_language_fraction={"fr": 0.5}, transport_reach=0.2)
    problem = problem_of(capacity)
    problem = Problem(**{**vars(problem), "languages": ("en", "rw", "zu")})
    draw = TargetDraw(problem, shares_of(problem, transports=True), config, Sameness(np.inf))
    notes = shortfall_notes(draw, records.CANDIDATE.empty_table(), config)
    assert "the pool holds no Swahili documents: all rows are of other languages" in notes
    assert "bounds on languages that the pool holds nothing of: fr" in notes


def test_each_row_names_the_cluster_that_asks_for_it() -> None:
    draw = settled(shortfall="stop")
    balance = draw.balance()
    assert balance is not None
    rows = draw.drawn()
    for cluster in range(4):
        mine = rows.filter(pc.equal(rows["cluster"], cluster)).sort_by("rank")
        own = int(balance.asked[cluster]) if cluster else 5
        asked_by = mine["asked_by"].to_pylist()
        assert asked_by[:own] == [cluster] * min(own, len(asked_by))
        assert asked_by[own:] == [0] * (len(asked_by) - own)


def test_a_budget_in_tokens_is_balanced_in_tokens() -> None:
    draw = settled(budget=None, budget_tokens=1000, shortfall="stop")
    balance = draw.balance()
    assert balance is not None
    assert balance.asked.sum() == 1000
    assert balance.unmet[0] == balance.asked[0] - 50 - balance.moved_out[0]
    assert sum(draw.drawn()["tokens"].to_pylist()) <= 1000 - balance.unmet.sum()


def test_a_pool_that_repeats_itself_ends_in_unmet_usage_not_in_an_error() -> None:
    same = Sameness(-1.0)  # any two documents of a cell say the same
    draw = settled(sameness=same, shortfall="stop")
    balance = draw.balance()
    assert balance is not None
    assert draw.drawn().num_rows <= CAPACITY.astype(bool).sum()
    assert draw.drawn().num_rows + balance.unmet.sum() == 100


def sampler_of(pool: list[tuple[int, str, int]], **fields: Any) -> Sampler:
    """A sampler of ten Swahili questions in cluster 0 and a pool of (cluster, language, documents)."""
    rows = [("sw", "usage", "sw", 0, 10), *((None, "pool", lang, cluster, count) for cluster, lang, count in pool)]
    histogram = pa.table(
        {
            name: [row[column] for row in rows]
            for column, name in enumerate(("target_lang", "role", "lang", "cluster", "documents"))
        }
    )
    tokens = pa.array([10 * row[-1] for row in rows])
    histogram = histogram.append_column("tokens", tokens).append_column("squares", histogram["documents"])
    sampler = Sampler(SampleConfig(**{"budget": 5, **fields}), DISTANCE, 0, sameness=Sameness(np.inf))
    sampler.add_counts(histogram, None)
    sampler.add_soft_counts(np.array([10 << 20, 0, 0, 0]), {"sw": np.array([10 << 20, 0, 0, 0])})
    sampler.allocate()
    return sampler


def test_nothing_near_at_all_is_an_error_that_says_what_to_do() -> None:
    far = sampler_of([(3, "en", 50)], shortfall="stop", transport_reach=0.2)
    assert far.settle()
    with pytest.raises(InfeasibleBudget, match=r"nothing is drawn for sw; widen the pool, or .*shortfall=nearest"):
        far.outcome({})
    assert far.requests().num_rows == 0


def test_a_reach_of_nothing_leaves_all_unmet_and_says_so() -> None:
    near = sampler_of([(0, "sw", 1), (1, "sw", 9)], shortfall="stop", transport_reach=0.0)
    assert near.requests()["cluster"].to_pylist() == [0]
    reaching = sampler_of([(0, "sw", 1), (1, "sw", 9)], shortfall="stop", transport_reach=0.2)
    assert set(reaching.requests()["cluster"].to_pylist()) == {0, 1}


@pytest.mark.parametrize(
    ("count", "fields", "note"),
    [
        (1, {}, "1 document of the pool nearly repeats Swahili usage (the same words, or a cosine of 0.95 and more)"),
        (1200, {"near_duplicates": "off"}, "1,200 documents of the pool nearly repeat Swahili usage (the same words)"),
    ],
)
def test_how_many_rows_nearly_repeat_usage_is_said(count: int, fields: dict[str, Any], note: str) -> None:
    config = SampleConfig(budget=10, **fields)
    assert near_usage_notes(count, 1000, "sw", config) == [f"{note} and may not be drawn"]
    assert near_usage_notes(0, 1000, "sw", config) == []


def test_near_copies_that_are_most_of_the_pool_are_doubted_and_all_of_it_are_an_error() -> None:
    config = SampleConfig(budget=10)
    [note] = near_usage_notes(900, 100, "sw", config)
    assert note.endswith(
        "may not be drawn, which leaves 100: an encoder whose cosines are all high tells no near copies "
        "(sample.near_duplicates: off compares words alone)"
    )
    rows = [("usage", None), ("pool", None), ("near_usage", "sw")]
    counts = pa.Table.from_pylist(
        [
            {
                "target_lang": target_lang or ("sw" if role == "usage" else None),
                "role": role,
                "lang": "sw",
                "cluster": 0,
            }
            | {"documents": 7, "tokens": 70, "squares": 7}
            for role, target_lang in rows
        ],
        schema=records.HISTOGRAM,
    )
    sampler = Sampler(config, np.zeros((1, 1)), 0, sameness=Sameness(np.inf))
    sampler.add_counts(counts, None)
    sampler.add_soft_counts(np.array([7 << 20]), {"sw": np.array([7 << 20])})
    with pytest.raises(
        InfeasibleBudget, match=r"^target language 'sw': 7 documents of the pool nearly repeat .* leaves 0: an enc"
    ):
        sampler.allocate()
