"""Blocks of delimited text -> rows and faults: by Arrow where quotes are in order, record by record where they are not.

Every record is a row or a fault. A fault takes one line and reading goes on at the next, unless the line cannot have
been a row of its own. Cost: a pass of numpy over the bytes beside Arrow's; some 50 MB/s where records are walked.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from compass_ray.ingest.readers.batch import RAW_BYTES, Fault, Limits, RawBatch, decoded
from compass_ray.ingest.readers.grammar import Broken, Layout
from compass_ray.ingest.readers.recovery import Recovery

BOM = b"\xef\xbb\xbf"
_PARSED_BYTES = 1 << 20  # what Arrow parses at a time: twice as fast as four times as much (measured)


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
        self._wanted = {name: layout.names.index(name) for name in columns}
        self._longest = limits.row_bytes
        self._recovery = Recovery(layout, limits.row_bytes)
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
        """Records that are in order, by Arrow; None if one has another number of columns than the others."""
        if not block.size:
            return RawBatch()
        names = [str(number) for number in range(len(self._layout.names))]
        wanted = [names[index] for index in self._wanted.values()]
        try:
            table = pa_csv.read_csv(
                pa.BufferReader(block),
                read_options=pa_csv.ReadOptions(use_threads=False, block_size=_PARSED_BYTES, column_names=names),
                parse_options=pa_csv.ParseOptions(
                    delimiter=self._grammar.delimiter.decode(),
                    quote_char=self._grammar.quote.decode() or False,
                    newlines_in_values=bool(self._grammar.quote),
                ),
                convert_options=pa_csv.ConvertOptions(
                    column_types=dict.fromkeys(names, pa.binary()), include_columns=wanted, strings_can_be_null=False
                ),
            )
        except pa.ArrowInvalid:  # or one is longer than what Arrow parses at a time
            return None
        rows = range(self._number, self._number + table.num_rows)
        self._number += table.num_rows
        return _batch(rows, {name: table[key].combine_chunks() for name, key in zip(self._wanted, wanted, strict=True)})

    def _walk(self, data: bytes, last: bool) -> tuple[RawBatch, int]:
        grammar, recovery, wanted = self._grammar, self._recovery, [*self._wanted.values()]
        expected, doubtful = len(self._layout.names), self._layout.doubtful
        rows: list[int] = []
        found: list[list[bytes]] = [[] for _ in wanted]
        faults: list[Fault] = []
        at = self._pass(data) if self._passing else 0
        while at < len(data):
            final = last or len(data) - at > self._longest  # more would not help
            loss = None
            try:
                fields, end, ended = grammar.record(data, at)
            except Broken as broken:
                loss = recovery.of_broken(data, at, final, broken)
                if loss is None:
                    break
            else:
                if not (ended or final):
                    break
                if fields == [b""]:  # a blank line
                    at = end
                    continue
                if doubtful or len(fields) != expected or end - at > self._longest:
                    loss = recovery.of_whole(data, at, end, fields)
            if loss is None:
                rows.append(self._number)
                for column, index in zip(found, wanted, strict=True):
                    column.append(grammar.value(fields[index]))
            else:
                end, self._passing = loss.end, loss.goes_on and not last
                raw = data[at : min(end, at + RAW_BYTES)].rstrip(b"\r\n")
                faults.append(Fault(self._number, loss.reason, loss.message, raw))
            self._number += 1
            at = end
        columns = {name: pa.array(column, pa.binary()) for name, column in zip(self._wanted, found, strict=True)}
        return _batch(rows, columns, faults), at

    def _pass(self, data: bytes) -> int:
        end = self._grammar.line_end(data, 0)
        self._passing = end is None
        return len(data) if end is None else end


def _batch(rows: Sequence[int], columns: dict[str, pa.Array], faults: Sequence[Fault] = ()) -> RawBatch:
    return decoded(rows, {name: column.view(pa.string()) for name, column in columns.items()}, [*faults])
