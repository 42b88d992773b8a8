"""Records of delimited text that cannot be read: what is wrong with them, and where reading goes on.

A fault takes one line, and reading goes on at the next, if the line could have been a row by itself: then it was its
quote that was none. If not, a field goes over several lines, and all of them are lost.
"""

from __future__ import annotations

from typing import NamedTuple

from compass_ray.ingest.readers.batch import line_too_long
from compass_ray.ingest.readers.grammar import Broken, Data, Layout

HINT = "where quotes are text, say quote: none"
_IN_PROSE = b",;"
_COINCIDENCE = 8  # so many delimiters at the right places are no chance even in prose


class Loss(NamedTuple):
    """A record that is none, and where reading goes on."""

    reason: str
    message: str
    end: int
    goes_on: bool = False  # the line is not over there


class Recovery:
    """Judges the records of one file.

    Parameters
    ----------
    layout : Layout
    longest : int
        Bytes that a record may have.
    """

    def __init__(self, layout: Layout, longest: int) -> None:
        self._grammar = layout.grammar
        self._expected = len(layout.names)
        self._doubtful = layout.doubtful
        self._longest = longest

    def of_whole(self, data: Data, start: int, end: int, fields: list[bytes]) -> Loss | None:
        """Say what is wrong with a record that ends as it should. None if nothing is."""
        if end - start > self._longest:
            return self._too_long(data, start)
        counted = len(fields) == self._expected
        lines = self._lines(data, start, end) if self._grammar.quote else [bytes(data[start:end])]
        if len(lines) > 1 and self._is_row(lines[0]) and not (counted and (not self._doubtful or self._differ(lines))):
            message = f"a quote makes one row of {len(lines)} lines, the first of which has as many columns as a row"
            return Loss("broken_csv", f"{message}; {HINT}", self._line_end(data, start))
        if not counted:
            message = miscounted(self._expected, len(fields))
            return Loss("wrong_column_count", message + _taking(lines), end)
        if self._doubtful and not self._grammar.quote:
            for number, field in enumerate(fields):
                if _is_quoted(field):
                    message = f'column {number + 1} reads as a quoted field, with "" for a quote inside'
                    message += ", where quotes are taken for text; say quote: '\"' or quote: none"
                    return Loss("broken_csv", message, end)
        return None

    def of_broken(self, data: Data, start: int, final: bool, broken: Broken) -> Loss | None:
        """Say what is wrong with a quoted field that does not end.

        None if more has to be read, unless this is ``final``.
        """
        end = self._extent(data, start, final) if broken.after or final else None
        if end is None:
            return None
        if end - start > self._longest:
            return self._too_long(data, start)
        what = "its quote never closes"
        if broken.after:
            found = self._grammar.lines(broken.after)[0].decode("utf-8", "replace")
            what = f"expected a delimiter or a line end after its closing quote, found {found!r}"
        message = f"column {broken.field + 1}: {what}{_taking(self._lines(data, start, end))}"
        return Loss("broken_csv", f"{message}; {HINT}", end)

    def _extent(self, data: Data, start: int, final: bool) -> int | None:
        """Find where a broken record ends.

        None if what is there does not tell. If its line is no row by itself, it ends with the line of the next quote,
        unless that opens a field.
        """
        grammar = self._grammar
        unknown = len(data) if final else None
        line = grammar.line_end(data, start)
        if line is None or self._is_row(data[start:line]):
            return unknown if line is None else line
        following = data.find(grammar.quote, line, start + self._longest)
        if following < 0:
            return line if final else None
        if data[following - 1 : following] in (grammar.delimiter, b"\r", b"\n"):
            return line
        return grammar.line_end(data, following) or unknown

    def _too_long(self, data: Data, start: int) -> Loss:
        end = self._grammar.line_end(data, start)
        if end is not None and end - start <= self._longest:
            message = f"a quote does not close within {self._longest:,} bytes (ingest.max_row_bytes)"
            return Loss("broken_csv", f"{message}; {HINT}", end)
        return Loss("row_too_large", line_too_long(self._longest), len(data) if end is None else end, end is None)

    def _is_row(self, line: Data) -> bool:
        """Tell whether a line would be a row if its quotes were text.

        Where there is one column, it is one if they come in pairs.
        """
        if self._expected > 1:
            return line.count(self._grammar.delimiter) == self._expected - 1
        return line.count(self._grammar.quote) % 2 == 0

    def _differ(self, lines: list[bytes]) -> bool:
        """Tell whether some lines of one record are no rows by themselves. Or whether all are so by chance."""
        by_chance = _COINCIDENCE if self._grammar.delimiter in _IN_PROSE else 1
        if (self._expected - 1) * len(lines) < by_chance:
            return True
        doubled = self._grammar.quote * 2
        return any(doubled in line or not self._is_row(line) for line in lines)

    def _lines(self, data: Data, start: int, end: int) -> list[bytes]:
        return self._grammar.lines(data[start:end].rstrip(b"\r\n"))

    def _line_end(self, data: Data, start: int) -> int:
        return self._grammar.line_end(data, start) or len(data)


def miscounted(expected: int, found: int) -> str:
    """Say that a record is of another width."""
    return f"expected {expected} columns, found {found}"


def _taking(lines: list[bytes]) -> str:
    return f", and {len(lines)} lines are lost with it" if len(lines) > 1 else ""


def _is_quoted(field: bytes) -> bool:
    """Tell whether a field reads as quoted, with a doubled quote inside."""
    inner = field[1:-1]
    return field[:1] == field[-1:] == b'"' and b'""' in inner and b'"' not in inner.replace(b'""', b"")
