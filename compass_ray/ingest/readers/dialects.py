"""How a delimited file is written, told from its beginning and from what the config says.

The delimiter is the first of comma, semicolon, tab and bar (in .tsv files tab comes first) under which the header has
the wanted columns; without a header, under which nine rows of ten have equally many columns, more than one. In .csv
files double quotes quote (RFC 4180). In .tsv files they quote if the 128 KiB from the first of them on have fewer
faults so than with quotes as text, or as few while a quoted field has a doubled quote inside, all values of a column
are quoted, or just those that hold a comma (as Excel writes them). A backslash is an escape if that makes fewer faults.
Equal bytes are read alike.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from compass_ray.ingest.config import AUTO, NONE, Dialect, Limits, column_name
from compass_ray.ingest.readers.batch import Unreadable
from compass_ray.ingest.readers.grammar import BOM, Broken, Data, Grammar, Layout
from compass_ray.ingest.readers.records import Records
from compass_ray.ingest.readers.recovery import HINT

_SAMPLE_BYTES = 128 << 10
_DELIMITERS = {"csv": (b",", b";", b"\t", b"|"), "tsv": (b"\t", b",", b";", b"|")}
_QUOTE, _ESCAPE = b'"', b"\\"
_REGULAR = 0.9  # of the first rows, without a header
_FIRST_ROWS = 200
_BLANK = re.compile(b"(?:%s)?[\\r\\n]*" % BOM)
_LINE_END = re.compile(rb"(\r\n|\r|\n)")
_FIRST_LINE = re.compile(rb'[^"\r\n]*+(?:"[^"]*+"[^"\r\n]*+)*+(\r\n|\r|\n)')


@dataclass(frozen=True)
class _Head:
    """The beginning of a file."""

    data: Data
    whole: bool  # the file ends here
    newline: bytes
    start: int  # of the first line that is not blank, behind a byte order mark
    quoted: int  # the start of the first line that holds a quote; the lines before are read alike in every way

    def records(self, grammar: Grammar, at: int) -> Iterator[list[bytes]]:
        """Yield the fields of records from here on, as they are written.

        Broken records are left out. Only a sample is read.
        """
        stop = min(len(self.data), at + _SAMPLE_BYTES)
        while at < stop:
            try:
                fields, at, ended = grammar.record(self.data, at)
            except Broken:
                at = grammar.line_end(self.data, at) or stop
                continue
            if fields != [b""] and (ended or self.whole):
                yield fields


@dataclass(frozen=True)
class _Reading:
    """One way to read a file: a layout, and where the rows begin under it."""

    layout: Layout
    start: int
    regular: bool = True

    @property
    def quoted(self) -> bool:
        return bool(self.layout.grammar.quote)

    def sample(self, head: _Head, end: int | None = None) -> tuple[int, int, int]:
        """Read a sample that holds quotes.

        Returned are where it begins, where its last whole record ends, and the faults in it.
        """
        start = max(self.start, head.quoted)
        stop = start + _SAMPLE_BYTES if end is None else end
        layout = replace(self.layout, doubtful=True)
        records = Records(layout, layout.names[:1], Limits())
        batch, used = records.read(head.data[start:stop], head.whole and stop >= len(head.data))
        return start, start + used, len(batch.faults)

    def surely(self, doubtful: bool) -> tuple[Layout, int]:
        return replace(self.layout, doubtful=doubtful), self.start


def lay_out(data: Data, whole: bool, kind: str, given: Dialect, columns: Sequence[str]) -> tuple[Layout, int]:
    """Find the layout of a file, and where its rows begin.

    Parameters
    ----------
    data : bytes or bytearray
        The beginning of the file, its header included; or all of it, if ``whole``.
    kind : {"csv", "tsv"}
    given : Dialect
        What the config says.
    columns : sequence of str
        The wanted ones. If there is no layout that has them, it is that of the first delimiter.

    Raises
    ------
    Unreadable
        ``broken_csv``, if the header is broken; without one, if all records are.
    """
    head = _head(data, whole, given)
    delimiters = _DELIMITERS[kind] if given.delimiter == AUTO else (given.delimiter.encode(),)
    readings: list[_Reading] = []
    for delimiter in delimiters:
        found = [*_readings(head, delimiter, given)]
        fitting = [one for one in found if {*columns} <= {*one.layout.names}]
        if any(one.quoted or kind != "csv" or given.quote == NONE for one in fitting) and (
            given.header or len(delimiters) == 1 or any(one.regular for one in fitting)
        ):
            readings = fitting
            break
        readings = readings or found
    if not readings or (kind == "csv" and given.quote == AUTO and not any(one.quoted for one in readings)):
        what = "the header" if given.header else "every record"
        raise Unreadable("broken_csv", f"{what} is broken: a quote never closes or has text behind it; {HINT}")
    return _settled(readings, head, kind, given)


def _head(data: Data, whole: bool, given: Dialect) -> _Head:
    newline = b"\r" if _ends_in_returns(data) else b"\n"
    blank = _BLANK.match(data)
    quote = data.find(_QUOTE if given.quote in (AUTO, NONE) else given.quote.encode())
    line = data.rfind(newline, 0, quote) + 1 if quote >= 0 else len(data)
    return _Head(data, whole, newline, blank.end() if blank else 0, line)


def _settled(readings: list[_Reading], head: _Head, kind: str, given: Dialect) -> tuple[Layout, int]:
    """Choose the reading that suits the beginning best."""
    quoted = [one for one in readings if one.quoted]
    plain = [one for one in readings if not one.quoted]
    if not quoted:
        return plain[0].surely(given.quote == AUTO)
    best = quoted[0] if len(quoted) == 1 else min(quoted, key=lambda one: one.sample(head)[2])
    if not plain:
        return best.surely(doubtful=False)
    if head.quoted == len(head.data):  # there is no quote
        return (best if kind == "csv" else plain[0]).surely(doubtful=True)
    start, end, by_quoting = best.sample(head)
    if not by_quoting and _has_doubled(best.layout.grammar, head.data[start:end]):
        return best.surely(doubtful=False)
    *_, by_text = plain[0].sample(head, end)
    if kind == "csv" or by_quoting < by_text:
        return best.surely(doubtful=by_text <= by_quoting)
    alike = by_quoting == by_text and _quoted_alike(best, head)
    return (best if alike else plain[0]).surely(doubtful=True)


def _readings(head: _Head, delimiter: bytes, given: Dialect) -> Iterator[_Reading]:
    """Yield all ways to read a file with one delimiter. Under each its columns are told."""
    quotes = {AUTO: (_QUOTE, b""), NONE: (b"",)}.get(given.quote, (given.quote.encode(),))
    for quote in quotes:
        escapes: tuple[bytes, ...] = {AUTO: (b"",), NONE: (b"",)}.get(given.escape, (given.escape.encode(),))
        if given.escape == AUTO and quote and _ESCAPE + quote in head.data:
            escapes = (b"", _ESCAPE)
        for escape in escapes:
            if len({delimiter, quote, escape}) == 3 or not (quote or escape):
                grammar = Grammar(delimiter, quote, escape, head.newline)
                reading = _with_header(head, grammar) if given.header else _without_header(head, grammar)
                if reading is not None:
                    yield reading


def _with_header(head: _Head, grammar: Grammar) -> _Reading | None:
    try:
        fields, end, _ = grammar.record(head.data, head.start)
    except Broken:
        return None
    empty = head.start == len(head.data)
    names = [] if empty else [grammar.value(field).decode("utf-8", "replace") for field in fields]
    return _Reading(Layout(grammar, tuple(names)), end)


def _without_header(head: _Head, grammar: Grammar) -> _Reading | None:
    counts = Counter(map(len, islice(head.records(grammar, head.start), _FIRST_ROWS)))
    if not counts:
        return None
    [(columns, rows)] = counts.most_common(1)
    names = tuple(column_name(number + 1) for number in range(columns))
    return _Reading(Layout(grammar, names, header=False), head.start, columns > 1 and rows >= _REGULAR * counts.total())


def _has_doubled(grammar: Grammar, data: Data) -> bool:
    """Tell whether a quoted field has a doubled quote inside."""
    quote = re.escape(grammar.quote)
    border = rb"(?:\A|[\r\n%s])" % re.escape(grammar.delimiter)
    return re.search(rb"%s%s[^%s]*+%s%s" % (border, quote, quote, quote, quote), data) is not None


def _quoted_alike(reading: _Reading, head: _Head) -> bool:
    """Tell whether quotes follow a rule.

    That is: all values of a column are quoted, or just those that hold a comma.
    """
    grammar, width = reading.layout.grammar, len(reading.layout.names)
    starts = {reading.start, max(reading.start, head.quoted)}
    rows = [fields for start in starts for fields in head.records(grammar, start) if len(fields) == width]
    marked = [[field.startswith(grammar.quote) for field in fields] for fields in rows]
    if not any(map(any, marked)):
        return False
    for fields in zip(*rows, strict=True):
        filled = [field for field in fields if field]
        if filled and all(field.startswith(grammar.quote) for field in filled):
            return True
    return all([b"," in field for field in fields] == marks for fields, marks in zip(rows, marked, strict=True))


def _ends_in_returns(data: Data) -> bool:
    r"""Tell whether the first line end is a ``\r`` alone.

    It is the first outside double quotes if they are in pairs.
    """
    match = _FIRST_LINE.match(data) or _LINE_END.search(data)
    return match is not None and match[1] == b"\r"
