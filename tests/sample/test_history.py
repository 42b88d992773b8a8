"""What an adapter was made for and trained on counts in its update, and none of it is drawn again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from compass_ray import records
from compass_ray.sample.histogram import eligible_mask, shard_histogram
from compass_ray.sample.history import FORMER, History
from compass_ray.sample.problem import build_problems

K = 3
NONE = pa.array([], records.ID)
NOT_NEAR = records.NEAR_USAGE.empty_table()


def counts(role: str, lang: str, by_cluster: dict[int, int], target_lang: str | None = "sw") -> list[dict[str, Any]]:
    return [
        {
            "target_lang": target_lang,
            "role": role,
            "lang": lang,
            "cluster": cluster,
            "documents": number,
            "tokens": 10 * number,
            "squares": number,
        }
        for cluster, number in by_cluster.items()
    ]


def table(*rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist([row for part in rows for row in part], schema=records.HISTOGRAM)


def ids(numbers: list[int]) -> pa.Array:
    return pa.array([number.to_bytes(16, "big") for number in numbers], records.ID)


def trained(clusters: list[int], lang: str = "sw") -> pa.Table:
    columns = {
        "content_id": ids(list(range(len(clusters)))),
        "lang": [lang] * len(clusters),
        "cluster": clusters,
        "tokens": [7] * len(clusters),
        "selected": [True] * len(clusters),
    }
    return pa.table(columns, schema=records.TRAINED)


def problem(history: History, new: pa.Table) -> Any:
    merged = pa.concat_tables([new, history.rows(new)])
    (found,) = build_problems(merged, np.zeros(K), {}, np.zeros((K, K)))
    return found


@pytest.mark.parametrize("fraction", [0.2, 0.5, 0.8, 1.0])
@pytest.mark.parametrize("former", [7, 400])
def test_new_usage_has_its_share_whatever_the_number_of_its_documents(fraction: float, former: int) -> None:
    new = table(counts("usage", "sw", {0: 60, 2: 40}), counts("heldout", "sw", {0: 30}))
    history = History({"sw": table(counts("usage", "sw", {1: former}))}, {"sw": trained([1])}, NONE, fraction)
    usage = problem(history, new).usage
    assert usage[0] == 60
    assert usage[2] == 40
    assert usage[:K].sum() * fraction == pytest.approx(100, abs=0.5)
    assert problem(history, new).heldout.tolist() == [30, 0, 0, 0], "the past is no part of what is measured on"


def test_scaled_usage_is_worth_no_more_documents_than_there_were() -> None:
    new = table(counts("usage", "sw", {0: 300}))
    history = History({"sw": table(counts("usage", "sw", {1: 10}))}, {"sw": trained([1])}, NONE, 0.5)
    found = problem(history, new)
    assert found.usage.tolist() == [300, 300, 0, 0]
    # of 300 documents of weight 1 and 10 of weight 30: (300 + 300)² / (300 + 10 · 30²)
    assert found.usage_effective == pytest.approx(600**2 / (300 + 10 * 900), rel=1e-6)


def test_what_was_trained_on_is_current_data_outliers_included() -> None:
    new = table(counts("usage", "sw", {0: 10}))
    history = History({}, {"sw": trained([0, 0, 1, K])}, NONE, 0.5)
    assert problem(history, new).current.tolist() == [2, 1, 0, 1]
    assert problem(history, new).current_tokens.tolist() == [14, 7, 0, 7]
    assert problem(history, new).usage.tolist() == [10, 0, 0, 0], "without former usage new usage is all there is"


def test_an_adapter_that_nobody_asks_anew_adds_nothing() -> None:
    new = table(counts("usage", "yo", {0: 10}, "yo"))
    history = History({"sw": table(counts("usage", "sw", {1: 9}))}, {"sw": trained([1])}, NONE, 0.5)
    assert history.rows(new).num_rows == 0
    assert history.former_counts(history.rows(new), K, "documents")["sw"].tolist() == [0, 0, 0]


def test_former_usage_adds_up_by_cluster_without_outliers() -> None:
    new = table(counts("usage", "sw", {0: 10}))
    history = History({"sw": table(counts("usage", "sw", {1: 6, K: 4}))}, {"sw": trained([1])}, NONE, 0.5)
    assert history.former_counts(history.rows(new), K, "documents")["sw"].tolist() == [0, 6, 0]
    assert history.rows(new).filter(pc.equal(history.rows(new)["role"], FORMER))["documents"].to_pylist() == [6, 4]


def test_a_pool_row_with_the_content_of_a_trained_one_is_not_drawn_again() -> None:
    columns = {
        "doc_id": ids([100, 101, 102]),
        "content_id": ids([0, 1, 2]),
        "role": ["pool"] * 3,
        "target_lang": pa.nulls(3, pa.string()),
        "lang": ["sw"] * 3,
        "tokens": pa.array([5] * 3, pa.int32()),
        "cluster": pa.array([0, 0, 1], pa.int32()),
        "similarity": pa.array([0.5] * 3, pa.float32()),
        "outlier": [False] * 3,
        "similarities": pa.nulls(3, records.ASSIGNMENT.field("similarities").type),
    }
    assignments = pa.table(columns, schema=records.ASSIGNMENT)
    history = History({}, {"sw": trained([0, 0])}, NONE, 0.5)
    assert eligible_mask(assignments, NOT_NEAR, "sw", history.contents("sw")).tolist() == [False, False, True]
    assert eligible_mask(assignments, NOT_NEAR, "yo", history.contents("yo")).tolist() == [True, True, True]
    held = History({}, {"sw": trained([0])}, ids([2]), 0.5)
    assert eligible_mask(assignments, NOT_NEAR, "sw", held.contents("sw")).tolist() == [False, True, False]
    assert eligible_mask(assignments, NOT_NEAR, "yo", held.contents("yo")).tolist() == [True, True, False]
    found = shard_histogram(assignments, NOT_NEAR, ["sw", "yo"], K, 0, 0.3, {"sw": history.contents("sw")})
    barred = found.filter(pc.equal(found["role"], "ineligible")).to_pylist()
    assert [(row["target_lang"], row["documents"]) for row in barred] == [("sw", 2)]


def test_the_hash_follows_all_of_it() -> None:
    usage, rows = {"sw": table(counts("usage", "sw", {1: 9}))}, {"sw": trained([1])}
    first = History(usage, rows, NONE, 0.5).fingerprint()
    assert History(usage, rows, NONE, 0.5).fingerprint() == first
    others = [
        History(usage, rows, NONE, 0.6),
        History({}, rows, NONE, 0.5),
        History(usage, {"sw": trained([2])}, NONE, 0.5),
    ]
    assert len({first, *(other.fingerprint() for other in others)}) == 4
