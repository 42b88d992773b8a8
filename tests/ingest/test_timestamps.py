"""Timestamps: one moment in every notation and format, what numbers are read as, and what is refused."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from documents import documents, only
from hypothesis import given, settings
from hypothesis import strategies as st
from sources import ingested, write

from compass_ray.ingest.timestamps import NotATime, parse_timestamp, timestamps
from compass_ray.monitor.windows import window_starts

LEAP = datetime(2024, 2, 29, 12, 30, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
DATED = {"columns": {"text": "text", "timestamp": "t"}}


def moment(value: Any) -> datetime:
    return EPOCH + timedelta(microseconds=parse_timestamp(value))


# --- dates that are written as dates ------------------------------------------------------------


@pytest.mark.parametrize(
    "notation",
    [
        "2024-02-29T12:30:00Z",
        "2024-02-29 12:30",
        " 2024-02-29t12:30z ",
        "2024-02-29T18:00:00+05:30",
        "2024-02-29T18:00:00 +0530",
        "2024-02-29T07:30-05",
        "2024-02-29 12:30:00 UTC",
        "2024-02-29 12:30:00.000 +0000 UTC",
        "2024-02-29T12:30:00,000",
        "20240229T123000Z",
        "2024-060T12:30",
        "2024-W09-4T12:30",
        "Thu, 29 Feb 2024 12:30:00 GMT",
        "Thu, 29 Feb 2024 12:30:00 -0000",
        "Thu, 29 Feb 2024 07:30:00 -0500",
        "29 Feb 2024 13:30:00 (Paris) +0100",
        "Thu Feb 29 12:30:00 +0000 2024",
        "Thu Feb 29 12:30:00 2024",
        "29 Feb 2024 07:30 EST",
        "1709209800",
        "1709209800.0",
        "1.7092098e9",
        1709209800,
        1709209800.0,
        Decimal("1709209800.000"),
        1709209800000,
        "1709209800000000",
        1709209800000000000,
        202402291230,
        "20240229123000",
        20240229123000.0,
        "20240229123000000",
        "20240229123000000000",
        LEAP,
        LEAP.replace(tzinfo=None),
    ],
)
def test_all_notations_of_one_moment_are_one_timestamp(notation: Any) -> None:
    assert only([{"text": "a", "t": notation}], **DATED)["timestamp"] == LEAP


@pytest.mark.parametrize(
    ("part", "first"),
    [
        ("2024", datetime(2024, 1, 1)),
        (2024, datetime(2024, 1, 1)),
        (2024.0, datetime(2024, 1, 1)),
        ("2024-05", datetime(2024, 5, 1)),
        (202405, datetime(2024, 5, 1)),
        ("202405", datetime(2024, 5, 1)),
        ("2024-W05", datetime(2024, 1, 29)),
        ("2024W05", datetime(2024, 1, 29)),
        ("2024-W05-3", datetime(2024, 1, 31)),
        ("2024-02-29", datetime(2024, 2, 29)),
        ("2024-060", datetime(2024, 2, 29)),
        (date(2024, 2, 29), datetime(2024, 2, 29)),
        (20240229, datetime(2024, 2, 29)),
        (20240229.0, datetime(2024, 2, 29)),
        ("20240229", datetime(2024, 2, 29)),
        ("20240229.0", datetime(2024, 2, 29)),
        (Decimal("20240229"), datetime(2024, 2, 29)),
        ("2024-02-29T10", datetime(2024, 2, 29, 10)),
        ("2024-02-29Z", datetime(2024, 2, 29)),
        ("2024-02-29+05:30", datetime(2024, 2, 28, 18, 30)),
        ("2024-02-29-05:00", datetime(2024, 2, 29, 5)),
        (202402291011, datetime(2024, 2, 29, 10, 11)),
        ("20240229101112", datetime(2024, 2, 29, 10, 11, 12)),
    ],
)
def test_a_part_of_a_date_is_its_first_moment_in_utc(part: Any, first: datetime) -> None:
    assert moment(part) == first.replace(tzinfo=UTC)


@pytest.mark.parametrize("year", [1, 1582, 1789, 1989, 2101, 9999])
def test_a_date_that_is_written_as_one_is_taken_whatever_its_year(year: int) -> None:
    there = datetime(year, 7, 14, tzinfo=UTC)
    for written in (f"{year:04}-07-14", f"{year:04}-07-14T00:00:00Z", date(year, 7, 14), f"14 Jul {year:04} 00:00:00"):
        if not (isinstance(written, str) and written.startswith("14") and year < 100):  # two digits, to mail
            assert moment(written) == there
    for column in (
        pa.array([date(year, 7, 14)], pa.date32()),
        pa.array([date(year, 7, 14)], pa.date64()),
        pa.array([there], pa.timestamp("us", "UTC")),
        pa.array([f"{year:04}-07-14"]),
    ):
        assert timestamps(column)[0].to_pylist() == [there]


def test_fractions_of_a_second_are_kept_to_the_microsecond() -> None:
    for written in (
        "2024-02-29T12:30:00.1234567Z",
        "2024-02-29T12:30:00,1234567",
        "1709209800.1234567",
        1709209800123456789,
        "20240229123000123456",
    ):
        assert moment(written) == LEAP.replace(microsecond=123456)


# --- numbers ------------------------------------------------------------------------------------

in_range = st.datetimes(datetime(1990, 1, 1), datetime(2100, 12, 31, 23, 59, 59))


def spelled(number: int) -> list[Any]:
    return [number, str(number), float(number), f"{number}.0", Decimal(number)]


@given(in_range, st.sampled_from(["%Y", "%Y%m", "%Y%m%d", "%Y%m%d%H%M", "%Y%m%d%H%M%S"]))
@settings(deadline=None)
def test_a_number_that_plainly_is_a_date_is_that_date_however_it_is_typed(there: datetime, pattern: str) -> None:
    digits = there.strftime(pattern)
    first = datetime.strptime(digits, pattern).replace(tzinfo=UTC)
    assert {moment(value) for value in spelled(int(digits))} == {first}


@given(in_range, st.sampled_from([1, 10**3, 10**6, 10**9]))
@settings(deadline=None)
def test_any_other_number_is_unix_time_in_the_one_unit_that_gives_a_year_from_1990_to_2100(
    there: datetime, units: int
) -> None:
    there = there.replace(microsecond=0, tzinfo=UTC)
    number = int(there.timestamp()) * units
    if 1990010100 <= number <= 2100123123:
        return  # may be an hour: see below
    found = {moment(value) for value in spelled(number)}
    assert {found_there.replace(microsecond=0) for found_there in found} <= {there, there - timedelta(seconds=1)}
    assert moment(number) == moment(str(number)) == moment(Decimal(number)) == there


@pytest.mark.parametrize(
    ("number", "why"),
    [
        (45351, "as a day number of a spreadsheet it would be 2024-02-29: write it as a date"),
        (45351.5, "as a day number of a spreadsheet it would be 2024-02-29: write it as a date"),
        ("45351", "as a day number of a spreadsheet it would be 2024-02-29: write it as a date"),
        (0, "leave a time that is not known empty"),
        (-1, "a number has to be a year, month or day (20240229) or a Unix time, of 1990 to 2100"),
        (7, "a number has to be a year, month or day (20240229) or a Unix time, of 1990 to 2100"),
        (20240230, "a number has to be a year, month or day (20240229) or a Unix time, of 1990 to 2100"),
        (202413, "a number has to be a year, month or day (20240229) or a Unix time, of 1990 to 2100"),
        (2024.5, "a number has to be a year, month or day (20240229) or a Unix time, of 1990 to 2100"),
        (631151999, "a number has to be a year, month or day (20240229) or a Unix time, of 1990 to 2100"),
        (4133980800, "a number has to be a year, month or day (20240229) or a Unix time, of 1990 to 2100"),
        (2460370, "a number has to be a year, month or day (20240229) or a Unix time, of 1990 to 2100"),
        (1950, "digits are read as a date only from 1990 to 2100: write 1950-01-01T00:00:00"),
        ("19500714", "digits are read as a date only from 1990 to 2100: write 1950-07-14T00:00:00"),
        (2101, "digits are read as a date only from 1990 to 2100: write 2101-01-01T00:00:00"),
        (2024022910, "it may be the hour 2024-02-29T10 or a Unix time of 2034: write it as a date"),
        (1e25, "a number has to be a year, month or day (20240229) or a Unix time, of 1990 to 2100"),
    ],
)
def test_a_number_that_is_no_time_says_what_it_may_have_been(number: Any, why: str) -> None:
    reject = only([{"text": "a", "t": number}], **DATED)["reject"]
    assert reject["reason"] == "bad_timestamp"
    shown = repr(number)
    assert reject["message"] == f"t: expected ISO 8601, RFC 2822 or Unix time, found {shown}; {why}"


# --- what is refused ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("yesterday", ""),
        ("2024-13-01", "month must be in 1..12"),
        ("2023-366", "2023 has no day 366"),
        ("2024-05Z", "a month has no time and no zone"),
        ("29/02/2024", "which is the day and which the month? write 2024-02-29"),
        ("02-03-2024 10:11", "which is the day and which the month? write 2024-02-29"),
        ("Thu, 29 Feb 2024 12:30:00 JST", "'JST' is no zone that is known: write an offset (+09:00)"),
        ("Thu Feb 29 12:30:00 JST 2024", "'JST' is no zone that is known: write an offset (+09:00)"),
        ("29 Feb 2024 10:11 PM", "'PM' is no zone that is known: write an offset (+09:00)"),
        ("0001-01-01T00:00+05:30", "it lies outside the years 1 to 9999"),
        ("0000-01-01", "it lies outside the years 1 to 9999"),
        ("2024-02-29X10:11:12", ""),
        ("99999999999-01-01", ""),
        (True, ""),
        ([1], ""),
        ({}, ""),
        (float("nan"), "leave a time that is not known empty"),
        ("inf", ""),
        ("1e99", "a number has to be a year, month or day (20240229) or a Unix time, of 1990 to 2100"),
    ],
)
def test_what_is_no_time_is_refused(value: Any, why: str) -> None:
    reject = only([{"text": "a", "t": value}], **DATED)["reject"]
    assert reject["reason"] == "bad_timestamp"
    assert reject["message"].startswith("t: expected ISO 8601, RFC 2822 or Unix time, found ")
    assert reject["message"].endswith(f"; {why}" if why else reject["message"].split("found ")[1])


def test_an_empty_time_is_none_and_an_absent_one_a_fault() -> None:
    found = documents([{"text": "a", "t": None}, {"text": "b", "t": " "}, {"text": "c"}], **DATED)
    assert [row["timestamp"] for row in found] == [None] * 3
    assert [row["reject"] and row["reject"]["reason"] for row in found] == [None, None, "missing_column"]


@given(st.text(st.sampled_from("0123456789-+:., TWZGMTFebThu()/"), max_size=24))
@settings(deadline=None, max_examples=400)
def test_no_text_is_read_as_anything_but_a_time_in_the_calendar_or_refused(text: str) -> None:
    try:
        found = moment(text)
    except NotATime:
        return
    assert datetime.min.replace(tzinfo=UTC) <= found <= datetime.max.replace(tzinfo=UTC)


# --- columns ------------------------------------------------------------------------------------

moments = st.datetimes(datetime(1902, 1, 1), datetime(2200, 1, 1))


@given(st.lists(moments, min_size=1, max_size=5), st.sampled_from(["", "Z", "+05:30"]), st.booleans())
@settings(deadline=None)
def test_a_column_of_one_notation_is_read_as_its_values_one_by_one(
    values: list[datetime], zone: str, whole_seconds: bool
) -> None:
    texts = [value.isoformat(timespec="seconds" if whole_seconds else "microseconds") + zone for value in values]
    column, bad = timestamps(texts)
    assert bad == {}
    assert column.cast(pa.int64()).to_pylist() == [parse_timestamp(text) for text in texts]
    arrow, bad = timestamps(pa.array(texts, pa.string()))
    assert (arrow.equals(column), bad) == (True, {})


@pytest.mark.parametrize(
    "kind",
    [
        pa.timestamp("s"),
        pa.timestamp("ms", "UTC"),
        pa.timestamp("us"),
        pa.timestamp("ns", "Asia/Kolkata"),
        pa.date32(),
        pa.date64(),
    ],
)
def test_times_of_typed_columns_are_kept(kind: pa.DataType) -> None:
    day = datetime(2024, 2, 29, tzinfo=UTC)
    value = day.date() if pa.types.is_date(kind) else day
    found, bad = timestamps(pa.array([value, None], kind))
    assert (found.to_pylist(), bad) == ([day, None], {})


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ([0, 2**40], pa.timestamp("s")),  # would be another year in microseconds, without a word
        ([0, 2**55], pa.timestamp("ms", "UTC")),
        ([0, 2**58], pa.timestamp("us")),
        ([0, -(2**58)], pa.timestamp("us")),
        ([0, 2**30], pa.date32()),
    ],
)
def test_times_beyond_the_calendar_are_refused_and_not_wrapped(values: list[int], kind: pa.DataType) -> None:
    found, bad = timestamps(pa.array(values, pa.int32() if pa.types.is_date32(kind) else pa.int64()).cast(kind))
    assert (found.to_pylist(), bad) == ([EPOCH, None], {1: "it lies outside the years 1 to 9999"})


@pytest.mark.parametrize(
    "column",
    [
        pa.array([20240229, None], pa.int32()),
        pa.array([20240229, None], pa.uint64()),
        pa.array([20240229, None], pa.float64()),
        pa.array([Decimal(20240229), None], pa.decimal128(20, 0)),
        pa.array([Decimal("20240229.00"), None], pa.decimal256(50, 2)),
        pa.array(["20240229", None], pa.string()),
        pa.array(["20240229.0", ""], pa.string()),
        pa.array([1709164800, None], pa.int64()),
        pa.array([1709164800000000000, None], pa.int64()),
        pa.array([1709164800.0, None], pa.float64()),
    ],
)
def test_numbers_of_every_type_are_read_alike(column: pa.Array) -> None:
    found, bad = timestamps(column)
    assert (found.to_pylist(), bad) == ([datetime(2024, 2, 29, tzinfo=UTC), None], {})


def test_a_short_float_is_a_year_or_month_but_no_longer_number() -> None:
    found, bad = timestamps(pa.array([2024.0, 202405.0, 20240229.0], pa.float32()))
    assert found.to_pylist() == [datetime(2024, 1, 1, tzinfo=UTC), datetime(2024, 5, 1, tzinfo=UTC), None]
    assert bad == {2: "a short float holds no whole number above 16,777,216 exactly: store integers"}


# --- from files to windows ----------------------------------------------------------------------

YEARS = range(2021, 2026)
NOTATIONS: dict[str, list[Any]] = {
    "year": [*YEARS],
    "year as text": [str(year) for year in YEARS],
    "year as a float": [float(year) for year in YEARS],
    "month": [year * 100 + 1 for year in YEARS],
    "month as text": [f"{year}-01" for year in YEARS],
    "day": [year * 10_000 + 101 for year in YEARS],
    "day as text": [f"{year}-01-01" for year in YEARS],
    "second": [year * 10**10 + 101_000_000 for year in YEARS],
    "unix": [int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) for year in YEARS],
}


@pytest.mark.parametrize("kind", ["jsonl", "csv", "parquet", "markdown"])
@pytest.mark.parametrize("notation", NOTATIONS)
def test_five_years_are_five_windows_in_every_format(notation: str, kind: str, tmp_path: Path) -> None:
    rows = [{"text": f"row {number}", "t": value} for number, value in enumerate(NOTATIONS[notation])]
    given = {**DATED, "role": "usage", "format": kind}
    found = ingested(write(tmp_path, kind, rows), **given)
    assert found["reject"].null_count == len(YEARS)
    for period in ("day", "month"):
        starts = window_starts(found["timestamp"], period)
        assert sorted(starts.to_pylist()) == [datetime(year, 1, 1, tzinfo=UTC) for year in YEARS]


@pytest.mark.parametrize(
    "written",
    ["2024-02-29T12:30:00Z", "2024-02-29 18:00:00 +05:30", "2024-02-29 12:30:00", "202402291230", "1709209800"],
)
def test_front_matter_dates_are_read_as_yaml_writes_them(written: str, tmp_path: Path) -> None:
    path = write(tmp_path, "markdown", [{"text": "a", "t": written}])
    assert ingested(path, format="markdown", **DATED)["timestamp"].to_pylist() == [LEAP]
