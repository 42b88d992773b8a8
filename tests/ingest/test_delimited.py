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


def whole(file: InputFile, reason: str, message: str) -> Fault:
    """The fault of a file of which nothing can be read."""
    return Fault(None, reason, message, rows=None, lost_bytes=file.size)


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
        assert read_all(file, ["column_1"]) == ([], [whole(file, "broken_csv", exc.message)] if pieces else [])
        return
    limits = Limits(row_bytes=longest)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(records, "RAW_BYTES", 1 << 20)
        rows, faults = read_all(file, names, limits)
        patch.setattr(records, "end_in_order", lambda *_: None)
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


# --- what is told from a file -------------------------------------------------------------------

COMMA, TAB = 'delimiter comma, quote ", header, 2 columns', "delimiter tab, quote none, header, 2 columns"
PROSE = [(f"Question {number}, is it so?", str(number)) for number in range(120)]
QUOTES = {
    5: '"Odd, is it?',
    32: 'He said "no" twice',
    60: '"Again',
    77: 'and again"',
    90: '"To be" is a verb',
    99: '"Yes"',
}
ODD = [(QUOTES.get(number, text), answer) for number, (text, answer) in enumerate(PROSE)]


def bare(rows: Iterable[Iterable[str]], delimiter: str = "\t", end: str = "\n") -> bytes:
    return "".join(delimiter.join(row) + end for row in rows).encode()


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("header", [True, False])
def test_quotes_in_a_tsv_that_quotes_nothing_are_text_and_every_row_is_there(
    tmp_path: Path, header: bool, end: str
) -> None:
    data = bare([("question", "answer")] * header + ODD, end=end)
    file = input_file(tmp_path / "a.tsv", data, Dialect(header=header))
    names = ["question", "answer"] if header else ["column_1", "column_2"]
    assert read_all(file, names) == (ODD, [])
    said = f"delimiter tab, quote none, {'header' if header else 'no header'}, 2 columns"
    assert str(layout_of(file, names, Limits())) == said


@pytest.mark.parametrize(
    ("data", "rows"),
    [
        pytest.param(written([("t", "n"), ('He said "x"', "1")], delimiter="\t"), [('He said "x"', "1")], id="pandas"),
        pytest.param(b't\tn\n"a\tb"\t1\nc\t2\n', [("a\tb", "1"), ("c", "2")], id="a tab"),
        pytest.param(b't\tn\n"a\nb"\t1\nc\t2\n', [("a\nb", "1"), ("c", "2")], id="a line end"),
        pytest.param(b't\tn\n"a"\t1\n"b"\t2\n\t3\n', [("a", "1"), ("b", "2"), ("", "3")], id="all of a column"),
        pytest.param(b't\tn\n"a, b"\t1\nc\t2\n', [("a, b", "1"), ("c", "2")], id="Excel"),
        pytest.param(b'"t"\t"n"\n"a"\t1\nb\t2\n', [("a", "1"), ("b", "2")], id="the header"),
        pytest.param(b't\tn\n"a"\t1\nb\t2\n', [('"a"', "1"), ("b", "2")], id="one word of several"),
        pytest.param(b't\tn\n"a, b"\t1\nc, d\t2\n', [('"a, b"', "1"), ("c, d", "2")], id="not all with a comma"),
        pytest.param(b't\tn\n"a" b\t1\n"c"\t2\n', [('"a" b', "1"), ('"c"', "2")], id="part of a field"),
    ],
)
def test_a_tsv_is_quoted_if_something_in_it_speaks_for_that(tmp_path: Path, data: bytes, rows: Rows) -> None:
    assert read_all(input_file(tmp_path / "a.tsv", data), ["t", "n"]) == (rows, [])


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_the_delimiter_is_the_one_under_which_the_header_has_the_columns(
    tmp_path: Path, kind: str, delimiter: str
) -> None:
    rows = [("one, two; three | four", "en"), ("five", "de")]
    file = input_file(tmp_path / f"a.{kind}", written([("text", "lang"), *rows], delimiter=delimiter))
    assert read_all(file, ["text", "lang"]) == (rows, [])
    assert layout_of(file, ["text"], Limits()).grammar.delimiter == delimiter.encode()


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_without_a_header_the_delimiter_is_the_one_that_makes_rows_alike(tmp_path: Path, delimiter: str) -> None:
    rows = [(f"{'so, ' * (number % 3)}text", str(number)) for number in range(20)]
    file = input_file(tmp_path / "a.csv", written(rows, delimiter=delimiter), UNNAMED)
    assert read_all(file, ["column_1", "column_2"]) == (rows, [])


def test_the_columns_without_a_header_are_those_of_most_rows(tmp_path: Path) -> None:
    file = input_file(tmp_path / "a.tsv", b"title\n" + bare(PROSE), UNNAMED)
    rows, faults = read_all(file, ["column_2", "column_1"])
    assert rows == [(answer, text) for text, answer in PROSE]
    assert faults == [Fault(0, "wrong_column_count", "expected 2 columns, found 1", b"title")]
    assert read_all(file, ["column_3"])[1] == [
        whole(file, "missing_column", "expected column_3; the file has column_1, column_2")
    ]


@pytest.mark.parametrize("kind", ["csv", "tsv"])
def test_a_file_without_header_and_rows_has_no_fault(tmp_path: Path, kind: str) -> None:
    for data in (b"", b"\n\r\n", b"\xef\xbb\xbf"):
        assert read_all(input_file(tmp_path / f"a.{kind}", data, UNNAMED), ["column_1"]) == ([], [])


def test_a_backslash_is_an_escape_where_quoting_makes_no_sense_without(tmp_path: Path) -> None:
    spark = input_file(tmp_path / "a.csv", b't,n\n"He said \\"x\\", so",1\n"C:\\new",2\n')
    assert read_all(spark, ["t", "n"]) == ([('He said "x", so', "1"), ("C:\\new", "2")], [])
    assert str(layout_of(spark, ["t"], Limits())) == 'delimiter comma, quote ", escape \\, header, 2 columns'
    plain = input_file(tmp_path / "b.csv", b't,n\n"C:\\",1\n"D:\\",2\n')
    assert read_all(plain, ["t", "n"]) == ([("C:\\", "1"), ("D:\\", "2")], [])


def test_a_backslash_where_nothing_is_quoted_reads_what_databases_write(tmp_path: Path) -> None:
    data = b"1\ta\\tb\\nc\\\\d\\x\n2\t\\N\n3\te\\\nf\n"
    file = input_file(tmp_path / "a.tsv", data, Dialect(quote="none", escape="\\", header=False))
    rows = [("1", "a\tb\nc\\d\\x"), ("2", ""), ("3", "e\nf")]
    assert read_all(file, ["column_1", "column_2"]) == (rows, [])


@pytest.mark.parametrize(
    ("data", "rows"),
    [
        pytest.param(b'text,lang\ra,en\r"b\nc",de\r', [("a", "en"), ("b\nc", "de")], id="CR alone"),
        pytest.param(b"text,lang\na\rb,en\n", [("a\rb", "en")], id="CR in text"),
        pytest.param(b"text,lang\r\na,en\r\n\r\nb,de", [("a", "en"), ("b", "de")], id="CRLF, and no last line end"),
        pytest.param(b"\n\ntext,lang\n\na,en\n\n\n", [("a", "en")], id="blank lines"),
        pytest.param(b'\xef\xbb\xbf"text",lang\n\xef\xbb\xbfa,en\n', [("\ufeffa", "en")], id="byte order marks"),
        pytest.param(b'text,lang\n"",""\n,\n', [("", ""), ("", "")], id="empty fields"),
        pytest.param(b'text,lang\n"a""b",en\n"""",en\n', [('a"b', "en"), ('"', "en")], id="doubled quotes"),
        pytest.param(b'text,lang\na "b" c,en"\n', [('a "b" c', 'en"')], id="quotes inside"),
        pytest.param(b'text,lang\n"a"\r\n,b', [], id="too few and too many"),
    ],
)
def test_line_ends_and_quotes_of_csv_come_out_right(tmp_path: Path, data: bytes, rows: Rows) -> None:
    found, faults = read_all(input_file(tmp_path / "a.csv", data), ["text", "lang"])
    if rows:
        assert (found, faults) == (rows, [])
    else:
        assert (found, reasons(faults)) == ([("", "b")], [(0, "wrong_column_count")])


# --- faults -------------------------------------------------------------------------------------

TEXT = "where quotes are text, say quote: none"
CLOSED = "column 1: expected a delimiter or a line end after its closing quote, found"
BROKEN = [
    pytest.param(b'"Hello" she said,en\na,en\n', 1, [f"{CLOSED} ' she said,en'; {TEXT}"], id="text behind"),
    pytest.param(b'"b,en\na,en\nc,en\n', 2, [f"column 1: its quote never closes; {TEXT}"], id="never closes"),
    pytest.param(b'"b\na,en\nc,en\n', 2, [f"column 1: its quote never closes; {TEXT}"], id="never closes, no row"),
    pytest.param(
        b'"He said "hi"\nand, then\nleft",en\na,en\n',
        1,
        [f"{CLOSED} 'hi\"', and 3 lines are lost with it; {TEXT}"],
        id="a text of several lines",
    ),
    pytest.param(b'"open\na,en\n"x, y",de\n', 2, [f"{CLOSED} 'x, y\",de'; {TEXT}"], id="the next quote opens a field"),
    pytest.param(
        b'"I came,en\nI saw,en\nI won",en,x\na,en\n',
        2,
        [
            f"a quote makes one row of 3 lines, the first of which has as many columns as a row; {TEXT}",
            "expected 2 columns, found 3",
        ],
        id="a quote that closes rows later",
    ),
    pytest.param(
        b'"I\ncame",en,x\na,en\n',
        1,
        ["expected 2 columns, found 3, and 2 lines are lost with it"],
        id="too many columns",
    ),
]


@pytest.mark.parametrize(("body", "rows", "messages"), BROKEN)
@pytest.mark.parametrize("chunk", [32, 1 << 20])
def test_a_broken_row_costs_no_other_and_says_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: bytes, rows: int, messages: list[str], chunk: int
) -> None:
    monkeypatch.setattr(delimited, "CHUNK_BYTES", chunk)
    data = b"text,lang\nfirst,en\n" + body
    found, faults = read_all(input_file(tmp_path / "a.csv", data, Dialect(quote='"')), ["text", "lang"])
    assert [fault.message for fault in faults] == messages
    assert len(found) == 1 + rows


@pytest.mark.parametrize("rows", [0, 10, 100_000, 700_000])
def test_a_quote_that_never_closes_is_one_fault_however_much_follows(tmp_path: Path, rows: int) -> None:
    file = input_file(tmp_path / "a.csv", b'text,n\na,1\n"b,2\n' + b"c,345678\n" * rows)
    found, faults = read_all(file, ["text"])
    assert len(found) == 1 + rows
    assert reasons(faults) == [(1, "broken_csv")]


def test_a_quote_that_never_closes_is_looked_for_no_further_than_a_row_may_reach(tmp_path: Path) -> None:
    data = b"text,n\na,1\n" + b"x" * 100 + b',2\n"q,3\n' + b"y,4\n" * 50 + b'",5\nb,6\n'
    rows, faults = read_all(input_file(tmp_path / "a.csv", data), ["text", "n"], Limits(row_bytes=60))
    assert rows == [("a", "1"), *[("y", "4")] * 50, ("b", "6")]
    assert [(fault.row, fault.reason, fault.message) for fault in faults] == [
        (1, "row_too_large", "the line is longer than 60 bytes; raise ingest.max_row_bytes to read it"),
        (2, "broken_csv", f"a quote does not close within 60 bytes (ingest.max_row_bytes); {TEXT}"),
        (53, "broken_csv", f"column 1: its quote never closes; {TEXT}"),
    ]


def test_rows_that_a_pair_of_quotes_would_swallow_are_read_where_nothing_else_is_quoted(tmp_path: Path) -> None:
    rows = [(text.replace(",", ""), answer) for text, answer in PROSE]
    rows[20], rows[47] = ('"Odd', "20"), ('odd"', "47")
    found, [fault] = read_all(input_file(tmp_path / "a.csv", bare([("q", "a"), *rows], ",")), ["q", "a"])
    assert found == rows[:20] + rows[21:]
    message = f"a quote makes one row of 28 lines, the first of which has as many columns as a row; {TEXT}"
    assert fault == Fault(20, "broken_csv", message, b'"Odd,20')
    quoted = input_file(tmp_path / "b.csv", bare([("q", "a"), *rows], ","), Dialect(quote='"'))
    assert len(read_all(quoted, ["q", "a"])[0]) == 120 - 27  # as the source says


def test_a_field_that_speaks_against_what_was_told_from_the_beginning_is_a_fault(tmp_path: Path) -> None:
    plain = b"plain " * 50 + b"\t1\n"
    late = b"t\tn\n" + plain * 15_000 + b'"He said ""x"""\t2\n' + plain  # beyond what the dialect is told from
    rows, [fault] = read_all(input_file(tmp_path / "a.tsv", late), ["t", "n"])
    assert len(rows) == 15_001
    assert (fault.row, fault.reason) == (15_000, "broken_csv")
    assert fault.message == (
        'column 1 reads as a quoted field, with "" for a quote inside, where quotes are taken for text; '
        "say quote: '\"' or quote: none"
    )
    for quote, text in (("none", '"He said ""x"""'), ('"', 'He said "x"')):
        rows, faults = read_all(input_file(tmp_path / "a.tsv", late, Dialect(quote=quote)), ["t", "n"])
        assert (rows[15_000], faults) == ((text, "2"), [])


def test_the_first_quotes_of_a_file_tell_its_dialect_wherever_they_are(tmp_path: Path) -> None:
    rows = [("plain", "1")] * 60_000 + [('He said "x"', "2"), ("plain", "3")]
    assert read_all(input_file(tmp_path / "a.tsv", written([("t", "n"), *rows], delimiter="\t")), "tn") == (rows, [])
    rows[60_000] = ('"He" said', "2")
    assert read_all(input_file(tmp_path / "a.tsv", bare([("t", "n"), *rows])), "tn") == (rows, [])


def test_a_file_with_a_header_has_no_columns_by_position(tmp_path: Path) -> None:
    message = "expected column_2; the file has Is it so?, 1; say header: none if its first line is a row"
    file = input_file(tmp_path / "a.tsv", b"Is it so?\t1\nIs it?\t2\n")
    assert read_all(file, ["column_2"]) == ([], [whole(file, "missing_column", message)])


def test_a_broken_header_is_a_fault_of_the_file(tmp_path: Path) -> None:
    file = input_file(tmp_path / "a.csv", b'"text,n\na,1\n')
    message = f"the header is broken: a quote never closes or has text behind it; {TEXT}"
    assert read_all(file, ["text"]) == ([], [whole(file, "broken_csv", message)])


def test_a_row_with_bad_bytes_and_a_wrong_column_count_costs_itself_alone(tmp_path: Path) -> None:
    rows, faults = read_all(input_file(tmp_path / "a.csv", b"text,n\na,1\n\xff\n\xfe,2,3\nb,4\n"), ["text"])
    assert rows == [("a",), ("b",)]
    assert [(fault.row, fault.reason, fault.raw) for fault in faults] == [
        (1, "wrong_column_count", b"\xff"),
        (2, "wrong_column_count", b"\xfe,2,3"),
    ]
