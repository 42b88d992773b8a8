"""Blocks of delimited text -> rows and faults: by Arrow where quotes are in order, record by record where they are not.

Every record is a row or a fault. A fault takes one line and reading goes on at the next, unless the line cannot have
been a row of its own. Cost: a pass of numpy over the bytes beside Arrow's; some 50 MB/s where records are walked.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from compass_ray.ingest.readers.batch import RAW_BYTES, Fault, Limits, RawBatch, decoded
from compass_ray.ingest.readers.grammar import Broken, Grammar

BOM = b"\xef\xbb\xbf"
_PARSED_BYTES = 1 << 20  # what Arrow parses at a time: twice as fast as four times as much (measured)
_IN_PROSE = b",;"
_COINCIDENCE = 8
HINT = "where quotes are text, say quote: none"


@dataclass(frozen=True)
class Layout:
    """How a file is written, and what its columns are called.

    Attributes
    ----------
    header : bool
        Whether the names stand in the file.
    doubtful : bool
        Whether nothing bears out what is taken for a quote, so that fields which speak against it are faults.
    """

    grammar: Grammar
    names: tuple[str, ...]
    header: bool = True
    doubtful: bool = False

    def __str__(self) -> str:
        columns = f"{len(self.names)} column{'' if len(self.names) == 1 else 's'}"
        return f"{self.grammar}, {'header' if self.header else 'no header'}, {columns}"


class Records:
    """Rows of one file, from its blocks in their order.

    Parameters
    ----------
    layout : Layout
    columns : sequence of str
        The names to read, each in the layout.
    limits : Limits
        Of records.
    """

    def __init__(self, layout: Layout, columns: Sequence[str], limits: Limits) -> None:
        self._layout, self._grammar = layout, layout.grammar
        self._expected = len(layout.names)
        self._wanted = {name: layout.names.index(name) for name in columns}
        self._longest = limits.row_bytes
        self._number = 0  # of the next row or fault
        self._passing = False  # over the rest of a line that is too long

    def read(self, data: bytes, last: bool) -> tuple[RawBatch, int]:
        """Rows and faults of a block that begins with a record, and how many of its bytes they took.

        What follows has to come again, with more; ``last`` says that there is no more.
        """
        end = self._in_order(data, last)
        if end is not None:
            batch = self._parse(pa.py_buffer(data).slice(0, end))
            if batch is not None:
                return batch, end
        return self._walk(data, last)

    def _in_order(self, data: bytes, last: bool) -> int | None:
        """Where the last whole record ends, if Arrow reads all before it as :class:`Grammar` does; None if not."""
        grammar = self._grammar
        quote, newline = grammar.quote, grammar.newline
        if self._passing or len(data) > self._longest or data.startswith(BOM):  # Arrow would take it for a mark
            return None
        if (grammar.escape and grammar.escape in data) or (
            newline == b"\n" and b"\r" in data and data.count(b"\r") != data.count(b"\r\n")
        ):
            return None
        end = len(data) if last else data.rfind(newline) + 1
        if not quote:
            return None if self._layout.doubtful and b'""' in data else end
        if quote not in data:
            return end
        raw = np.frombuffer(data, np.uint8)
        quotes = np.flatnonzero(raw == quote[0])
        inside = np.searchsorted(quotes, end)
        while inside % 2 and not last:  # the record of the last quote is not whole
            end = data.rfind(newline, 0, quotes[inside - 1]) + 1
            inside = np.searchsorted(quotes, end)
        quotes = quotes[:inside]
        borders = np.zeros(256, bool)
        borders[[*grammar.delimiter, *b"\r\n", *quote]] = True
        opening, closing = quotes[0::2], quotes[1::2]
        before, after = raw[opening[opening > 0] - 1], raw[closing[closing < len(data) - 1] + 1]
        if inside % 2 or not borders[before].all() or not borders[after].all():
            return None
        if self._layout.doubtful:
            lines = np.flatnonzero(raw[:end] == newline[0])
            if (np.searchsorted(quotes, lines) % 2).any():
                return None
        return int(end)

    def _parse(self, block: pa.Buffer) -> RawBatch | None:
        """Records that are in order, by Arrow; None if there is one that it cannot show or that takes several lines."""
        if not block.size:
            return RawBatch()
        skipped: list[Any] = []
        names = [str(number) for number in range(self._expected)]
        wanted = [names[index] for index in self._wanted.values()]
        try:
            table = pa_csv.read_csv(
                pa.BufferReader(block),
                read_options=pa_csv.ReadOptions(use_threads=False, block_size=_PARSED_BYTES, column_names=names),
                parse_options=pa_csv.ParseOptions(
                    delimiter=self._grammar.delimiter.decode(),
                    quote_char=self._grammar.quote.decode() or False,
                    newlines_in_values=bool(self._grammar.quote),
                    invalid_row_handler=lambda row: skipped.append(row) or "skip",
                ),
                convert_options=pa_csv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.binary()), include_columns=wanted, strings_can_be_null=False
                ),
            )
        except pa.ArrowInvalid:
            return None
        faults = []
        for row in skipped:
            raw = row.text.encode()
            if len(self._grammar.lines(raw)) > 1:
                return None
            number = self._number + row.number - 1  # counted from 1
            faults.append(Fault(number, "wrong_column_count", self._miscounted(row.actual_columns), raw[:RAW_BYTES]))
        count = table.num_rows + len(skipped)
        rows: Sequence[int] = range(self._number, self._number + count)
        if skipped:
            rows = np.delete(np.array(rows), [row.number - 1 for row in skipped]).tolist()
        self._number += count
        columns = [table[name].combine_chunks() for name in wanted]
        return _batch(rows, dict(zip(self._wanted, columns, strict=True)), faults)

    def _walk(self, data: bytes, last: bool) -> tuple[RawBatch, int]:
        grammar, expected, wanted = self._grammar, self._expected, [*self._wanted.values()]
        rows: list[int] = []
        found: list[list[bytes]] = [[] for _ in wanted]
        faults: list[Fault] = []
        at = self._pass(data) if self._passing else 0
        while at < len(data):
            fault: tuple[str, str, int] | None = None
            try:
                fields, end, ended = grammar.record(data, at)
            except Broken as broken:
                if not broken.after and not last and len(data) - at <= self._longest:
                    break
                fault = self._broken(data, at, last, broken)
                if fault is None:
                    break
            else:
                if not ended and not last and len(data) - at <= self._longest:
                    break
                if fields == [b""]:  # a blank line
                    at = end
                    continue
                if end - at > self._longest or len(fields) != expected or self._layout.doubtful:
                    fault = self._fault(data, at, end, fields)
            if fault is None:
                rows.append(self._number)
                for column, index in zip(found, wanted, strict=True):
                    column.append(grammar.value(fields[index]))
            else:
                reason, message, end = fault
                text = data[at : min(end, at + RAW_BYTES)].rstrip(b"\r\n")
                faults.append(Fault(self._number, reason, message, text))
            self._number += 1
            at = end
        columns = {name: pa.array(column, pa.binary()) for name, column in zip(self._wanted, found, strict=True)}
        return _batch(rows, columns, faults), at

    def _pass(self, data: bytes) -> int:
        end = self._grammar.line_end(data, 0)
        self._passing = end is None
        return len(data) if end is None else end

    def _fault(self, data: bytes, start: int, end: int, fields: list[bytes]) -> tuple[str, str, int] | None:
        """What is wrong with a record that ends as it should, and where reading goes on."""
        if end - start > self._longest:
            return self._too_long(data, start)
        miscounted = len(fields) != self._expected
        lines = self._grammar.lines(data[start:end].rstrip(b"\r\n")) if self._grammar.quote else []
        if len(lines) > 1 and self._is_row(lines[0]) and (miscounted or (self._layout.doubtful and self._are_rows(lines))):
            message = f"a quote makes one row of {len(lines)} lines, the first of which has as many columns as a row"
            return "broken_csv", f"{message}; {HINT}", self._next_line(data, start)
        if miscounted:
            return "wrong_column_count", self._miscounted(len(fields)) + _taking(len(lines)), end
        if self._layout.doubtful and not self._grammar.quote:
            for number, field in enumerate(fields):
                if _is_quoted(field):
                    message = f'column {number + 1} reads as a quoted field, with "" for a quote inside'
                    return "broken_csv", f"{message}, where quotes are taken for text; say quote: '\"' or none", end
        return None

    def _broken(self, data: bytes, start: int, last: bool, broken: Broken) -> tuple[str, str, int] | None:
        """What to say of a quoted field that does not end, and where reading goes on; None if more is needed."""
        end = self._extent(data, start, last)
        if end is None:
            return None
        if end - start > self._longest:
            return self._too_long(data, start)
        what = "its quote never closes"
        if broken.after:
            what = f"{broken.after.decode('utf-8', 'replace')!r} comes after its closing quote"
        taken = _taking(len(self._grammar.lines(data[start:end].rstrip(b"\r\n"))))
        return "broken_csv", f"column {broken.field + 1}: {what}{taken}; {HINT}", end

    def _extent(self, data: bytes, start: int, last: bool) -> int | None:
        """Where a broken record ends: with its line, if that has as many fields as a row, so that its quote was text.

        If not, the field goes over several lines, and the record ends with that of the next quote, unless that quote
        opens a field.
        """
        quote = self._grammar.quote
        enough = last or len(data) - start > self._longest
        line = self._grammar.line_end(data, start)
        if line is None:
            return len(data) if enough else None
        if self._is_row(data[start:line]):
            return line
        following = data.find(quote, line, start + self._longest)
        if following < 0:
            return line if enough else None
        if data[following - 1 : following] in (self._grammar.delimiter, b"\r", b"\n"):
            return line
        end = self._grammar.line_end(data, following)
        return end if end is not None else len(data) if last else line if enough else None

    def _is_row(self, line: bytes) -> bool:
        """Whether a line would be a row if its quotes were text; where there is one column, if they come in pairs."""
        if self._expected > 1:
            return line.count(self._grammar.delimiter) == self._expected - 1
        return line.count(self._grammar.quote) % 2 == 0

    def _are_rows(self, lines: list[bytes]) -> bool:
        """Whether the lines of one record are all rows by themselves, more than chance would have it."""
        delimiters = (self._expected - 1) * len(lines)
        chance = _COINCIDENCE if self._grammar.delimiter in _IN_PROSE else 1
        doubled = self._grammar.quote * 2
        return delimiters >= chance and all(self._is_row(line) and doubled not in line for line in lines)

    def _too_long(self, data: bytes, start: int) -> tuple[str, str, int]:
        end = self._grammar.line_end(data, start)
        if end is not None and end - start <= self._longest:
            message = f"a quote does not close within {self._longest:,} bytes (ingest.max_row_bytes)"
            return "broken_csv", f"{message}; {HINT}", end
        self._passing = end is None
        message = f"the line is longer than {self._longest:,} bytes; raise ingest.max_row_bytes to read it"
        return "row_too_large", message, len(data) if end is None else end

    def _next_line(self, data: bytes, start: int) -> int:
        end = self._grammar.line_end(data, start)
        return len(data) if end is None else end

    def _miscounted(self, found: int) -> str:
        return f"expected {self._expected} columns, found {found}"




def _taking(lines: int) -> str:
    return f", and {lines} lines are lost with it" if lines > 1 else ""


def _is_quoted(field: bytes) -> bool:
    """Whether a field reads as if it were quoted by doubling quotes, at least one of which is inside."""
    inner = field[1:-1]
    return field[:1] == field[-1:] == b'"' and b'""' in inner and b'"' not in inner.replace(b'""', b"")


def _batch(rows: Sequence[int], columns: dict[str, pa.Array], faults: list[Fault]) -> RawBatch:
    return decoded(rows, {name: column.view(pa.string()) for name, column in columns.items()}, faults)
