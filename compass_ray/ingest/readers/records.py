"""Blocks of delimited text -> rows and faults: by Arrow where quotes are in order, record by record where they are not.

Every record is a row or a fault. A fault takes one line and reading goes on at the next, unless the line cannot have
been a row of its own. Cost: a pass of numpy over the bytes beside Arrow's; some 50 MB/s where records are walked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv

from compass_ray.ingest.readers.batch import RAW_BYTES, Fault, Limits, RawBatch, decoded
from compass_ray.ingest.readers.grammar import Broken, Data, Layout
from compass_ray.ingest.readers.order import end_in_order
from compass_ray.ingest.readers.recovery import Recovery, miscounted

_PARSED_BYTES = 512 << 10  # what Arrow parses at a time: faster than 4 MiB at once (measured)


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

    def read(self, data: Data, last: bool) -> tuple[RawBatch, int]:
        """Read the rows and faults of a block that begins with a record.

        Returned with them is how many of its bytes they took. What follows has to come again, with more; ``last`` says
        that there is no more.
        """
        if not self._passing and len(data) <= self._longest:
            end = end_in_order(data, last, self._layout)
            if end is not None:
                batch = self._parse(pa.py_buffer(data).slice(0, end))
                if batch is not None:
                    return batch, end
        return self._walk(data, last)

    def _parse(self, block: pa.Buffer) -> RawBatch | None:
        """Parse records that are in order.

        None if one is longer than a block of Arrow's, or of another width and odd.
        """
        if not block.size:
            return RawBatch()
        skipped: list[Any] = []

        def skip(row: Any) -> str:
            skipped.append(row)
            return "skip"

        try:
            table = self._table(block, None)
        except pa.ArrowInvalid:
            try:
                str(memoryview(block), "utf-8")  # Arrow cannot show a row that is not
                table = self._table(block, skip)
            except (pa.ArrowInvalid, UnicodeDecodeError):
                return None
        faults = []
        for row in skipped:
            raw = row.text.encode()
            if len(self._grammar.lines(raw)) > 1:
                return None
            message = miscounted(row.expected_columns, row.actual_columns)
            faults.append(Fault(self._number + row.number - 1, "wrong_column_count", message, raw[:RAW_BYTES]))
        count = table.num_rows + len(skipped)
        rows: Sequence[int] = range(self._number, self._number + count)
        if skipped:
            rows = np.delete(np.array(rows), [row.number - 1 for row in skipped]).tolist()
        self._number += count
        columns = {name: table[str(index)].combine_chunks() for name, index in self._wanted.items()}
        return _batch(rows, columns, faults)

    def _table(self, block: pa.Buffer, on_odd_row: Callable[[Any], str] | None) -> pa.Table:
        """Parse the wanted columns, called by their positions. All of them if none is wanted."""
        names = [str(number) for number in range(len(self._layout.names))]
        return pa_csv.read_csv(
            pa.BufferReader(block),
            read_options=pa_csv.ReadOptions(use_threads=False, block_size=_PARSED_BYTES, column_names=names),
            parse_options=pa_csv.ParseOptions(
                delimiter=self._grammar.delimiter.decode(),
                quote_char=self._grammar.quote.decode() or False,
                newlines_in_values=bool(self._grammar.quote),
                invalid_row_handler=on_odd_row,
            ),
            convert_options=pa_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.binary()),
                include_columns=[names[index] for index in self._wanted.values()],
                strings_can_be_null=False,
            ),
        )

    def _walk(self, data: Data, last: bool) -> tuple[RawBatch, int]:
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
                raw = bytes(data[at : min(end, at + RAW_BYTES)]).rstrip(b"\r\n")
                faults.append(Fault(self._number, loss.reason, loss.message, raw))
            self._number += 1
            at = end
        columns = {name: pa.array(column, pa.binary()) for name, column in zip(self._wanted, found, strict=True)}
        return _batch(rows, columns, faults), at

    def _pass(self, data: Data) -> int:
        end = self._grammar.line_end(data, 0)
        self._passing = end is None
        return len(data) if end is None else end


def _batch(rows: Sequence[int], columns: dict[str, pa.Array], faults: Sequence[Fault] = ()) -> RawBatch:
    return decoded(rows, {name: column.view(pa.string()) for name, column in columns.items()}, [*faults])
