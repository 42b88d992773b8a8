"""Delimited text: every dialect, what is told from a file, and no line that is neither row nor fault."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compass_ray.ingest.config import Dialect, Limits
from compass_ray.ingest.files import InputFile, ReadUnit
from compass_ray.ingest.readers import Fault, Unreadable, delimited, read, records
from compass_ray.ingest.readers.delimited import layout_of

Rows = list[tuple[str, ...]]
UNNAMED = Dialect(header=False)


def input_file(path: Path, data: bytes, dialect: Dialect = Dialect()) -> InputFile:  # noqa: B008 immutable
    path.write_bytes(data)
    return InputFile(str(path), path.name, len(data), "v", path.suffix[1:], "c", dialect)


def read_all(file: InputFile, columns: Iterable[str], limits: Limits = Limits()) -> tuple[Rows, list[Fault]]:  # noqa: B008
    """Values and faults; their numbers have to be those of all records, each once."""
    batches = [*read(ReadUnit("s", file), [*columns], limits)]
    numbers = [number for batch in batches for number in batch.rows]
    faults = sorted((fault for batch in batches for fault in batch.faults), key=lambda fault: fault.row or -1)
    counted = [fault.row for fault in faults if fault.row is not None]
    assert numbers == sorted(numbers)
    assert sorted([*numbers, *counted]) == [*range(len(numbers) + len(counted))]
    rows = [row for batch in batches for row in zip(*(batch.values(name) for name in batch.columns), strict=True)]
    return rows, faults


def reasons(faults: list[Fault]) -> list[tuple[int | None, str]]:
    return [(fault.row, fault.reason) for fault in faults]


def written(rows: Iterable[Iterable[str]], **dialect: Any) -> bytes:
    stream = io.StringIO()
    csv.writer(stream, **{"lineterminator": "\n", **dialect}).writerows(rows)
    return stream.getvalue().encode()


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("delimited")


# --- laws ---------------------------------------------------------------------------------------

cell = st.text(st.sampled_from("ab,;|\t\n\"'\\ é漢\u2028\u0085\ufeffn"), max_size=6)
table = st.lists(st.tuples(cell, cell, cell), max_size=8)
UNQUOTED = {"quoting": csv.QUOTE_NONE, "quotechar": None}


@given(
    table=table,
    delimiter=st.sampled_from(",;|\t\x01"),
    quote=st.sampled_from("\"'"),
    escape=st.sampled_from(["none", "\\", "^"]),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL, csv.QUOTE_NONNUMERIC, csv.QUOTE_NONE]),
    end=st.sampled_from(["\n", "\r\n"]),
    chunk=st.sampled_from([1, 7, 1 << 20]),
)
@settings(deadline=None, max_examples=300)
def test_what_the_csv_module_writes_in_a_dialect_comes_back_equal(
    scratch: Path,
    table: Rows,
    delimiter: str,
    quote: str,
    escape: str,
    quoting: int,
    end: str,
    chunk: int,
) -> None:
    bare = quoting == csv.QUOTE_NONE
    if bare and escape == "none":
        escape = "^"  # nothing can be written without
    data = written(
        [("a", "b", "c"), *table],
        delimiter=delimiter,
        quotechar=None if bare else quote,
        quoting=quoting,
        escapechar=None if escape == "none" else escape,
        doublequote=escape == "none",
        lineterminator=end,
    )
    dialect = Dialect(delimiter, "none" if bare else quote, escape)
    file = input_file(scratch / "law.csv", data, dialect)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(delimited, "CHUNK_BYTES", max(chunk, data.find(b"\n") + 1))  # the header is in the first block
        rows, faults = read_all(file, "cba")
    assert faults == []
    assert rows == [row[::-1] for row in table]


@given(table=table, kind=st.sampled_from(["csv", "tsv"]), delimiter=st.sampled_from([None, ";", "|"]))
@settings(deadline=None, max_examples=200)
def test_quoted_tables_come_back_equal_when_nothing_is_said_of_them(
    scratch: Path, table: Rows, kind: str, delimiter: str | None
) -> None:
    default = {"csv": ",", "tsv": "\t"}[kind]
    data = written([("a", "b", "c"), *table], delimiter=delimiter or default, quoting=csv.QUOTE_ALL)
    rows, faults = read_all(input_file(scratch / f"told.{kind}", data), "abc")
    assert (rows, faults) == (table, [])


@given(table=table, end=st.sampled_from(["\n", "\r\n"]))
@settings(deadline=None, max_examples=200)
def test_csv_of_rfc_4180_comes_back_equal_when_nothing_is_said_of_it(scratch: Path, table: Rows, end: str) -> None:
    data = written([("a", "b", "c"), *table], lineterminator=end)
    rows, faults = read_all(input_file(scratch / "rfc.csv", data), "abc")
    assert (rows, faults) == (table, [])


@given(texts=st.lists(st.tuples(*[st.text(st.sampled_from("ab,\" é\r'\\"), max_size=6)] * 2), max_size=8))
@settings(deadline=None, max_examples=200)
def test_text_without_quoting_comes_back_as_it_is(scratch: Path, texts: Rows) -> None:
    data = "".join(f"{first}\t{second}\n" for first, second in [("a", "b"), *texts]).encode()
    file = input_file(scratch / "bare.tsv", data, Dialect(quote="none"))
    rows, faults = read_all(file, "ab")
    assert faults == []
    assert [[value.rstrip("\r") for value in row] for row in rows] == [
        [value.rstrip("\r") for value in row] for row in texts
    ]


piece = st.sampled_from(
    ['"', '""', ",", "\n", "\n", "\r\n", "\r", "\\", "x", ",\n", '"\n', '\n"', '",', ',"', "\ufeff"]
)
DIALECTS = [
    Dialect(delimiter, quote, escape, header=False)
    for delimiter, quote, escape in [
        (",", '"', "none"), (",", "none", "none"), (",", '"', "\\"), (",", "none", "\\"), ("auto", "auto", "auto"),
    ]
]  # fmt: skip


@given(
    pieces=st.lists(piece, max_size=40),
    dialect=st.sampled_from(DIALECTS),
    kind=st.sampled_from(["csv", "tsv"]),
    longest=st.sampled_from([12, 40, 1 << 20]),
    chunk=st.integers(1, 60),
)
@settings(deadline=None, max_examples=500)
def test_every_part_of_any_text_is_in_one_row_or_one_fault_however_it_is_read(
    scratch: Path, pieces: list[str], dialect: Dialect, kind: str, longest: int, chunk: int
) -> None:
    """Parts are numbered; the columns are those of the first record that has some."""
    marked = "".join(f"<{number}>{part}" for number, part in enumerate(pieces)).encode()
    file = input_file(scratch / f"any.{kind}", marked, dialect)
    try:
        names = layout_of(file, [], Limits()).names
    except Unreadable as exc:
        assert read_all(file, ["column_1"]) == ([], [Fault(None, "broken_csv", exc.message)] if pieces else [])
        return
    limits = Limits(row_bytes=longest)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "RAW_BYTES", 1 << 20)
        rows, faults = read_all(file, names, limits)
        patch.setattr(records.Records, "_in_order", lambda *_: None)
        assert read_all(file, names, limits) == (rows, faults)
        patch.undo()
        patch.setattr(records, "RAW_BYTES", 1 << 20)
        if dialect.quote != "auto":
            patch.setattr(delimited, "lay_out", _as_before(delimited.lay_out(marked, True, kind, dialect, [])))
            patch.setattr(delimited, "CHUNK_BYTES", chunk)
            again = read_all(file, names, limits)
            assert again[0] == rows
            assert reasons(again[1]) == reasons(faults)
    seen = [value for row in rows for value in row] + [fault.raw.decode() for fault in faults]
    for number in range(len(pieces)):
        assert Counter(f"<{number}>" in text for text in seen)[True] == 1, number


def _as_before(found: Any) -> Any:
    return lambda *_: found
