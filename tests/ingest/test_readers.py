"""Readers: every row once, whatever the cut; a fault costs its row (or what is unreadable), never the run."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
import zlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from compass_ray.ingest.files import InputFile, ReadUnit, read_units
from compass_ray.ingest.readers import MISSING, Fault, RawBatch, delimited, jsonl, read, streams
from compass_ray.ingest.readers import parquet as parquet_reader

Rows = list[tuple[int, tuple[Any, ...]]]


def input_file(path: Path, data: bytes, kind: str = "jsonl") -> InputFile:
    path.write_bytes(data)
    return InputFile(str(path), path.name, len(data), "v", kind, "c")


def rows_of(batches: list[RawBatch]) -> Rows:
    return [
        (row, values)
        for batch in batches
        for row, values in zip(
            batch.rows, zip(*(batch.values(name) for name in batch.columns), strict=True), strict=True
        )
    ]


def faults_of(batches: list[RawBatch]) -> list[Fault]:
    return [fault for batch in batches for fault in batch.faults]


def read_all(file: InputFile, *columns: str) -> tuple[Rows, list[Fault]]:
    batches = list(read(ReadUnit("s", file), list(columns)))
    return rows_of(batches), faults_of(batches)


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("readers")


# --- JSON lines ---------------------------------------------------------------------------------

odd_text = st.text(st.sampled_from("ab é漢\u2028\u2029\u0085\x0b\x0c\\\"'"), max_size=8)
line = st.one_of(
    odd_text.map(lambda text: json.dumps({"text": text}, ensure_ascii=False).encode()),
    st.sampled_from([b"", b"  ", b"{broken", b"[1]", b'{"text":"\xff"}', b'{"other":1}', b"3"]),
)


@given(
    lines=st.lists(line, max_size=8),
    end=st.sampled_from([b"\n", b"\r\n"]),
    closed=st.booleans(),
    bom=st.booleans(),
    range_bytes=st.integers(1, 60),
)
@example(lines=[b'{"text":"a"}'] * 3, end=b"\n", closed=True, bom=False, range_bytes=13)
@settings(deadline=None, max_examples=150)
def test_byte_ranges_of_any_size_give_the_rows_of_one_read_once_each(
    scratch: Path, lines: list[bytes], end: bytes, closed: bool, bom: bool, range_bytes: int
) -> None:
    data = b"\xef\xbb\xbf" * bom + end.join(lines) + end * closed
    file = input_file(scratch / "ranges.jsonl", data)
    units = read_units({"s": [file]}, range_bytes)
    batches = [batch for unit in units for batch in read(unit, ["text"])]
    assert (rows_of(batches), faults_of(batches)) == read_all(file, "text")


def test_every_cut_of_a_file_with_long_and_short_lines_gives_every_row_once(tmp_path: Path) -> None:
    texts = ["", "x" * 70, "\u2028", "漢字" * 9, "b"]
    data = b"".join(json.dumps({"text": text}, ensure_ascii=False).encode() + b"\n" for text in texts)
    file = input_file(tmp_path / "a.jsonl", data)
    for size in range(1, len(data) + 2):
        found = [row for unit in read_units({"s": [file]}, size) for row in rows_of(list(read(unit, ["text"])))]
        assert [values for _, values in found] == [(text,) for text in texts], size


def test_rows_are_byte_offsets_at_which_the_line_starts(tmp_path: Path) -> None:
    data = '{"text":"é"}\n\n{"text":"b"}\r\n{"text":"c"}'.encode()
    rows, _ = read_all(input_file(tmp_path / "a.jsonl", data), "text")
    assert [(json.loads(data[row:].split(b"\n")[0])["text"],) for row, _ in rows] == [values for _, values in rows]
    assert len(rows) == 3


def test_line_separators_inside_json_strings_survive(tmp_path: Path) -> None:
    text = "one\u2028two\u2029three\u0085four\x1cfive\x0bsix"
    data = json.dumps({"text": text}, ensure_ascii=False).replace("\\u001c", "\\u001c").encode() + b"\n"
    assert read_all(input_file(tmp_path / "a.jsonl", data), "text") == ([(0, (text,))], [])


def test_a_byte_order_mark_at_the_start_of_json_lines_is_not_content(tmp_path: Path) -> None:
    file = input_file(tmp_path / "a.jsonl", b'\xef\xbb\xbf{"text":"a"}\n{"text":"b"}\n')
    assert read_all(file, "text") == ([(0, ("a",)), (16, ("b",))], [])


def test_json_null_and_a_missing_field_are_told_apart(tmp_path: Path) -> None:
    rows, faults = read_all(input_file(tmp_path / "a.jsonl", b'{"text":null}\n{"t":1}\n'), "text")
    assert [values for _, values in rows] == [(None,), (MISSING,)]
    assert faults == []


@pytest.mark.parametrize(
    ("bad", "reason", "message"),
    [
        (b'{"text":"a"', "broken_json", "unexpected end of data"),
        (b"nope", "broken_json", "invalid literal"),
        (b'{"text":"\xff"}', "undecodable_bytes", "can't decode byte 0xff in position 9"),
        (b'{"text":"\\ud800"}', "lone_surrogate", "no low surrogate"),
        (b'["a"]', "not_an_object", "expected a JSON object, found list"),
        (b'"a"', "not_an_object", "expected a JSON object, found str"),
    ],
)
def test_a_broken_line_costs_itself_alone_and_keeps_its_bytes(
    tmp_path: Path, bad: bytes, reason: str, message: str
) -> None:
    data = b'{"text":"a"}\n' + bad + b'\n{"text":"z"}\n'
    rows, [fault] = read_all(input_file(tmp_path / "a.jsonl", data), "text")
    assert [values for _, values in rows] == [("a",), ("z",)]
    assert (fault.row, fault.reason, fault.raw.strip()) == (13, reason, bad)
    assert message in fault.message


def test_an_empty_file_has_no_rows_and_no_faults(tmp_path: Path) -> None:
    assert read_all(input_file(tmp_path / "a.jsonl", b""), "text") == ([], [])


def test_batches_of_rows_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "BATCH_ROWS", 10)
    file = input_file(tmp_path / "a.jsonl", b'{"text":"a"}\n' * 95)
    sizes = [len(batch.rows) for batch in read(ReadUnit("s", file), ["text"])]
    assert max(sizes) == 10
    assert sum(sizes) == 95


def test_batches_of_broken_lines_are_bounded_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jsonl, "BATCH_ROWS", 10)
    file = input_file(tmp_path / "a.jsonl", b"broken\n" * 95)
    sizes = [len(batch.faults) + len(batch.rows) for batch in read(ReadUnit("s", file), ["text"])]
    assert sum(sizes) == 95
    assert max(sizes) <= 10


def test_rows_do_not_depend_on_how_much_is_read_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"".join(json.dumps({"text": "x" * (i % 40)}).encode() + b"\n" for i in range(200))
    file = input_file(tmp_path / "a.jsonl", data)
    whole = read_all(file, "text")
    monkeypatch.setattr(streams, "CHUNK_BYTES", 50)
    assert read_all(file, "text") == whole
    assert len(whole[0]) == 200


# --- gzip ---------------------------------------------------------------------------------------


def noisy_lines(n: int) -> list[bytes]:
    noise = random.Random(0)  # noqa: S311
    return [json.dumps({"text": f"{i} {noise.randbytes(30).hex()}"}).encode() + b"\n" for i in range(n)]


def test_gzip_gives_the_rows_of_the_plain_file(tmp_path: Path) -> None:
    data = b"".join(noisy_lines(300))
    plain = read_all(input_file(tmp_path / "a.jsonl", data), "text")
    assert read_all(input_file(tmp_path / "a.jsonl.gz", gzip.compress(data)), "text") == plain
    assert len(plain[0]) == 300


def test_gzip_members_one_after_another_are_one_file(tmp_path: Path) -> None:
    lines = noisy_lines(4)
    data = gzip.compress(b"".join(lines[:2])) + gzip.compress(b"".join(lines[2:]))
    rows, faults = read_all(input_file(tmp_path / "a.jsonl.gz", data), "text")
    assert [values for _, values in rows] == [(json.loads(line)["text"],) for line in lines]
    assert faults == []


@pytest.mark.parametrize("fraction", [0.3, 0.7, 0.999])
def test_truncated_gzip_keeps_the_rows_before_the_end_and_says_so(tmp_path: Path, fraction: float) -> None:
    data = gzip.compress(b"".join(noisy_lines(3000)))
    cut = data[: int(len(data) * fraction)]
    readable = zlib.decompressobj(wbits=31).decompress(cut)
    whole_lines = readable.split(b"\n")[:-1]
    rows, faults = read_all(input_file(tmp_path / "a.jsonl.gz", cut), "text")
    assert [(fault.row, fault.reason) for fault in faults if fault.row is None] == [(None, "truncated_file")]
    assert "compressed data end too early" in faults[-1].message
    found = [values for _, values in rows]
    expected = [(json.loads(line)["text"],) for line in whole_lines]
    assert found == expected
    assert expected


def test_truncated_gzip_loses_nothing_of_the_chunks_before_the_damaged_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "CHUNK_BYTES", 1 << 10)
    data = gzip.compress(b"".join(noisy_lines(3000)))
    rows, [fault] = read_all(input_file(tmp_path / "a.jsonl.gz", data[: len(data) // 2]), "text")
    assert [values[0].split()[0] for _, values in rows] == [str(i) for i in range(len(rows))]
    assert len(rows) > 1000
    assert fault.reason == "truncated_file"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"this is no gzip", "Not a gzipped file"),
        (lambda data: data[:-8] + b"\0\0\0\0" + data[-4:], "CRC check failed"),
        (lambda data: data[:200] + b"\xff" * 400 + data[600:], "not gzip data"),
    ],
)
@pytest.mark.parametrize("kind", ["jsonl", "csv", "tsv"])
def test_corrupt_gzip_is_one_fault_of_the_whole_file(tmp_path: Path, kind: str, damage: Any, message: str) -> None:
    body = b"text\n" + b"".join(noisy_lines(200)) if kind != "jsonl" else b"".join(noisy_lines(200))
    file = input_file(tmp_path / f"a.{kind}.gz", damage(gzip.compress(body)), kind)
    _, faults = read_all(file, "text")
    whole = [fault for fault in faults if fault.row is None]
    assert [fault.reason for fault in whole] == ["corrupt_file"]
    assert message in whole[0].message


def test_truncated_gzip_of_csv_is_reported(tmp_path: Path) -> None:
    data = gzip.compress(b"text\n" + b"".join(f"{i},\n".encode() for i in range(5000)))
    _, faults = read_all(input_file(tmp_path / "a.csv.gz", data[:-20], "csv"), "text")
    assert faults[-1].reason == "truncated_file"


# --- CSV and TSV --------------------------------------------------------------------------------

cell = st.text(st.sampled_from('ab,"\t\n é漢\u2028\u0085'), max_size=6)


@given(
    table=st.lists(st.tuples(cell, cell, cell), max_size=12),
    kind=st.sampled_from(["csv", "tsv"]),
    packed=st.booleans(),
    bom=st.booleans(),
)
@settings(deadline=None, max_examples=150)
def test_quoted_tables_come_back_as_the_csv_module_wrote_them(
    scratch: Path, table: list[tuple[str, ...]], kind: str, packed: bool, bom: bool
) -> None:
    stream = io.StringIO()
    writer = csv.writer(stream, delimiter="\t" if kind == "tsv" else ",", quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerows([("a", "b c", "é"), *table])
    data = b"\xef\xbb\xbf" * bom + stream.getvalue().encode()
    name = f"table.{kind}.gz" if packed else f"table.{kind}"
    file = input_file(scratch / name, gzip.compress(data) if packed else data, kind)
    rows, faults = read_all(file, "é", "a")
    assert rows == [(index, (row[2], row[0])) for index, row in enumerate(table)]
    assert faults == []


def test_quoted_tsv_keeps_embedded_tabs_newlines_and_quotes(tmp_path: Path) -> None:
    data = b'text\tlang\r\n"a\tb\n""c"""\ten\r\nd "e"\tde\r\n'
    file = input_file(tmp_path / "a.tsv", data, "tsv")
    assert read_all(file, "text", "lang") == ([(0, ('a\tb\n"c"', "en")), (1, ('d "e"', "de"))], [])


def test_rows_with_a_wrong_column_count_cost_themselves_and_the_numbers_stay_right(tmp_path: Path) -> None:
    data = b'text,lang\na,en\nonly\n"b\n\nb",en\nx,en,more\nc,en\n'
    rows, faults = read_all(input_file(tmp_path / "a.csv", data, "csv"), "text")
    assert rows == [(0, ("a",)), (2, ("b\n\nb",)), (4, ("c",))]
    assert [(fault.row, fault.reason, fault.message, fault.raw) for fault in faults] == [
        (1, "wrong_column_count", "expected 2 columns, found 1", b"only"),
        (3, "wrong_column_count", "expected 2 columns, found 3", b"x,en,more"),
    ]


def test_bad_bytes_cost_one_row_and_the_numbers_stay_right(tmp_path: Path) -> None:
    data = b"text,lang\na,en\n\xff\xfe,en\nlatin-\xe9,en\nz,en\n"
    rows, faults = read_all(input_file(tmp_path / "a.csv", data, "csv"), "text", "lang")
    assert rows == [(0, ("a", "en")), (3, ("z", "en"))]
    assert [(fault.row, fault.reason, fault.raw) for fault in faults] == [
        (1, "undecodable_bytes", b"\xff\xfe\ten"),
        (2, "undecodable_bytes", b"latin-\xe9\ten"),
    ]
    assert "can't decode byte 0xff in position 0" in faults[0].message


def test_bad_bytes_in_a_column_that_is_not_read_cost_nothing(tmp_path: Path) -> None:
    file = input_file(tmp_path / "a.csv", b"text,note\na,\xff\n", "csv")
    assert read_all(file, "text") == ([(0, ("a",))], [])


def test_numbers_are_right_across_many_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "CHUNK_BYTES", 100)
    kinds = ["only", '"v{}\nv",en', "\xffbad,en", "v{},en"]
    lines = [kinds[i * 7 % 4].format(i) for i in range(120)]
    data = ("text,lang\n" + "\n".join(lines) + "\n").encode("latin-1")
    rows, faults = read_all(input_file(tmp_path / "a.csv", data, "csv"), "text")
    assert [row for row, _ in rows] == [i for i in range(120) if i * 7 % 4 in (1, 3)]
    assert [values[0].split("\n")[0] for _, values in rows] == [f"v{i}" for i in range(120) if i * 7 % 4 in (1, 3)]
    assert sorted((fault.row, fault.reason) for fault in faults) == [
        (i, "wrong_column_count" if i * 7 % 4 == 0 else "undecodable_bytes") for i in range(120) if i * 7 % 4 in (0, 2)
    ]


def test_numbers_and_nulls_of_a_csv_stay_the_text_they_are(tmp_path: Path) -> None:
    file = input_file(tmp_path / "a.csv", b'text,lang\n007,NA\n1e5,\ntrue,"null"\n2020-01-01,nan\n', "csv")
    values = [values for _, values in read_all(file, "text", "lang")[0]]
    assert values == [("007", "NA"), ("1e5", ""), ("true", "null"), ("2020-01-01", "nan")]


def test_a_csv_without_a_wanted_column_is_one_fault_that_names_what_is_there(tmp_path: Path) -> None:
    file = input_file(tmp_path / "a.csv", b"body,lang\na,en\n", "csv")
    assert read_all(file, "text", "label", "lang") == (
        [],
        [Fault(None, "missing_column", "expected text, label; the file has body, lang", rows=None, lost_bytes=15)],
    )


def test_a_header_with_a_line_break_inside_quotes_is_one_header(tmp_path: Path) -> None:
    file = input_file(tmp_path / "a.csv", b'"a\nnote",text\nx,y\n', "csv")
    assert read_all(file, "text") == ([(0, ("y",))], [])


def test_an_empty_csv_is_a_missing_column_and_a_bare_header_is_no_rows(tmp_path: Path) -> None:
    _, [fault] = read_all(input_file(tmp_path / "a.csv", b"", "csv"), "text")
    assert (fault.row, fault.reason) == (None, "missing_column")
    assert read_all(input_file(tmp_path / "b.csv", b"text,lang\n", "csv"), "text") == ([], [])


def test_a_csv_with_bare_carriage_returns_is_a_fault_or_rows_but_never_an_exception(tmp_path: Path) -> None:
    file = input_file(tmp_path / "a.csv", b"text,lang\ra,en\rb,en\r", "csv")
    rows, faults = read_all(file, "text")
    assert faults or [values for _, values in rows] == [("a",), ("b",)]


# --- Parquet ------------------------------------------------------------------------------------


def parquet(path: Path, columns: dict[str, Any], **options: Any) -> InputFile:
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream, **options)
    return input_file(path, stream.getvalue(), "parquet")


def test_parquet_rows_are_numbered_across_row_groups_and_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet_reader, "BATCH_ROWS", 7)
    file = parquet(tmp_path / "a.parquet", {"text": [f"t{i}" for i in range(100)], "n": range(100)}, row_group_size=30)
    batches = list(read(ReadUnit("s", file), ["n", "text"]))
    assert rows_of(batches) == [(i, (i, f"t{i}")) for i in range(100)]
    assert max(len(batch.rows) for batch in batches) == 7


def test_nested_messages_and_nulls_of_parquet_are_python_values(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "hé"}, {"role": "assistant", "content": None}]
    rows, faults = read_all(parquet(tmp_path / "a.parquet", {"messages": [turns, None]}), "messages")
    assert rows == [(0, (turns,)), (1, (None,))]
    assert faults == []


def test_parquet_without_a_wanted_column_is_one_fault_that_names_what_is_there(tmp_path: Path) -> None:
    file = parquet(tmp_path / "a.parquet", {"body": ["a"], "lang": ["en"]})
    expected = Fault(None, "missing_column", "expected text; the file has body, lang")
    assert read_all(file, "text", "lang") == ([], [expected])


@pytest.mark.parametrize(
    "data",
    [b"", b"PAR1", b"not parquet at all", b"PAR1" + b"\0" * 60 + b"PAR1"],
    ids=["empty", "magic", "text", "zeros"],
)
def test_what_is_not_parquet_is_one_fault_of_the_whole_file(tmp_path: Path, data: bytes) -> None:
    rows, [fault] = read_all(input_file(tmp_path / "a.parquet", data, "parquet"), "text")
    assert rows == []
    assert (fault.row, fault.reason) == (None, "corrupt_file")
    assert fault.message.startswith("not a Parquet file: ")


def test_a_damaged_row_group_costs_itself_and_not_its_neighbours(tmp_path: Path) -> None:
    values = [json.loads(line)["text"] for line in noisy_lines(300)]
    file = parquet(tmp_path / "a.parquet", {"text": values}, row_group_size=100, compression="zstd")
    column = pq.ParquetFile(file.url).metadata.row_group(1).column(0)
    data = bytearray(Path(file.url).read_bytes())
    start = column.dictionary_page_offset or column.data_page_offset
    data[start + 40 : start + 400] = b"\xff" * 360
    rows, [fault] = read_all(input_file(tmp_path / "b.parquet", bytes(data), "parquet"), "text")
    assert rows == [(i, (values[i],)) for i in [*range(100), *range(200, 300)]]
    assert (fault.row, fault.reason) == (100, "unreadable_row_group")
    assert fault.message.startswith("row group 1 of 3: ")
