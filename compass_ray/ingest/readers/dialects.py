"""How a delimited file is written, told from its first 256 KiB and from what the config says.

The delimiter is the first of comma, semicolon, tab and bar (in .tsv files tab comes first) under which the header has
the wanted columns; without a header, under which nine rows of ten have equally many columns, more than one. In .csv
files double quotes quote (RFC 4180). In .tsv files they quote if the beginning has fewer faults so than with quotes as
text, or as few while a quoted field has a doubled quote inside, all values of a column are quoted, or just those that
hold a comma (as Excel writes them). A backslash is an escape if that makes fewer faults. Equal bytes are read alike.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

from compass_ray.ingest.config import AUTO, NONE, Dialect, Limits, column_name
from compass_ray.ingest.readers.batch import Unreadable
from compass_ray.ingest.readers.grammar import Broken, Grammar, Layout
from compass_ray.ingest.readers.records import Records
from compass_ray.ingest.readers.recovery import HINT

_SAMPLE_BYTES = 256 << 10
_DELIMITERS = {"csv": (b",", b";", b"\t", b"|"), "tsv": (b"\t", b",", b";", b"|")}
_QUOTE, _ESCAPE = b'"', b"\\"
_REGULAR = 0.9  # of the first rows, without a header
_FIRST_ROWS = 200
_LINE_END = re.compile(rb"(\r\n|\r|\n)")
_FIRST_LINE = re.compile(rb'[^"\r\n]*+(?:"[^"]*+"[^"\r\n]*+)*+(\r\n|\r|\n)')


@dataclass(frozen=True)
class _Head:
    """The beginning of a file."""

    data: bytes
    whole: bool  # the file ends here
    newline: bytes

    def records(self, grammar: Grammar) -> Iterator[tuple[list[bytes], int]]:
        """Fields as they are written, of the records that are not broken, and where each ends."""
        at = 0
        while at < len(self.data):
            try:
                fields, at, ended = grammar.record(self.data, at)
            except Broken:
                at = grammar.line_end(self.data, at) or len(self.data)
                continue
            if fields != [b""] and (ended or self.whole):
                yield fields, at


@dataclass(frozen=True)
class _Reading:
    """One way to read a file: a layout, and where the rows begin under it."""

    layout: Layout
    start: int
    regular: bool = True

    @property
    def quoted(self) -> bool:
        return bool(self.layout.grammar.quote)

    def faults(self, head: _Head, end: int | None = None) -> tuple[int, int]:
        """Faults in the beginning, and up to where it could be read."""
        layout = replace(self.layout, doubtful=True)
        batch, used = Records(layout, layout.names[:1], Limits()).read(head.data[self.start : end], head.whole)
        return len(batch.faults), self.start + used

    def surely(self, doubtful: bool) -> tuple[Layout, int]:
        return replace(self.layout, doubtful=doubtful), self.start


def lay_out(data: bytes, whole: bool, kind: str, given: Dialect, columns: Sequence[str]) -> tuple[Layout, int]:
    """The layout of a file, and where its rows begin.

    Parameters
    ----------
    data : bytes
        The beginning of the file, its header included and without a byte order mark; or all of it, if ``whole``.
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
    newline = b"\r" if _ends_in_returns(data) else b"\n"
    delimiters = _DELIMITERS[kind] if given.delimiter == AUTO else (given.delimiter.encode(),)
    readings: list[_Reading] = []
    for delimiter in delimiters:
        found = [*_readings(_Head(data, whole, newline), delimiter, given)]
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
    sample = _Head(data[:_SAMPLE_BYTES], whole and len(data) <= _SAMPLE_BYTES, newline)
    return _settled(readings, sample, kind, given)


def _settled(readings: list[_Reading], head: _Head, kind: str, given: Dialect) -> tuple[Layout, int]:
    """The reading that suits the beginning best."""
    quoted = [one for one in readings if one.quoted]
    plain = [one for one in readings if not one.quoted]
    if not quoted:
        return plain[0].surely(given.quote == AUTO)
    best = quoted[0] if len(quoted) == 1 else min(quoted, key=lambda one: one.faults(head)[0])
    if not plain:
        return best.surely(doubtful=False)
    if _QUOTE not in head.data:
        return (best if kind == "csv" else plain[0]).surely(doubtful=True)
    by_quoting, end = best.faults(head)
    if not by_quoting and _has_doubled(best.layout.grammar, head.data[:end]):
        return best.surely(doubtful=False)
    by_text, _ = plain[0].faults(head, end)
    if kind == "csv" or by_quoting < by_text:
        return best.surely(doubtful=by_text <= by_quoting)
    alike = by_quoting == by_text and _quoted_alike(best, head)
    return (best if alike else plain[0]).surely(doubtful=True)


def _readings(head: _Head, delimiter: bytes, given: Dialect) -> Iterator[_Reading]:
    """All ways to read a file with one delimiter under which its columns are told."""
    quotes = {AUTO: (_QUOTE, b""), NONE: (b"",)}.get(given.quote, (given.quote.encode(),))
    for quote in quotes:
        escapes: tuple[bytes, ...] = {AUTO: (b"",), NONE: (b"",)}.get(given.escape, (given.escape.encode(),))
        if given.escape == AUTO and quote and _ESCAPE + quote in head.data[:_SAMPLE_BYTES]:
            escapes = (b"", _ESCAPE)
        for escape in escapes:
            if len({delimiter, quote, escape}) == 3 or not (quote or escape):
                grammar = Grammar(delimiter, quote, escape, head.newline)
                reading = _with_header(head, grammar) if given.header else _without_header(head, grammar)
                if reading is not None:
                    yield reading


def _with_header(head: _Head, grammar: Grammar) -> _Reading | None:
    blank = len(head.data) - len(head.data.lstrip(b"\r\n"))
    try:
        fields, end, _ = grammar.record(head.data, blank)
    except Broken:
        return None
    names = [grammar.value(field).decode("utf-8", "replace") for field in fields] if head.data[blank:] else []
    return _Reading(Layout(grammar, tuple(names)), end)


def _without_header(head: _Head, grammar: Grammar) -> _Reading | None:
    counts = Counter(len(fields) for fields, _ in islice(head.records(grammar), _FIRST_ROWS))
    if not counts:
        return None
    [(columns, rows)] = counts.most_common(1)
    names = tuple(column_name(number + 1) for number in range(columns))
    return _Reading(Layout(grammar, names, header=False), 0, columns > 1 and rows >= _REGULAR * counts.total())


def _has_doubled(grammar: Grammar, data: bytes) -> bool:
    """Whether a quoted field has a doubled quote inside."""
    quote = re.escape(grammar.quote)
    border = rb"(?:\A|[\r\n%s])" % re.escape(grammar.delimiter)
    return re.search(rb"%s%s[^%s]*+%s%s" % (border, quote, quote, quote, quote), data) is not None


def _quoted_alike(reading: _Reading, head: _Head) -> bool:
    """Whether all values of a column are quoted, or just those that hold a comma."""
    grammar, width = reading.layout.grammar, len(reading.layout.names)
    rows = [fields for fields, end in head.records(grammar) if end > reading.start and len(fields) == width]
    marked = [[field.startswith(grammar.quote) for field in fields] for fields in rows]
    if not any(map(any, marked)):
        return False
    for fields in zip(*rows, strict=True):
        filled = [field for field in fields if field]
        if filled and all(field.startswith(grammar.quote) for field in filled):
            return True
    return all([b"," in field for field in fields] == marks for fields, marks in zip(rows, marked, strict=True))


def _ends_in_returns(data: bytes) -> bool:
    r"""Whether the first line end, outside double quotes if they are in pairs, is a ``\r`` alone."""
    match = _FIRST_LINE.match(data) or _LINE_END.search(data)
    return match is not None and match[1] == b"\r"
