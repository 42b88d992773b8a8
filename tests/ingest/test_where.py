"""``where``: values compared as JSON writes them, in every format; what matches, what does not, what is no value."""

from __future__ import annotations

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from documents import documents, only
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from sources import ingested, write

from compass_ray.ingest.config import SourceConfig
from compass_ray.ingest.where import Allowed
from compass_ray.values import written


def kept(values: list[Any] | pa.Array, *allowed: Any) -> list[int]:
    return [row for row, has in enumerate(Allowed(allowed).mask(values)) if has]


# --- what is equal ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("allowed", "values", "rows"),
    [
        ([True], [True, False, None, "true", "false", 1], [0, 3]),
        (["true"], [True, False, None, "true", "True", 1], [0, 3]),
        (["True"], [True, False, "true", "True"], [0, 3]),
        ([False], [True, False, None, "", 0], [1]),
        ([True], ["True", "TRUE", "yes", "1"], [0, 1]),
        ([None], [None, "null", "None", "NULL", "", "none", 0, False], [0, 1, 2, 3]),
        (["null"], [None, "null", "None", ""], [0, 1]),
        (["None"], [None, "null", "None", ""], [0, 2]),
        ([1], [1, 1.0, "1", "1.0", "1e0", True, "01", " 1", 2], [0, 1, 2, 3, 4]),
        (["1"], [1, 1.0, "1", "1.0", True], [0, 1, 2]),
        ([1.0], [1, 1.0, "1", "1.0", Decimal("1.00")], [0, 1, 2, 3, 4]),
        (["1.10"], ["1.1", "1.10", 1.1, Decimal("1.1")], [1, 2, 3]),
        ([0.1], [0.1, "0.1", Decimal("0.10"), 0.10000000000000002], [0, 1, 2]),
        ([2**53 + 1], [2**53, 2**53 + 1, float(2**53), str(2**53 + 1)], [1, 3]),
        ([10**29], [10**29, Decimal(10) ** 29, 10**29 + 1], [0, 1]),
        (["2024-02-29"], [date(2024, 2, 29), "2024-02-29", datetime(2024, 2, 29, tzinfo=UTC)], [0, 1]),
        (["no"], ["no", False, "No"], [0]),
        (["007"], ["007", 7, "7"], [0]),
        ([7], ["007", 7, "7"], [1, 2]),
        (["a", 1, None], ["a", "b", 1, None, "1"], [0, 2, 3, 4]),
        (["1e999999999"], ["1e999999999", 1], [0]),
    ],
)
def test_values_are_equal_that_json_writes_alike(allowed: list[Any], values: list[Any], rows: list[int]) -> None:
    assert kept(values, *allowed) == rows


@pytest.mark.parametrize(
    ("column", "allowed", "rows"),
    [
        (pa.array([True, False, None]), [True], [0]),
        (pa.array([True, False, None]), ["true"], [0]),
        (pa.array([True, False, None]), ["False"], [1]),
        (pa.array([True, False, None]), [None], [2]),
        (pa.array([1, 2, None], pa.int8()), [1], [0]),
        (pa.array([1, 2, None], pa.uint64()), ["1", None], [0, 2]),
        (pa.array([1, 2, None], pa.float64()), [1], [0]),
        (pa.array([0.1, 0.2, None], pa.float32()), [0.1], [0]),
        (pa.array([0.1, 0.2, None], pa.float16()), ["0.1"], [0]),
        (pa.array([Decimal("1.50"), Decimal(2)], pa.decimal128(10, 2)), [1.5], [0]),
        (pa.array([date(2024, 2, 29), None]), ["2024-02-29"], [0]),
        (pa.array(["true", "True", "x", None]), [True], [0, 1]),
        (pa.array(["true", "True", "x", None]), ["true"], [0]),
        (pa.array(["1", "1.0", "x", None]), [1], [0, 1]),
        (pa.array(["1", "1.0", "x", None]), [1, None], [0, 1, 3]),
        (pa.array(["a", "None", None]), ["None"], [1, 2]),
        (pa.array(["a", "null", None]), ["a"], [0]),
        (pa.array(["", "a"]), [""], [0]),
    ],
)
def test_columns_of_every_type_are_compared_alike(column: pa.Array, allowed: list[Any], rows: list[int]) -> None:
    assert kept(column, *allowed) == rows
    assert kept(column.slice(1), *allowed) == [row - 1 for row in rows if row]


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(-3, 3), st.sampled_from([0.5, 1.0, -2.0]), st.text("10.truefalsn", max_size=5)
)


@given(scalars)
@settings(deadline=None)
def test_what_json_writes_of_a_value_finds_it_and_so_does_the_value(value: Any) -> None:
    assert kept([value], value) == [0]
    assert kept([value], written(value)) == [0]


@given(st.lists(st.text("10.trueNl", max_size=5) | st.none(), max_size=6), st.lists(scalars, min_size=1, max_size=3))
@settings(deadline=None)
def test_a_column_of_text_is_compared_as_its_values_one_by_one(values: list[str | None], allowed: list[Any]) -> None:
    assert kept(pa.array(values, pa.string()), *allowed) == kept(values, *allowed)


ROWS = [
    {"text": "a", "train": True, "n": 1},
    {"text": "b", "train": False, "n": 2},
    {"text": "c", "train": True, "n": 3},
]


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "markdown"])
@pytest.mark.parametrize(
    ("where", "texts"),
    [
        ({"train": True}, ["a", "c"]),
        ({"train": "True"}, ["a", "c"]),
        ({"n": [1, 2.0]}, ["a", "b"]),
        ({"n": ["1", "3"]}, ["a", "c"]),
        ({"train": False, "n": 2}, ["b"]),
        ({"n": 4}, []),
    ],
)
def test_where_means_the_same_in_every_format(kind: str, where: Any, texts: list[str], tmp_path: Path) -> None:
    """CSV holds what Python writes of truth values, front matter what YAML reads of it."""
    found = ingested(write(tmp_path, kind, ROWS), format=kind, where=where)
    assert sorted(text for text in found["text"].to_pylist() if text) == texts
    reasons = [row["reason"] for row in found["reject"].to_pylist() if row]
    assert reasons == ["filtered"] * (3 - len(texts))


# --- what is refused ----------------------------------------------------------------------------


def test_a_row_that_is_left_out_says_what_was_wanted_as_json_writes_it() -> None:
    reject = only([{"text": "a", "x": 3}], where={"x": [True, None, 1, 1.5, "text"]})["reject"]
    assert (reject["reason"], reject["message"]) == ("filtered", "x is not one of true, null, 1, 1.5, text")


@pytest.mark.parametrize(
    ("value", "found"),
    [([1], "list"), ({"a": 1}, "dict"), (float("nan"), "nan, which JSON does not write")],
)
def test_what_is_no_single_value_is_a_fault_and_not_filtered(value: Any, found: str) -> None:
    [row, other] = documents([{"text": "a", "x": value}, {"text": "b", "x": 1}], where={"x": 1})
    assert (row["reject"]["reason"], row["reject"]["message"]) == (
        "wrong_type",
        f"x: expected text, a number, a date, true, false or null, found {found}",
    )
    assert other["reject"] is None


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ({"a": []}, "a: an empty list keeps no row; name values, or remove the column"),
        ({"a": date(2024, 2, 29)}, r"a: expected text, a number, .* found 2024-02-29 \(date\); quote text"),
        ({"a": [["x"]]}, r"a: expected text, a number, .* found \['x'\] \(list\); quote text"),
        ({"a": float("inf")}, r"a: expected text, a number, .* found inf \(float\); quote text"),
    ],
)
def test_a_condition_that_nothing_can_meet_is_refused_before_any_work(where: Any, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        SourceConfig(role="pool", path="x", lang="en", where=where)


def test_values_keep_their_types_in_the_config() -> None:
    given: Any = {"a": [True, 1, 1.5, "1", None], "b": "x"}
    assert SourceConfig(role="pool", path="x", lang="en", where=given).where == {"a": given["a"], "b": ["x"]}
