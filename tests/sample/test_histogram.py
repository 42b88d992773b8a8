"""Counts that add up: roles, eligibility, held-out usage."""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compass_ray import records
from compass_ray.holdout import heldout_mask
from compass_ray.sample.histogram import (
    SOFT_COUNT_UNIT,
    eligible_mask,
    merge,
    shard_histogram,
    shard_spread,
)
from compass_ray.sample.problem import build_problems, near_usage_count
from compass_ray.usage_shares import soft_counts

N_CLUSTERS = 4
WEIGHTS = np.arange(1, N_CLUSTERS + 1) / (N_CLUSTERS * (N_CLUSTERS + 1) / 2)
NOTHING = np.zeros(N_CLUSTERS)
APART = 1.0 - np.eye(N_CLUSTERS)


def identifier(number: int) -> bytes:
    return np.random.default_rng([77, number]).bytes(16)


def row(role: str, content: int, **values: Any) -> dict[str, Any]:
    """One assignment; its doc_id follows from content, role, target language and language, as in ingest."""
    made = {"role": role, "target_lang": None if role == "pool" else "sw", "lang": "sw", "cluster": 0, "tokens": 10}
    made |= {"similarity": 0.5, "outlier": False, "similarities": None, **values}
    identity = zlib.crc32(repr((role, made["target_lang"], made["lang"], content)).encode())
    return {"doc_id": identifier(identity), "content_id": identifier(content), **made}


def table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=records.ASSIGNMENT)


ROWS = st.lists(
    st.builds(
        lambda role, content, target_lang, lang, cluster, outlier, tokens: row(
            role,
            content,
            target_lang=None if role == "pool" else target_lang,
            lang=lang,
            cluster=cluster,
            outlier=outlier,
            tokens=tokens,
        ),
        st.sampled_from(records.ROLES),
        st.integers(0, 12),
        st.sampled_from(["sw", "hi"]),
        st.sampled_from(["sw", "hi", "en"]),
        st.integers(0, N_CLUSTERS - 1),
        st.booleans(),
        st.integers(1, 9),
    ),
    max_size=25,
)

TARGET_LANGS = ("hi", "sw")
NOT_NEAR = records.NEAR_USAGE.empty_table()


def near_usage(pairs: Iterable[tuple[str, bytes]]) -> pa.Table:
    """Target languages and the pool documents that nearly repeat their usage."""
    rows = [
        {"target_lang": target_lang, "doc_id": doc, "usage": identifier(0), "same_words": False}
        for target_lang, doc in pairs
    ]
    return pa.Table.from_pylist(rows, schema=records.NEAR_USAGE)


def cells(histogram: pa.Table) -> dict[tuple[Any, ...], tuple[int, ...]]:
    """Documents, tokens and squares by target language, role, language and cluster."""
    rows = [tuple(row.values()) for row in histogram.to_pylist()]
    return {row[:4]: row[4:] for row in rows}


def counted_in_python(
    rows: list[dict[str, Any]], near: set[tuple[str, bytes]], seed: int, fraction: float
) -> dict[tuple[Any, ...], tuple[int, ...]]:
    """The rules of the design, one row at a time."""
    copies = Counter((one["role"], one["target_lang"], one["content_id"]) for one in rows)
    squares: Counter[tuple[Any, ...]] = Counter()
    documents: Counter[tuple[Any, ...]] = Counter()
    tokens: Counter[tuple[Any, ...]] = Counter()
    held = heldout_mask(table(rows), seed, fraction) if rows else []

    def count(cell: tuple[Any, ...], one: dict[str, Any]) -> None:
        documents[cell] += 1
        tokens[cell] += one["tokens"]
        squares[cell] += copies[one["role"], one["target_lang"], one["content_id"]]

    usage = {one["content_id"] for one in rows if one["role"] == "usage"}
    for one, is_held in zip(rows, held, strict=True):
        bin_number = N_CLUSTERS if one["outlier"] else one["cluster"]
        count((one["target_lang"], "heldout" if is_held else one["role"], one["lang"], bin_number), one)
        for target_lang in TARGET_LANGS:
            mine = {o["content_id"] for o in rows if o["role"] == "current" and o["target_lang"] == target_lang}
            if one["role"] != "pool" or one["outlier"]:
                continue
            if one["content_id"] in usage | mine:
                count((target_lang, "ineligible", one["lang"], one["cluster"]), one)
            elif (target_lang, one["doc_id"]) in near:
                count((target_lang, "near_usage", one["lang"], one["cluster"]), one)
    return {cell: (documents[cell], tokens[cell], squares[cell]) for cell in documents}


@settings(deadline=None)
@given(rows=ROWS, seed=st.integers(0, 99), fraction=st.sampled_from([0.0, 0.3, 0.9]), data=st.data())
def test_a_shards_counts_are_those_of_the_rules_applied_row_by_row(
    rows: list[dict[str, Any]], seed: int, fraction: float, data: st.DataObject
) -> None:
    pairs = [(target_lang, one["doc_id"]) for target_lang in TARGET_LANGS for one in rows if one["role"] == "pool"]
    near = {pair for pair in sorted(set(pairs)) if data.draw(st.booleans())}
    found = shard_histogram(table(rows), near_usage(near), TARGET_LANGS, N_CLUSTERS, seed, fraction)
    assert found.schema.equals(records.HISTOGRAM)
    assert cells(found) == counted_in_python(rows, near, seed, fraction)


@settings(deadline=None)
@given(shards=st.lists(ROWS, min_size=1, max_size=5), data=st.data())
def test_histograms_merge_to_the_same_table_in_any_order_and_grouping(
    shards: list[list[dict[str, Any]]], data: st.DataObject
) -> None:
    parts = [shard_histogram(table(rows), NOT_NEAR, TARGET_LANGS, N_CLUSTERS, 0, 0.3) for rows in shards]
    order = data.draw(st.permutations(range(len(parts))))
    cut = data.draw(st.integers(1, len(parts)))
    one_by_one = merge(parts[:1])
    for part in parts[1:]:
        one_by_one = merge([one_by_one, part])
    left = merge([parts[i] for i in order[:cut]])
    regrouped = merge([*(parts[i] for i in order[cut:]), left])
    assert regrouped.equals(one_by_one)
    assert merge([merge(parts)]).equals(one_by_one)


def test_an_empty_shard_counts_nothing() -> None:
    assert shard_histogram(table([]), NOT_NEAR, TARGET_LANGS, N_CLUSTERS, 0, 0.3).num_rows == 0
    shared, own = shard_spread(table([]), WEIGHTS, 0, 0.3)
    assert not shared.any()
    assert own == {}


def with_similarities(rows: list[dict[str, Any]], seed: int = 0) -> list[dict[str, Any]]:
    """The rows with similarities to all clusters where they are usage."""
    rng = np.random.default_rng(seed)
    found = [rng.uniform(0, 1, N_CLUSTERS).astype(np.float16) for _ in rows]
    return [one | {"similarities": s if one["role"] == "usage" else None} for one, s in zip(rows, found, strict=True)]


def test_usage_that_is_neither_held_out_nor_outlying_is_shared_among_all_clusters() -> None:
    rows = with_similarities(
        [*(row("usage", n, outlier=n < 5) for n in range(60)), *(row("pool", 100 + n) for n in range(9))]
    )
    held = heldout_mask(table(rows), 0, 0.3)
    known = [one["similarities"] for one, is_held in zip(rows, held, strict=True) if not is_held]
    kept = np.array([s for s in known if s is not None][sum(~held[:5]) :])
    found, _ = shard_spread(table(rows), WEIGHTS, 0, 0.3)
    assert found * SOFT_COUNT_UNIT == pytest.approx(soft_counts(kept, WEIGHTS).sum(axis=0), abs=1e-5)
    assert found.sum() * SOFT_COUNT_UNIT == pytest.approx(len(kept), abs=1e-5)
    assert 20 < len(kept) < 50


def test_what_several_shards_share_adds_up_to_the_same_in_any_order() -> None:
    rows = with_similarities([row("usage", n) for n in range(40)])
    parts = [shard_spread(table(rows[start : start + 10]), WEIGHTS, 0, 0.3)[0] for start in range(0, 40, 10)]
    assert (sum(parts[1:], parts[0]) == sum(parts[:3][::-1], parts[3])).all()


def test_what_a_target_languages_usage_adds_to_its_own_clusters_is_told_apart_and_copies_go_together() -> None:
    rows = with_similarities([row("usage", n, target_lang="sw" if n % 3 else "hi", cluster=n % 4) for n in range(30)])
    copied = [*rows, rows[1], rows[1]]
    shares = soft_counts(np.array([one["similarities"] for one in rows], dtype=np.float16), WEIGHTS)
    for some, copies in ((rows, 1), (copied, 3)):
        _, own = shard_spread(table(some), WEIGHTS, 0, 0.0)
        assert own.keys() == {"sw", "hi"}
        for target_lang in own:
            mine = [n for n, one in enumerate(rows) if one["target_lang"] == target_lang]
            times = np.array([copies**2 if n == 1 else 1 for n in mine])  # each of n copies adds n times its share
            expected = np.bincount([n % 4 for n in mine], times * shares[mine, [n % 4 for n in mine]], minlength=4)
            assert own[target_lang] * SOFT_COUNT_UNIT == pytest.approx(expected, abs=1e-5)


def eligible(rows: list[dict[str, Any]], target_lang: str = "sw", near: pa.Table = NOT_NEAR) -> list[bool]:
    return eligible_mask(table(rows), near, target_lang).tolist()


def test_a_pool_row_is_eligible_and_no_other_role_is() -> None:
    assert eligible([row("pool", 1), row("current", 2), row("usage", 3)]) == [True, False, False]


def test_an_outlier_is_not_eligible() -> None:
    assert eligible([row("pool", 1, outlier=True), row("pool", 2)]) == [False, True]


def test_a_pool_row_equal_to_current_is_ineligible_for_that_target_language_only() -> None:
    rows = [row("pool", 1), row("current", 1, target_lang="sw"), row("pool", 2)]
    assert eligible(rows, "sw") == [False, False, True]
    assert eligible(rows, "hi") == [True, False, True]


@pytest.mark.parametrize("outlier", [False, True], ids=["inlier", "outlier"])
@pytest.mark.parametrize("target_lang", ["sw", "hi"])
def test_a_pool_row_equal_to_any_target_languages_usage_is_ineligible_for_all(target_lang: str, outlier: bool) -> None:
    rows = [
        row("usage", 1, target_lang=target_lang, outlier=outlier),
        row("pool", 1),
        row("pool", 1, lang="en"),
        row("pool", 2),
    ]
    assert eligible(rows, "sw") == eligible(rows, "hi") == [False, False, False, True]


def test_a_pool_row_equal_to_held_out_usage_is_ineligible_too() -> None:
    rows = [row("usage", number) for number in range(50)] + [row("pool", number) for number in range(50)]
    assert heldout_mask(table(rows), 0, 0.5).sum() > 10
    assert not any(eligible(rows))


def test_a_pool_row_near_to_usage_is_ineligible_for_the_target_language_of_that_usage_only() -> None:
    rows = [row("pool", 1), row("pool", 2)]
    near = near_usage([("sw", rows[0]["doc_id"])])
    assert eligible(rows, "sw", near) == [False, True]
    assert eligible(rows, "hi", near) == [True, True]


def test_what_nearly_repeats_usage_is_no_capacity_and_counted_apart_from_what_repeats_it() -> None:
    rows = [row("usage", 1), *(row("pool", number, cluster=1, tokens=10 + number) for number in range(1, 6))]
    near = near_usage([("sw", rows[1]["doc_id"]), ("sw", rows[3]["doc_id"]), ("hi", rows[4]["doc_id"])])
    histogram = shard_histogram(table(rows), near, TARGET_LANGS, N_CLUSTERS, 0, 0.0)
    (problem,) = build_problems(histogram, NOTHING, {}, APART)
    assert problem.capacity.tolist() == [[0], [3], [0], [0]]  # one repeats usage, one is near to it
    assert problem.capacity_tokens.tolist() == [[0], [12 + 14 + 15], [0], [0]]
    assert [near_usage_count(histogram, target_lang) for target_lang in (*TARGET_LANGS, "de")] == [1, 1, 0]


def test_capacity_is_the_pool_without_outliers_and_ineligible_rows() -> None:
    rows = [
        row("usage", 1, cluster=2),
        row("pool", 1, cluster=2),
        *[row("pool", 10 + number, cluster=2) for number in range(5)],
        row("pool", 30, cluster=2, outlier=True),
        row("pool", 31, cluster=3, lang="en"),
    ]
    (problem,) = build_problems(shard_histogram(table(rows), NOT_NEAR, ["sw"], N_CLUSTERS, 0, 0.0), NOTHING, {}, APART)
    assert problem.languages == ("en", "sw")
    assert problem.capacity.tolist() == [[0, 0], [0, 0], [0, 5], [1, 0]]
    assert problem.usage.tolist() == [0, 0, 1, 0, 0]


# Held-out usage


def many_rows(count: int = 4000) -> list[dict[str, Any]]:
    target_langs = ("sw", "hi")
    return [
        row("usage", 1000 + i, target_lang=target_langs[i % 2], lang=target_langs[i % 2], cluster=i % N_CLUSTERS)
        for i in range(count)
    ]


def test_held_out_usage_is_never_in_the_usage_that_decides() -> None:
    rows = many_rows()
    mask = heldout_mask(table(rows), 3, 0.3)
    histogram = shard_histogram(table(rows), NOT_NEAR, TARGET_LANGS, N_CLUSTERS, 3, 0.3)
    problems = {problem.target_lang: problem for problem in build_problems(histogram, NOTHING, {}, APART)}
    for target_lang, problem in problems.items():
        kept, held = (
            [sum(r["target_lang"] == target_lang and r["cluster"] == k and m == side
                 for r, m in zip(rows, mask, strict=True))
             for k in range(N_CLUSTERS)]
            for side in (False, True)
        )  # fmt: skip
        assert problem.usage.tolist() == [*kept, 0]
        assert problem.heldout.tolist() == [*held, 0]
        assert sum(held) > 400
    assert (
        problems["sw"].other_usage.tolist()
        == sum(problem.usage[:-1] for target_lang, problem in problems.items() if target_lang != "sw").tolist()
    )


def test_a_target_language_whose_usage_is_all_held_out_still_has_a_problem() -> None:
    histogram = pa.Table.from_pylist(
        [
            {
                "target_lang": "sw",
                "role": "heldout",
                "lang": "sw",
                "cluster": 1,
                "documents": 3,
                "tokens": 9,
                "squares": 3,
            }
        ],
        schema=records.HISTOGRAM,
    )
    (problem,) = build_problems(histogram, np.zeros(2), {}, np.zeros((2, 2)))
    assert (problem.target_lang, problem.usage.sum(), problem.heldout.tolist()) == ("sw", 0, [0, 3, 0])


def test_the_outlier_bin_is_the_last_one() -> None:
    rows = [row("usage", 1, cluster=1, outlier=True), row("current", 2, cluster=1, outlier=True)]
    (problem,) = build_problems(shard_histogram(table(rows), NOT_NEAR, ["sw"], N_CLUSTERS, 0, 0.0), NOTHING, {}, APART)
    assert problem.usage.tolist() == problem.current.tolist() == [0, 0, 0, 0, 1]


def test_copies_of_usage_count_as_often_as_they_are_there_and_tell_no_more() -> None:
    rows = [row("usage", number, cluster=0) for number in (1, 2, 3, 3, 3)]
    (problem,) = build_problems(shard_histogram(table(rows), NOT_NEAR, ["sw"], N_CLUSTERS, 0, 0.0), NOTHING, {}, APART)
    assert (problem.usage.sum(), problem.usage_squares.tolist()) == (5, [11, 0, 0, 0, 0])
    assert problem.usage_effective == 25 / 11
