"""Usage by window and cluster: where windows begin, what is left out, and that shards add up in any order."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from compass_ray import records
from compass_ray.monitor.config import Period
from compass_ray.monitor.windows import histogram, merge, shard_windows, window_after, window_of, window_starts

SUNDAY_NIGHT = datetime(2026, 11, 29, 23, 59, tzinfo=UTC)
MONDAY = datetime(2026, 11, 30, tzinfo=UTC)
BEFORE_THE_EPOCH = datetime(1969, 12, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("period", "moment", "start"),
    [
        ("day", SUNDAY_NIGHT, datetime(2026, 11, 29, tzinfo=UTC)),
        ("week", SUNDAY_NIGHT, datetime(2026, 11, 23, tzinfo=UTC)),
        ("week", MONDAY, MONDAY),
        ("week", BEFORE_THE_EPOCH, datetime(1969, 12, 29, tzinfo=UTC)),
        ("month", SUNDAY_NIGHT, datetime(2026, 11, 1, tzinfo=UTC)),
        ("all", MONDAY, None),
        ("day", None, None),
    ],
)
def test_windows_begin_at_midnight_on_mondays_and_on_the_first(
    period: Period, moment: datetime | None, start: datetime | None
) -> None:
    column = pa.chunked_array([pa.array([moment], pa.timestamp("us", tz="UTC"))])
    assert window_starts(column, period).to_pylist() == [start]


@pytest.mark.parametrize(
    ("period", "periods", "start"),
    [
        ("day", 3, (2026, 12, 3)),
        ("week", -2, (2026, 11, 16)),
        ("month", 2, (2027, 1, 1)),
        ("month", -11, (2025, 12, 1)),
    ],
)
def test_windows_are_counted_forwards_and_backwards(period: Period, periods: int, start: tuple[int, int, int]) -> None:
    begun = window_of(MONDAY, period)
    found = window_after(begun, period, periods)
    assert found == datetime(*start, tzinfo=UTC) == window_of(found, period)
    assert window_after(found, period, -periods) == begun


def shard(*rows: tuple[str, str, int, float, bool, datetime | None]) -> tuple[pa.Table, pa.Table]:
    """Documents and assignments: text, target language, cluster, similarity, outlier, moment."""
    ids = pa.array([text.encode().ljust(16, b".") for text, *_ in rows], records.ID)
    texts, target_langs, clusters, similarities, outliers, moments = map(list, zip(*rows, strict=True))
    documents = pa.table({"doc_id": ids, "text": texts, "timestamp": pa.array(moments, pa.timestamp("us", tz="UTC"))})
    assignments = pa.table(
        {
            "doc_id": ids,
            "target_lang": target_langs,
            "cluster": pa.array(clusters, pa.int32()),
            "similarity": pa.array(similarities, pa.float32()),
            "outlier": outliers,
        }
    )
    return documents, assignments


ROWS = [
    ("far", "sw", 1, 0.1, True, MONDAY),
    ("near", "sw", 1, 0.9, False, MONDAY),
    ("nearer", "sw", 1, 0.95, False, SUNDAY_NIGHT),
    ("other", "ta", 0, 0.5, False, MONDAY),
    ("undated", "sw", 0, 0.5, False, None),
]


def test_documents_are_counted_by_target_language_and_cluster_and_outliers_in_a_bin_of_their_own() -> None:
    windows, left_out = shard_windows(*shard(*ROWS), "all", 2)
    assert left_out == {"undated": 0, "later": 0}
    found = [(row["target_lang"], row["start"], row["cluster"], row["documents"]) for row in windows.to_pylist()]
    assert found == [("sw", None, 0, 1), ("sw", None, 1, 2), ("sw", None, 2, 1), ("ta", None, 0, 1)]
    assert windows["exemplar"].to_pylist() == ["undated", "nearer", "far", "other"]


def test_a_period_cuts_usage_and_leaves_out_what_has_no_timestamp() -> None:
    windows, left_out = shard_windows(*shard(*ROWS), "day", 2)
    assert left_out == {"undated": 1, "later": 0}
    assert {
        (row["target_lang"], row["start"].day, row["cluster"]): row["documents"] for row in windows.to_pylist()
    } == {
        ("sw", 29, 1): 1,
        ("sw", 30, 1): 1,
        ("sw", 30, 2): 1,
        ("ta", 30, 0): 1,
    }


def test_what_is_dated_after_a_moment_is_left_out_and_counted() -> None:
    for period, undated, documents in (("day", 1, 1), ("all", 0, 2)):
        windows, left_out = shard_windows(*shard(*ROWS), period, 2, SUNDAY_NIGHT)  # type: ignore[arg-type]
        assert left_out == {"undated": undated, "later": 3}
        assert sum(windows["documents"].to_pylist()) == documents
    whole, left_out = shard_windows(*shard(*ROWS), "day", 2, MONDAY)  # up to and with that moment
    assert whole.equals(shard_windows(*shard(*ROWS), "day", 2)[0])
    assert left_out["later"] == 0


def test_a_question_that_is_asked_again_counts_where_it_is_asked() -> None:
    again = [("same", "sw", 0, 0.5, False, moment) for moment in (SUNDAY_NIGHT, None, MONDAY)]
    windows, left_out = shard_windows(*shard(*again), "week", 2)
    assert left_out["undated"] == 1
    assert [(row["start"].day, row["documents"]) for row in windows.to_pylist()] == [(23, 1), (30, 1)]


def test_documents_that_could_not_be_embedded_are_not_counted() -> None:
    documents, assignments = shard(*ROWS)
    windows, _ = shard_windows(documents, assignments.slice(1, 2), "all", 2)
    assert windows["documents"].to_pylist() == [2]
    assert windows["exemplar"].to_pylist() == ["nearer"]


def test_windows_of_shards_add_up_in_any_order_and_grouping() -> None:
    parts = [shard_windows(*shard(row), "day", 2)[0] for row in ROWS]
    whole = shard_windows(*shard(*ROWS), "day", 2)[0]
    for order in itertools.permutations(parts):
        assert merge(order).equals(whole)
        assert merge([merge(order[:2]), merge(order[2:])]).equals(whole)


def test_a_histogram_has_a_bin_for_every_cluster_and_one_for_outliers() -> None:
    windows, _ = shard_windows(*shard(*ROWS), "all", 2)
    counts = histogram(windows["cluster"], windows["documents"], 4)
    assert counts.dtype == np.int64
    assert counts.tolist() == [2, 2, 1, 0, 0]
    none = windows.slice(0, 0)
    assert histogram(none["cluster"], none["documents"], 2).tolist() == [0, 0, 0]
