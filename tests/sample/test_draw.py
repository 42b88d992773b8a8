"""Which documents fill the quotas: the same whatever the shards, each once per target language, as many as asked."""

from __future__ import annotations

from collections import Counter
from functools import cache
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from compass_ray import records, seeding
from compass_ray.artifacts import Artifact
from compass_ray.sample import candidates as offers
from compass_ray.sample.draw import QUOTA, fill_tokens, keep_best, quota_table, ranks
from compass_ray.sample.scorer import Scorer
from compass_ray.sample.shard import Shard

LANGUAGES = ("en", "sw")
N_CLUSTERS, N_SHARDS, SEED = 3, 6, 11


def pool(count: int, seed: int = 0) -> pa.Table:
    """Pool assignments over all cells, a few of them outliers."""
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 256, (count, 16), dtype=np.uint8)
    return pa.table(
        {
            "doc_id": records.numpy_to_ids(ids),
            "content_id": records.numpy_to_ids(ids),
            "role": ["pool"] * count,
            "target_lang": pa.nulls(count, pa.string()),
            "lang": [LANGUAGES[i] for i in rng.integers(0, 2, count)],
            "tokens": pa.array(rng.integers(1, 99, count), pa.int32()),
            "cluster": pa.array(rng.integers(0, N_CLUSTERS, count), pa.int32()),
            "similarity": pa.array(rng.random(count), pa.float32()),
            "outlier": rng.random(count) < 0.1,
            "similarities": pa.nulls(count, records.ASSIGNMENT.field("similarities").type),
        },
        schema=records.ASSIGNMENT,
    )


def candidates(rows: pa.Table, number: int, wanted: pa.Table, seed: int) -> pa.Table:
    """What a shard of these rows offers where all documents have the same chance."""
    nowhere = Artifact("nowhere", "none", {})
    shard = Shard(f"{number:05d}", rows, records.NEAR_USAGE.empty_table(), nowhere, nowhere, seed, 0.0)
    asked = wanted.append_column("nearest", pa.array([False] * wanted.num_rows))
    return offers.candidates(shard, asked, Scorer(), {}, "documents")


@cache
def shards() -> list[pa.Table]:
    return [pool(30 + 20 * number, seed=number) for number in range(N_SHARDS)]


def quotas(sw: list[list[int]], hi: list[list[int]]) -> pa.Table:
    return pa.concat_tables([quota_table("hi", LANGUAGES, np.array(hi)), quota_table("sw", LANGUAGES, np.array(sw))])


QUOTAS = quotas(sw=[[5, 3], [0, 12], [1, 0]], hi=[[2, 2], [7, 1], [0, 20]])


@cache
def shard_candidates() -> list[pa.Table]:
    return [candidates(rows, number, QUOTAS, SEED) for number, rows in enumerate(shards())]


@cache
def drawn() -> pa.Table:
    return keep_best(pa.concat_tables(shard_candidates()), QUOTAS)


def test_the_draw_is_what_sorting_all_keys_in_python_gives() -> None:
    expected = []
    for quota in QUOTAS.to_pylist():
        found = []
        for number, rows in enumerate(shards()):
            keys = seeding.gumbel(records.ids_to_numpy(rows["doc_id"]), SEED, "draw", quota["target_lang"])
            for one, key in zip(rows.to_pylist(), keys.tolist(), strict=True):
                if (one["cluster"], one["lang"]) == (quota["cluster"], quota["lang"]) and not one["outlier"]:
                    found.append((-key, one["doc_id"], number))
        cell = (quota["target_lang"], quota["cluster"], quota["lang"])
        expected += [(*cell, doc, shard) for _, doc, shard in sorted(found)[: quota["quota"]]]
    names = ("target_lang", "cluster", "lang", "doc_id", "shard")
    assert list(zip(*(drawn()[name].to_pylist() for name in names), strict=True)) == expected


@settings(deadline=None)
@given(order=st.permutations(range(N_SHARDS)), cuts=st.lists(st.integers(0, N_SHARDS), max_size=4))
def test_candidates_merge_to_the_same_table_in_any_order_and_grouping(order: list[int], cuts: list[int]) -> None:
    edges = [0, *sorted(cuts), N_SHARDS]
    groups = [[shard_candidates()[i] for i in order[a:b]] for a, b in pairwise(edges)]
    merged = [keep_best(pa.concat_tables(group), QUOTAS) for group in groups if group]
    assert keep_best(pa.concat_tables(merged[::-1]), QUOTAS).equals(drawn())


@settings(deadline=None)
@given(order=st.permutations(range(N_SHARDS)))
def test_candidates_taken_one_after_the_other_give_the_same_table(order: list[int]) -> None:
    held = records.CANDIDATE.empty_table()
    for i in order:
        held = keep_best(pa.concat_tables([held, shard_candidates()[i]]), QUOTAS)
    assert held.equals(drawn())


@settings(deadline=None, max_examples=25)
@given(count=st.integers(1, 12), seed=st.integers(0, 50))
def test_cutting_the_pool_into_other_shards_draws_the_same_documents(count: int, seed: int) -> None:
    everything = pa.concat_tables(shards())
    home = np.random.default_rng(seed).integers(0, count, everything.num_rows)
    parts = [candidates(everything.filter(pa.array(home == n)), n, QUOTAS, SEED) for n in range(count)]
    again = keep_best(pa.concat_tables(parts), QUOTAS)
    assert again.drop_columns(["shard"]).equals(drawn().drop_columns(["shard"]))


def test_quotas_are_met_in_every_cell() -> None:
    found = Counter(zip(*(drawn()[name].to_pylist() for name in ("target_lang", "cluster", "lang")), strict=True))
    assert found == {(q["target_lang"], q["cluster"], q["lang"]): q["quota"] for q in QUOTAS.to_pylist()}


def test_a_quota_above_the_cell_takes_the_whole_cell_without_outliers() -> None:
    rows = shards()[5]
    wanted = quota_table("sw", LANGUAGES, np.array([[999, 0]]))
    found = candidates(rows, 0, wanted, SEED)
    expected = [r["doc_id"] for r in rows.to_pylist() if (r["cluster"], r["lang"], r["outlier"]) == (0, "en", False)]
    assert sorted(found["doc_id"].to_pylist()) == sorted(expected)
    assert found.num_rows > 5


def test_no_document_is_drawn_twice_for_one_target_language_but_two_target_languages_may_share_it() -> None:
    large = np.full((N_CLUSTERS, 2), 40)
    wanted = pa.concat_tables([quota_table(target_lang, LANGUAGES, large) for target_lang in ("hi", "sw")])
    parts = [candidates(rows, number, wanted, SEED) for number, rows in enumerate(shards())]
    both = keep_best(pa.concat_tables(parts), wanted)
    pairs = list(zip(both["target_lang"].to_pylist(), both["doc_id"].to_pylist(), strict=True))
    assert len(pairs) == len(set(pairs))
    assert len({doc for _, doc in pairs}) < len(pairs)


def test_a_shard_never_offers_more_than_a_cells_quota() -> None:
    limits = {(q["target_lang"], q["cluster"], q["lang"]): q["quota"] for q in QUOTAS.to_pylist()}
    for part in shard_candidates():
        found = Counter(zip(*(part[name].to_pylist() for name in ("target_lang", "cluster", "lang")), strict=True))
        assert all(count <= limits[cell] for cell, count in found.items())


def test_rows_of_a_cell_without_quota_are_not_offered() -> None:
    assert ("sw", 1, "en") not in set(
        zip(*(drawn()[name].to_pylist() for name in ("target_lang", "cluster", "lang")), strict=True)
    )


@pytest.mark.parametrize("rows", [pool(0), pool(40)], ids=["empty shard", "shard"])
def test_no_quotas_and_empty_shards_give_an_empty_table(rows: pa.Table) -> None:
    nothing = candidates(rows, 0, QUOTA.empty_table(), SEED)
    assert nothing.num_rows == 0
    assert nothing.schema.equals(records.CANDIDATE)
    assert candidates(pool(0), 0, QUOTAS, SEED).num_rows == 0
    assert ranks(nothing.append_column("tier", pa.array([], pa.int64()))).num_rows == 0


def test_every_document_of_a_cell_has_the_same_chance() -> None:
    rows = pool(60)
    cell = quota_table("sw", LANGUAGES, np.array([[3, 0]]))
    members = [r["doc_id"] for r in rows.to_pylist() if (r["cluster"], r["lang"], r["outlier"]) == (0, "en", False)]
    counts: Counter[bytes] = Counter()
    for seed in range(1200):
        counts.update(candidates(rows, 0, cell, seed)["doc_id"].to_pylist())
    assert set(counts) == set(members)
    # without replacement the counts vary less than multinomial ones, so this test is lenient, not strict
    assert stats.chisquare([counts[member] for member in members]).pvalue > 1e-3


def test_another_target_language_or_seed_draws_other_documents() -> None:
    rows = pool(600)
    same = np.array([[20, 20], [20, 20], [20, 20]])
    by = {
        (target_lang, seed): set(
            candidates(rows, 0, quota_table(target_lang, LANGUAGES, same), seed)["doc_id"].to_pylist()
        )
        for target_lang in ("hi", "sw")
        for seed in (0, 1)
    }
    for one, other in [(("hi", 0), ("sw", 0)), (("hi", 0), ("hi", 1))]:
        assert len(by[one] & by[other]) < 50
    assert len(by["hi", 0]) == 120


def test_equal_keys_go_to_the_lower_id() -> None:
    ids = np.array([[9] * 16, [1] * 16, [5] * 16, [1] * 15 + [0]], dtype=np.uint8)
    rows = pa.table(
        {
            "target_lang": ["sw"] * 4,
            "cluster": pa.array([0] * 4, pa.int32()),
            "lang": ["en"] * 4,
            "key": [1.0, 1.0, 1.0, 1.0],
            "doc_id": records.numpy_to_ids(ids),
            "tokens": [7] * 4,
            "similarity": pa.array([0.5] * 4, pa.float32()),
            "shard": pa.array([0] * 4, pa.int32()),
        },
        schema=records.CANDIDATE,
    )
    kept = keep_best(rows, quota_table("sw", LANGUAGES, np.array([[3, 0]])))
    assert [value[-1] for value in kept["doc_id"].to_pylist()] == [0, 1, 5]


def test_ranks_count_from_one_within_a_cluster_by_tier_and_falling_key() -> None:
    rows = drawn().filter(pc.equal(drawn()["target_lang"], "hi"))
    tier = np.array([lang == "en" for lang in rows["lang"].to_pylist()], dtype=np.int64)
    ranked = ranks(rows.append_column("tier", pa.array(tier)))
    assert ranked.num_rows == rows.num_rows
    runs: dict[int, list[tuple[int, bool, float]]] = {}
    for one in ranked.to_pylist():
        runs.setdefault(one["cluster"], []).append((one["rank"], one["lang"] == "en", -one["key"]))
    for run in runs.values():
        assert [rank for rank, *_ in run] == list(range(1, len(run) + 1))
        assert [place for _, *place in run] == sorted(place for _, *place in run)


def test_a_quota_table_holds_the_cells_above_zero() -> None:
    made = quota_table("sw", LANGUAGES, np.array([[0, 2], [3, 0]]))
    assert made.to_pylist() == [
        {"target_lang": "sw", "cluster": 0, "lang": "sw", "quota": 2},
        {"target_lang": "sw", "cluster": 1, "lang": "en", "quota": 3},
    ]


def test_a_quota_may_leave_language_or_cluster_open() -> None:
    by_language = quota_table("sw", LANGUAGES, np.array([7, 0]))
    whole_pool = quota_table("hi", LANGUAGES, np.array(9))
    wanted = pa.concat_tables([whole_pool, by_language])
    parts = [candidates(rows, number, wanted, SEED) for number, rows in enumerate(shards())]
    found = keep_best(pa.concat_tables(parts), wanted).to_pylist()
    assert Counter((row["target_lang"], row["lang"]) for row in found if row["target_lang"] == "sw") == {
        ("sw", "en"): 7
    }
    everyone = [
        (-key, row["doc_id"])
        for rows in shards()
        for row, key in zip(
            rows.to_pylist(),
            seeding.gumbel(records.ids_to_numpy(rows["doc_id"]), SEED, "draw", "hi").tolist(),
            strict=True,
        )
        if not row["outlier"]
    ]
    assert [row["doc_id"] for row in found if row["target_lang"] == "hi"] == [doc for _, doc in sorted(everyone)[:9]]


def in_key_order(tokens: list[int]) -> pa.Table:
    count = len(tokens)
    return pa.table(
        {
            "target_lang": ["sw"] * count,
            "cluster": pa.array([0] * count, pa.int32()),
            "lang": ["en"] * count,
            "key": -np.arange(count, dtype=np.float64),
            "doc_id": records.numpy_to_ids(np.arange(count * 16, dtype=np.uint8).reshape(count, 16)),
            "tokens": tokens,
            "similarity": pa.array([0.5] * count, pa.float32()),
            "shard": pa.array([0] * count, pa.int32()),
        },
        schema=records.CANDIDATE,
    )


def test_a_token_quota_takes_rows_in_order_until_the_next_would_pass_it() -> None:
    wanted = quota_table("sw", ["en"], np.array([[20]]))
    assert fill_tokens(in_key_order([9, 8, 5, 1]), wanted)["tokens"].to_pylist() == [9, 8]
    assert fill_tokens(in_key_order([9, 11, 1]), wanted)["tokens"].to_pylist() == [9, 11]
    assert fill_tokens(in_key_order([21, 1]), wanted).num_rows == 0


def test_what_a_cell_leaves_over_goes_to_the_next() -> None:
    rows = in_key_order([9, 8, 5, 10, 6, 5])
    rows = rows.set_column(1, "cluster", pa.array([0, 0, 0, 1, 1, 1], pa.int32()))
    wanted = quota_table("sw", ["en"], np.array([[20], [15]]))
    assert fill_tokens(rows, wanted)["tokens"].to_pylist() == [9, 8, 10, 6]  # 3 left over, and 15


@settings(deadline=None)
@given(
    tokens=st.lists(st.integers(1, 9), max_size=15),
    quota=st.integers(1, 40),
    home=st.lists(st.integers(0, 2), min_size=15, max_size=15),
)
def test_rows_under_a_token_quota_merge_to_the_same_table_in_any_grouping(
    tokens: list[int], quota: int, home: list[int]
) -> None:
    rows, wanted = in_key_order(tokens), quota_table("sw", ["en"], np.array([[quota]]))
    place = np.array(home[: len(tokens)])
    parts = [keep_best(rows.filter(pa.array(place == part)), wanted, "tokens") for part in range(3)]
    merged = keep_best(pa.concat_tables(parts[::-1]), wanted, "tokens")
    assert fill_tokens(merged, wanted).equals(fill_tokens(rows, wanted))
    assert sum(fill_tokens(rows, wanted)["tokens"].to_pylist()) <= quota
