"""Timestamps in the notations that data have: dates that are written as dates, and numbers.

A date that is written as one (ISO 8601, RFC 2822, the date types of Arrow and YAML) is taken as it is, whatever the
year from 1 to 9999. A number, or a text of digits, says less: it is read as a year (2024), a month (202405), a day
(20240229) or a day and time (20240229101112) where it is one, else as Unix time in seconds down to nanoseconds, and
only from 1990 to 2100. These readings do not overlap, but for one: ten digits that are an hour (2024022910) and a Unix
time as well are refused. Nothing asks the clock. A time without a zone is UTC, a part of a date its first moment.
"""

from __future__ import annotations

import contextlib
import re
from datetime import UTC, date, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from functools import lru_cache
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from compass_ray.ingest.readers.batch import Column, as_values, is_text

UTC_MICROSECONDS = pa.timestamp("us", tz="UTC")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_YEARS = (1990, 2100)
"""First and last year that a number may stand for."""

_FIRST_S, _END_S = (int(datetime(year, 1, 1, tzinfo=UTC).timestamp()) for year in (_YEARS[0], _YEARS[1] + 1))
_UNIX = ((10**6, 1), (10**3, 1), (1, 1), (1, 10**3))
"""What seconds, milliseconds, microseconds and nanoseconds are multiplied and divided by to be microseconds."""

_PARTS_OF_DATES = frozenset({4, 6, 8, 10, 12, 14, 17, 20})
"""Digits of a year, month, day, hour, minute, second, millisecond and microsecond."""

_HOUR = 10
_SPREADSHEET = date(1899, 12, 30)
_DAY_S = 86_400
_FIRST_DAY = date(_YEARS[0], 1, 1).toordinal() - _SPREADSHEET.toordinal()
_END_DAY = date(_YEARS[1] + 1, 1, 1).toordinal() - _SPREADSHEET.toordinal()

_CALENDAR_S = tuple(int(moment.replace(tzinfo=UTC).timestamp()) for moment in (datetime.min, datetime.max))
_BEYOND = "it lies outside the years 1 to 9999"

_NUMBER = re.compile(r"[+-]?\d{1,40}(?:\.\d{0,40})?(?:[eE][+-]?\d{1,2})?", re.ASCII)
_ISO = re.compile(
    r"(?P<date>\d{4}-\d\d-\d\d|\d{8}|\d{4}-?W\d\d(?:-?\d)?|(?P<month>\d{4}-\d\d)|(?P<day_of_year>\d{4}-\d{3}))"
    r"(?:(?:[Tt]|[ ]+)(?P<time>\d\d(?::?\d\d(?::?\d\d(?:[.,]\d+)?)?)?))?"
    r"[ ]*(?:(?P<utc>[Zz]|UTC|GMT)|(?P<offset>[+-]\d\d(?::?\d\d)?)(?:[ ]UTC)?)?",
    re.ASCII,
)
_SWAPPABLE = re.compile(r"\d{1,2}([/.-])\d{1,2}\1\d{2,4}\b.*", re.ASCII)

_COMMENT = re.compile(r"\([^()]*\)")
_WORD = re.compile(r"[A-Za-z]+")
_NAMES = (
    *("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"),
    *("january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november"),
    "december",
)
_NAMES_OF_DAYS_AND_MONTHS = frozenset([*_NAMES, *(name[:3] for name in _NAMES)])

_BITS_EXACT = {pa.float16(): 2**11, pa.float32(): 2**24}
"""Up to which whole numbers short floats hold each."""


class NotATime(ValueError):
    """A value is no time; the message goes on after "found 45351"."""


def parse_timestamp(value: Any) -> int:
    """Parse a value into microseconds since 1970 UTC.

    Raises
    ------
    NotATime
        If the value is no time.

    >>> parse_timestamp("2024-02-29"), parse_timestamp(20240229), parse_timestamp("1709164800000")
    (1709164800000000, 1709164800000000, 1709164800000000)
    """
    if isinstance(value, str):
        text = value.strip()
        value = _digits(text) if _NUMBER.fullmatch(text) else _read(text)
    if isinstance(value, int | float | Decimal) and not isinstance(value, bool):
        return _of_number(value)
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if not isinstance(value, datetime):
        raise NotATime("")
    return _microseconds(value)


def timestamps(column: Column) -> tuple[pa.Array, dict[int, str]]:
    """Read a column as UTC microseconds.

    With it comes what is wrong with the rows that hold no time; null and blank stay null. Cost: one cast where Arrow
    has the type, or all rows share one notation of ISO 8601; a Python call a row otherwise.
    """
    if isinstance(column, pa.Array) and (pa.types.is_timestamp(column.type) or pa.types.is_date(column.type)):
        return _in_calendar(column)
    exact = _BITS_EXACT.get(column.type) if isinstance(column, pa.Array) else None
    texts = column if is_text(column) else None
    if texts is None and isinstance(column, list) and all(type(value) is str for value in column):
        texts = pa.array(column, pa.string())
    if texts is not None:
        for kind in (pa.timestamp("us"), UTC_MICROSECONDS):
            with contextlib.suppress(pa.ArrowInvalid):
                return _in_calendar(pc.cast(texts, kind))
    found: list[int | None] = []
    bad: dict[int, str] = {}
    for row, value in enumerate(as_values(column)):
        found.append(None)
        if value is None or (isinstance(value, str) and not value.strip()):
            continue
        try:
            if exact is not None and abs(value) > exact:
                raise NotATime(f"a short float holds no whole number above {exact:,} exactly: store integers")
            found[row] = parse_timestamp(value)
        except NotATime as wrong:
            bad[row] = str(wrong)
    return pa.array(found, pa.int64()).cast(UTC_MICROSECONDS), bad


def _in_calendar(column: pa.Array) -> tuple[pa.Array, dict[int, str]]:
    """Convert times and dates of any unit to UTC microseconds.

    Those that no calendar year from 1 to 9999 has are refused.
    """
    seconds = column.cast(pa.timestamp("s"), safe=False).cast(pa.int64())
    sound = pc.and_(pc.greater_equal(seconds, _CALENDAR_S[0]), pc.less_equal(seconds, _CALENDAR_S[1]))
    bad = dict.fromkeys(pc.indices_nonzero(pc.invert(sound)).to_pylist(), _BEYOND)
    if bad:
        column = pc.if_else(sound, column, pa.scalar(None, column.type))
    return column.cast(pa.timestamp("us"), safe=False).cast(UTC_MICROSECONDS), bad


def _microseconds(moment: datetime) -> int:
    since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)) - _EPOCH
    seconds = since.days * _DAY_S + since.seconds
    if not _CALENDAR_S[0] <= seconds <= _CALENDAR_S[1]:  # by its zone
        raise NotATime(_BEYOND)
    return seconds * 1_000_000 + since.microseconds


# --- numbers ------------------------------------------------------------------------------------


def _digits(text: str) -> int | Decimal:
    return int(text) if text.isdecimal() else Decimal(text)


def _of_number(number: float | Decimal) -> int:
    exact: int | Decimal = Decimal(repr(number)) if isinstance(number, float) else number
    if isinstance(exact, Decimal):
        if not exact.is_finite():
            raise NotATime("leave a time that is not known empty")
        if abs(exact) < 10**21 and exact == exact.to_integral_value():
            exact = int(exact)
    if isinstance(exact, int) and (moment := _part_of_date(exact)):
        return _microseconds(moment)
    for up, down in _UNIX:
        if _FIRST_S * 10**6 * down <= exact * up < _END_S * 10**6 * down:
            return int(exact * up // down)
    raise NotATime(_why_not(exact))


@lru_cache(maxsize=1 << 12)  # days repeat
def _part_of_date(number: int) -> datetime | None:
    """Read the digits of a number as a year, month, day or time.

    Returned is the first moment of it, if it is within the years.
    """
    digits = str(number)
    if not str(_YEARS[0]) <= digits[:4] <= str(_YEARS[1]) or (moment := _calendar(digits)) is None:
        return None
    if len(digits) == _HOUR:
        unix = datetime.fromtimestamp(number, UTC)
        raise NotATime(f"it may be the hour {moment:%Y-%m-%dT%H} or a Unix time of {unix.year}: write it as a date")
    return moment


def _calendar(digits: str) -> datetime | None:
    """Find the first moment of a year, month, and so on. It is given in digits alone."""
    if len(digits) not in _PARTS_OF_DATES or not digits.isdecimal():
        return None
    day, time, fraction = digits[:8], digits[8:14], digits[14:]
    day += "0101"[len(day) - 4 :]
    with contextlib.suppress(ValueError):
        return datetime.fromisoformat(f"{day}T{time or '00'}" + (f".{fraction}" if fraction else ""))
    return None


def _why_not(number: int | Decimal) -> str:
    """Say what a number that is no time probably was meant to be."""
    span = "{} to {}".format(*_YEARS)
    if number == 0:
        return "leave a time that is not known empty"
    if isinstance(number, int) and (moment := _calendar(str(number))):
        return f"digits are read as a date only from {span}: write {moment.isoformat()}"
    if _FIRST_DAY <= number < _END_DAY:
        day = date.fromordinal(_SPREADSHEET.toordinal() + int(number))
        return f"as a day number of a spreadsheet it would be {day}: write it as a date"
    return f"a number has to be a year, month or day (20240229) or a Unix time, of {span}"


# --- text ---------------------------------------------------------------------------------------


def _read(text: str) -> datetime:
    """Read a date in ISO 8601 or RFC 2822."""
    if match := _ISO.fullmatch(text):
        try:
            return _iso(match)
        except ValueError as exc:
            raise NotATime(str(exc)) from exc
    plain = _COMMENT.sub(" ", text)
    try:
        moment = parsedate_to_datetime(plain)
    except (ValueError, OverflowError) as exc:
        swappable = _SWAPPABLE.fullmatch(text)
        raise NotATime("which is the day and which the month? write 2024-02-29" if swappable else "") from exc
    if moment.tzinfo is None:  # the library takes a zone that it does not know for none
        for word in _WORD.findall(plain):
            if word.lower() not in _NAMES_OF_DAYS_AND_MONTHS:
                raise NotATime(f"'{word:.20}' is no zone that is known: write an offset (+09:00)")
    return moment


def _iso(match: re.Match[str]) -> datetime:
    day = match["date"]
    if match["month"]:
        if match.end("month") < match.end():
            raise ValueError("a month has no time and no zone")
        day += "-01"
    elif match["day_of_year"]:
        found = datetime.strptime(day, "%Y-%j").date()
        if day[:4] != f"{found.year:04}":
            raise ValueError(f"{day[:4]} has no day {day[5:]}")
        day = found.isoformat()
    zone = "+00:00" if match["utc"] else match["offset"] or ""
    return datetime.fromisoformat(f"{day}T{match['time'] or '00:00'}{zone}")
