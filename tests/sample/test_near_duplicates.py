"""Near-duplicates: who is passed over, whatever the tiles, the depth of the lists and the order of shards."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pyarrow as pa
import pytest
from draws import UNMOVED, finish
from hypothesis import given, settings
from hypothesis import strategies as st

from compass_ray import records
from compass_ray.centering import LanguageMeans
from compass_ray.errors import InfeasibleBudget
from compass_ray.sample import near_duplicates
from compass_ray.sample.config import SampleConfig
from compass_ray.sample.gaps import shares_of
from compass_ray.sample.near_duplicates import Places, Sameness, duplicates, group_codes, keep_distinct
from compass_ray.sample.problem import Problem
from compass_ray.sample.target_draw import TargetDraw
from compass_ray.vectors import unit_rows

LANGUAGES = ("en", "sw")
LIMIT = 0.95
WITHIN = Sameness(LIMIT)
NOTHING = Sameness(np.inf)
ACROSS = Sameness(LIMIT, copy=0.9, max_copies=1)


def places(cell: np.ndarray, room: np.ndarray, lang: np.ndarray | None = None, kept: int = 0) -> Places:
    """Rows of one document each; the first few are drawn already."""
    count = len(cell)
    langs = np.zeros(count, dtype=np.int64) if lang is None else lang
    return Places(langs, cell, room, np.ones(count, dtype=np.int64), np.arange(count) < kept)


def distinct(x: np.ndarray, limit: float, cell: np.ndarray, room: np.ndarray) -> np.ndarray:
    return keep_distinct(x, x, places(cell, room), Sameness(limit))


def planted(count: int, families: int, seed: int = 0, d: int = 16) -> np.ndarray:
    """Unit rows, many of them near one of a few family heads."""
    rng = np.random.default_rng(seed)
    heads = rng.normal(size=(families, d))
    noise = rng.normal(size=(count, d)) * rng.choice([0.02, 0.2], count)[:, None]
    return unit_rows(heads[rng.integers(0, families, count)] + noise)


def one_by_one(x: np.ndarray, limit: float, cell: list[int], room: dict[int, int]) -> list[int]:
    """The rule, without tiles."""
    accepted: list[int] = []
    used = dict.fromkeys(room, 0)
    found = []
    for row in range(len(x)):
        of = next((other for other in accepted if float(x[row].astype(float) @ x[other].astype(float)) > limit), -1)
        if used[cell[row]] >= room[cell[row]]:
            found.append(-1)
            continue
        found.append(of)
        if of < 0:
            accepted.append(row)
            used[cell[row]] += 1
    return found


@pytest.mark.parametrize("tile", [1, 7, 256])
@pytest.mark.parametrize("room", [10**6, 20])
def test_suppression_is_the_rule_applied_row_by_row(tile: int, room: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "TILE_ROWS", tile)
    x = planted(300, 40)
    cell = np.random.default_rng(1).integers(0, 3, 300)
    ones = np.ones(300, dtype=np.int64)
    found = distinct(x, LIMIT, cell, room * ones)
    assert found.tolist() == one_by_one(x, LIMIT, cell.tolist(), dict.fromkeys(range(3), room))
    assert (found >= 0).sum() > 50 or room == 20


@settings(deadline=None, max_examples=30)
@given(count=st.integers(0, 60), cut=st.integers(0, 60), seed=st.integers(0, 20))
def test_the_first_answers_do_not_depend_on_the_rows_below(count: int, cut: int, seed: int) -> None:
    x, ones = planted(60, 9, seed), np.ones(60, dtype=np.int64)
    cut = min(cut, count)
    whole = distinct(x[:count], LIMIT, 0 * ones[:count], 99 * ones[:count])
    part = distinct(x[:cut], LIMIT, 0 * ones[:cut], 99 * ones[:cut])
    assert whole[:cut].tolist() == part.tolist()


def test_no_two_accepted_rows_are_near_and_every_passed_over_row_is_near_its_better_one() -> None:
    x, ones = planted(500, 60), np.ones(500, dtype=np.int64)
    found = distinct(x, LIMIT, 0 * ones, 999 * ones)
    kept = x[found < 0]
    assert np.triu(kept @ kept.T, 1).max() <= LIMIT
    for row in np.flatnonzero(found >= 0):
        assert found[row] < row
        assert x[row] @ x[found[row]] > LIMIT
        assert found[found[row]] < 0


def test_a_product_at_the_limit_is_the_same_in_tiles_of_any_height(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit is the exact product of two rows: equal is not above it, whatever a tile's rounding says."""
    x, ones = planted(64, 6), np.ones(64, dtype=np.int64)
    for row in range(1, 20):
        limit = float(x[0].astype(float) @ x[row].astype(float))
        answers = []
        for tile in (1, 3, 64):
            monkeypatch.setattr(near_duplicates, "TILE_ROWS", tile)
            answers.append(distinct(x, limit, 0 * ones, 99 * ones).tolist())
        assert answers[0] == answers[1] == answers[2]
        assert answers[0] == one_by_one(x, limit, [0] * 64, {0: 99})


def candidate_rows(count: int, seed: int = 0, target_lang: str = "hi") -> pa.Table:
    rng = np.random.default_rng(seed)
    return pa.table(
        {
            "target_lang": [target_lang] * count,
            "cluster": pa.array(rng.integers(0, 2, count), pa.int32()),
            "lang": [LANGUAGES[i] for i in rng.integers(0, 2, count)],
            "key": rng.gumbel(size=count),
            "doc_id": records.numpy_to_ids(rng.integers(0, 256, (count, 16), dtype=np.uint8)),
            "tokens": pa.array(rng.integers(1, 20, count)),
            "similarity": pa.array([0.5] * count, pa.float32()),
            "shard": pa.array([0] * count, pa.int32()),
        },
        schema=records.CANDIDATE,
    )


def test_languages_are_apart_within_and_together_across_and_target_languages_always_apart() -> None:
    rows = pa.concat_tables([candidate_rows(40), candidate_rows(40, target_lang="sw")])
    names = [rows[name].to_pylist() for name in ("target_lang", "cluster", "lang")]
    for sameness, columns in ((WITHIN, 3), (ACROSS, 1)):
        expected = list(zip(*names[:columns], strict=True))
        codes = group_codes(rows, sameness)
        assert [[a == b for b in expected] for a in expected] == (codes[:, None] == codes).tolist()


def test_a_copy_in_another_language_and_cluster_is_passed_over_only_across_languages() -> None:
    rows = candidate_rows(2).set_column(1, "cluster", pa.array([0, 1], pa.int32()))
    rows = rows.set_column(2, "lang", pa.array(["en", "sw"]))
    for name, value in (("order", [1, 0]), ("cell", [0, 1]), ("room", [9, 9]), ("kept", [False, False])):
        rows = rows.append_column(name, pa.array(value))
    x = unit_rows(np.ones((2, 4)))
    assert duplicates(rows, x, UNMOVED, WITHIN, "documents").to_pylist() == [None, None]
    better = rows["doc_id"][1].as_py()
    assert duplicates(rows, x, UNMOVED, ACROSS, "documents").to_pylist() == [better, None]
    twice = Sameness(LIMIT, copy=0.9, max_copies=2)
    assert duplicates(rows, x, UNMOVED, twice, "documents").to_pylist() == [None, None]


def test_languages_are_compared_without_their_means_and_one_language_as_it_is() -> None:
    """English and Swahili lean apart: a translation has a low cosine, and two Swahili texts a high one."""
    leaning = {"": np.zeros(4), "en": np.array([1.5, 0, 0, 0]), "sw": np.array([0, 1.5, 0, 0])}
    means = LanguageMeans({lang: mean.astype(np.float32) for lang, mean in leaning.items()})
    said = np.array([[0, 0, 1, 0], [0, 0, 1, 0], [0, 0, 0.6, 0.8]])
    langs = ["en", "sw", "sw"]
    x = (said + [leaning[lang] for lang in langs]).astype(np.float32)
    rows = candidate_rows(3).set_column(2, "lang", pa.array(langs))
    for name, value in (("order", [0, 1, 2]), ("cell", [0] * 3), ("room", [9] * 3), ("kept", [False] * 3)):
        rows = rows.append_column(name, pa.array(value))
    first = rows["doc_id"][0].as_py()
    rule = Sameness(3.0, copy=0.9, max_copies=1)
    assert duplicates(rows, x, means, rule, "documents").to_pylist() == [None, first, None]
    within = Sameness(2.8, copy=3.0, max_copies=1)  # 0.6 + 2.25
    assert duplicates(rows, x, means, within, "documents").to_pylist() == [None, None, rows["doc_id"][1].as_py()]


def copies_one_by_one(x: np.ndarray, lang: np.ndarray, sameness: Sameness) -> list[bool]:
    """The rule, without tiles: which rows are accepted."""
    rows, meaning, size = [], [], []
    for row in range(len(x)):
        cosine = [float(x[row].astype(float) @ x[other].astype(float)) for other in rows]
        repeats = any(
            c > sameness.near_duplicate for c, other in zip(cosine, rows, strict=True) if lang[other] == lang[row]
        )
        hits = [i for i, other in enumerate(rows) if lang[other] != lang[row] and cosine[i] > sameness.copy]
        if repeats or any(size[meaning[i]] >= sameness.max_copies for i in hits):
            continue
        if hits:
            meaning.append(meaning[max(hits, key=lambda i: (cosine[i], -i))])
        else:
            meaning.append(len(size))
            size.append(0)
        size[meaning[-1]] += 1
        rows.append(row)
    return [row in rows for row in range(len(x))]


@pytest.mark.parametrize("tile", [1, 7, 256])
@pytest.mark.parametrize("max_copies", [1, 2, 5])
def test_copies_are_counted_row_by_row(tile: int, max_copies: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near_duplicates, "TILE_ROWS", tile)
    x, lang = planted(300, 30), np.random.default_rng(3).integers(0, 6, 300)
    sameness = Sameness(0.99, copy=0.9, max_copies=max_copies)
    none, room = np.zeros(300, dtype=np.int64), np.full(300, 999)
    found = keep_distinct(x, x, places(none, room, lang), sameness)
    expected = copies_one_by_one(x, lang, sameness)
    assert (found < 0).tolist() == expected
    assert not all(expected)


def test_what_is_drawn_already_stays_and_counts_as_copies() -> None:
    x, lang = unit_rows(np.ones((4, 3))), np.array([0, 1, 2, 3])
    none, room = np.zeros(4, dtype=np.int64), np.full(4, 9)
    sameness = Sameness(LIMIT, copy=0.9, max_copies=2)
    assert keep_distinct(x, x, places(none, room, lang), sameness).tolist() == [-1, -1, 0, 0]
    assert keep_distinct(x, x, places(none, room, lang, kept=3), sameness).tolist() == [-1, -1, -1, 0]


# The whole draw of one target language


def problem_of(rows: pa.Table) -> Problem:
    capacity, tokens = np.zeros((2, 2), dtype=np.int64), np.zeros((2, 2), dtype=np.int64)
    columns = [LANGUAGES.index(lang) for lang in rows["lang"].to_pylist()]
    np.add.at(capacity, (rows["cluster"].to_numpy(), columns), 1)
    np.add.at(tokens, (rows["cluster"].to_numpy(), columns), rows["tokens"].to_numpy())
    some = np.array([30, 10, 0])
    return Problem(
        target_lang="hi",
        languages=LANGUAGES,
        usage=some,
        heldout=some,
        current=some * 0,
        capacity=capacity,
        other_usage=some[:2] * 0,
        soft_counts=some[:2].astype(np.float64),
        own_soft_counts=some[:2].astype(np.float64),
        current_tokens=some * 0,
        capacity_tokens=tokens,
        usage_tokens=some[:2] * 9,
        distance=1.0 - np.eye(2),
    )


def cut(rows: pa.Table, edges: list[int]) -> list[pa.Table]:
    return [rows.slice(a, b - a) for a, b in pairwise([0, *edges, rows.num_rows])]


def of_families(count: int, families: int, seed: int = 0) -> tuple[pa.Table, dict[bytes, np.ndarray]]:
    rows = candidate_rows(count, seed)
    return rows, dict(zip(rows["doc_id"].to_pylist(), planted(count, families, seed), strict=True))


@pytest.mark.parametrize("sameness", [WITHIN, ACROSS], ids=["within", "across"])
@pytest.mark.parametrize("strategy", ["kl", "unimax", "random"])
@pytest.mark.parametrize("unit", ["budget", "budget_tokens"])
def test_drawn_documents_are_distinct_fill_the_budget_and_do_not_depend_on_shards(
    sameness: Sameness, strategy: str, unit: str
) -> None:
    rows, vectors = of_families(1500, 700)
    problem = problem_of(rows)
    config = SampleConfig(strategy=strategy, shortfall="refuse", **{unit: 300})
    shares = shares_of(problem)
    answers = []
    for edges in ([], [100, 700], [5, 6, 900]):
        in_tokens = unit == "budget_tokens"
        draw = TargetDraw(
            problem.in_tokens() if in_tokens else problem,
            shares.in_tokens(problem) if in_tokens else shares,
            config,
            sameness,
        )
        finish(draw, cut(rows, edges)[::-1], vectors, config, sameness)
        answers.append(draw.drawn())
    assert answers[0].equals(answers[1])
    assert answers[0].equals(answers[2])
    drawn = answers[0]
    amount = drawn.num_rows if unit == "budget" else sum(drawn["tokens"].to_pylist())
    assert amount == 300 if unit == "budget" else 280 < amount <= 300
    group = group_codes(drawn, sameness)
    x = np.stack([vectors[doc] for doc in drawn["doc_id"].to_pylist()])
    lang = np.array(drawn["lang"].to_pylist())
    limit = np.where(lang[:, None] == lang, sameness.near_duplicate, sameness.copy)
    near = (x @ x.T > limit + 1e-5) & (group[:, None] == group) & ~np.eye(len(x), dtype=bool)
    assert not near.any()


def test_random_is_the_first_distinct_documents_of_the_sorted_pool() -> None:
    rows, vectors = of_families(800, 35)
    config = SampleConfig(strategy="random", budget=120)
    draw = TargetDraw(problem_of(rows), shares_of(problem_of(rows)), config, WITHIN)
    asked = finish(draw, [rows], vectors, config, WITHIN)
    assert len(asked) > 1, "the pool repeats itself: the first depth cannot suffice"
    taken: list[dict[str, object]] = []
    for row in sorted(rows.to_pylist(), key=lambda row: -row["key"]):
        same = [t for t in taken if (t["cluster"], t["lang"]) == (row["cluster"], row["lang"])]
        if all(float(vectors[row["doc_id"]] @ vectors[t["doc_id"]]) <= LIMIT for t in same):  # type: ignore[index]
            taken.append(row)
    assert {t["doc_id"] for t in taken[:120]} == set(draw.drawn()["doc_id"].to_pylist())


def test_what_an_exhausted_cell_cannot_give_is_asked_of_the_others() -> None:
    """Cluster 0 in English holds one text only, many times over."""
    rows, vectors = of_families(600, 600)
    mine = [row for row in rows.to_pylist() if (row["cluster"], row["lang"]) == (0, "en")]
    vectors |= {row["doc_id"]: vectors[mine[0]["doc_id"]] for row in mine}
    config = SampleConfig(budget=200, shortfall="refuse")
    draw = TargetDraw(problem_of(rows), shares_of(problem_of(rows)), config, WITHIN)
    first = draw.quotas.copy()
    finish(draw, [rows], vectors, config, WITHIN)
    drawn = draw.drawn().to_pylist()
    assert len(drawn) == 200
    assert first[0, 0] > 1
    assert sum((row["cluster"], row["lang"]) == (0, "en") for row in drawn) == 1


def test_too_few_distinct_documents_are_refused_or_accepted() -> None:
    rows, vectors = of_families(400, 5)
    shares = shares_of(problem_of(rows))
    config = SampleConfig(budget=390, shortfall="refuse")
    with pytest.raises(InfeasibleBudget, match=r"asks for 390 documents but only \d+ .* say nothing again"):
        finish(TargetDraw(problem_of(rows), shares, config, WITHIN), [rows], vectors, config, WITHIN)
    accepting = SampleConfig(budget=390, shortfall="accept")
    draw = TargetDraw(problem_of(rows), shares, accepting, WITHIN)
    finish(draw, [rows], vectors, accepting, WITHIN)
    assert 5 <= draw.drawn().num_rows < 390


def test_without_suppression_copies_are_drawn() -> None:
    rows, vectors = of_families(400, 5)
    config = SampleConfig(budget=390, near_duplicates="off", shortfall="refuse")
    draw = TargetDraw(problem_of(rows), shares_of(problem_of(rows)), config, NOTHING)
    assert finish(draw, [rows], vectors, config, NOTHING) == [390]
    assert draw.drawn().num_rows == 390
