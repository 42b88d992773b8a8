"""The other formats: JSON arrays, text by line and by file, Markdown, Arrow; every compression; fields by path."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compass_ray.ingest.config import Limits
from compass_ray.ingest.files import InputFile, ReadUnit, read_units
from compass_ray.ingest.formats import COMPRESSIONS
from compass_ray.ingest.listing import list_source
from compass_ray.ingest.readers import MISSING, Fault, decoders, delimited, json_array, read, streams

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: pa.Codec("zstd").compress(data, asbytes=True),
    ".lz4": lambda data: pa.Codec("lz4").compress(data, asbytes=True),
}

Found = tuple[list[tuple[int, tuple[Any, ...]]], list[Fault]]


def read_all(
    path: Path,
    data: bytes,
    kind: str,
    *columns: str,
    range_bytes: int = 1 << 30,
    ceiling: int = 1 << 24,
    longest: int = 1 << 20,
) -> Found:
    path.write_bytes(data)
    file = InputFile(str(path), path.name, len(data), "v", kind, "c")
    rows: list[tuple[int, tuple[Any, ...]]] = []
    faults = []
    for unit in read_units({"s": [file]}, range_bytes):
        for batch in read(unit, list(columns), Limits(row_bytes=longest, file_bytes=ceiling)):
            rows += zip(batch.rows, zip(*(batch.values(name) for name in batch.columns), strict=True), strict=True)
            faults += batch.faults
    return rows, faults


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("formats")


# --- compression --------------------------------------------------------------------------------


def test_every_suffix_of_a_compression_is_read(tmp_path: Path) -> None:
    alike = {".gzip": ".gz", ".zstd": ".zst"}
    for suffix in COMPRESSIONS:
        data = COMPRESS[alike.get(suffix, suffix)](b"a\n")
        assert read_all(tmp_path / f"f.txt{suffix}", data, "lines", "text")[0] == [(0, ("a",))]


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "lines", "text", "markdown"])
def test_every_format_is_read_from_every_compression(tmp_path: Path, kind: str, suffix: str) -> None:
    content = {
        "jsonl": b'{"text": "a"}\n{"text": "b"}\n',
        "json": b'[{"text": "a"}, {"text": "b"}]',
        "csv": b"text\na\nb\n",
        "lines": b"a\nb\n",
        "text": b"a",
        "markdown": b"---\nx: 1\n---\na",
    }[kind]
    rows, faults = read_all(tmp_path / f"f.x{suffix}", COMPRESS[suffix](content), kind, "text")
    assert [values for _, values in rows] == ([("a",)] if kind in ("text", "markdown") else [("a",), ("b",)])
    assert faults == []


@pytest.mark.parametrize("suffix", [suffix for suffix in COMPRESS if suffix])
def test_parts_that_were_compressed_one_by_one_are_one_file(tmp_path: Path, suffix: str) -> None:
    data = COMPRESS[suffix](b"a\nb") + COMPRESS[suffix](b"c\nd\n")
    rows, faults = read_all(tmp_path / f"f.txt{suffix}", data, "lines", "text")
    assert [values for _, values in rows] == [("a",), ("bc",), ("d",)]
    assert faults == []


@pytest.mark.parametrize(
    ("suffix", "cut"),
    [(".zst", 1), (".zst", 5), (".zst", 12), (".lz4", 5), (".lz4", 12)],  # all of .lz4 is there without its last byte
)
def test_whole_frames_before_a_cut_are_kept(tmp_path: Path, suffix: str, cut: int) -> None:
    frames = [COMPRESS[suffix](f"row {number}\n".encode()) for number in range(500)]
    assert cut < len(frames[-1])
    for last in (499, 250, 0):
        rows, [fault] = read_all(tmp_path / f"a.txt{suffix}", b"".join(frames[: last + 1])[:-cut], "lines", "text")
        assert [values for _, values in rows] == [(f"row {number}",) for number in range(last)]
        assert (fault.row, fault.reason) == (None, "truncated_file")


@pytest.mark.parametrize("suffix", [".zst", ".lz4"])
def test_what_a_frame_holds_before_a_cut_or_damage_is_kept(tmp_path: Path, suffix: str) -> None:
    lines = [str(number * 7919 % 100_003).encode() for number in range(100_000)]
    data = COMPRESS[suffix](b"\n".join(lines))
    for broken, reason in ((data[:-9], "truncated_file"), (data + b"more than nothing", "corrupt_file")):
        rows, [fault] = read_all(tmp_path / f"a.txt{suffix}", broken, "lines", "text")
        assert [values[0].encode() for _, values in rows] == lines[: len(rows)]
        assert len(rows) > 0.6 * len(lines)
        assert fault.reason == reason


@pytest.mark.parametrize("size", [1, 7, 64, 64 << 10])
@pytest.mark.parametrize("padding", [0, 4, 8, 12, 400, 200_000])
def test_streams_of_xz_may_be_padded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, padding: int, size: int) -> None:
    monkeypatch.setattr(decoders, "_PIECE_BYTES", size if padding < 1000 else 64 << 10)
    data = lzma.compress(b"a\nb\n") + bytes(padding) + lzma.compress(b"c\n") + bytes(padding)
    rows, faults = read_all(tmp_path / "a.txt.xz", data, "lines", "text")
    assert [values for _, values in rows] == [("a",), ("b",), ("c",)]
    assert faults == []


@pytest.mark.parametrize(
    ("suffix", "behind", "message"),
    [
        (".xz", bytes(3), "not xz data: 3 zeros behind a stream; padding is a multiple of 4"),
        (".xz", bytes(5) + lzma.compress(b"b\n"), "not xz data: 5 zeros behind a stream; padding is a multiple of 4"),
        (".xz", bytes(4) + b"garbage behind", "not xz data: "),
        (".xz", lzma.compress(b"b\n")[:-8], "compressed data end too early: there is no end-of-stream marker"),
        (".bz2", b"garbage behind", "not bzip2 data: "),
        (".bz2", b"BZh9" + bytes(40), "not bzip2 data: "),
        (".bz2", bz2.compress(b"b\n")[:-3], "compressed data end too early: there is no end-of-stream marker"),
    ],
)
def test_what_is_behind_a_stream_and_cannot_be_read_is_said(
    tmp_path: Path, suffix: str, behind: bytes, message: str
) -> None:
    rows, [fault] = read_all(tmp_path / f"a.txt{suffix}", COMPRESS[suffix](b"a\n") + behind, "lines", "text")
    assert rows[0] == (0, ("a",))
    assert fault.row is None
    assert fault.message.startswith(message)


@pytest.mark.parametrize("kind", ["lines", "csv"])
@pytest.mark.parametrize("suffix", [suffix for suffix in COMPRESS if suffix])
def test_what_was_read_before_a_file_breaks_off_is_kept(tmp_path: Path, suffix: str, kind: str) -> None:
    import random

    noise = random.Random(0)  # noqa: S311
    lines = [noise.randbytes(40).hex().encode() for _ in range(30_000)]
    header = b"text\n" if kind == "csv" else b""
    data = COMPRESS[suffix](header + b"\n".join(lines) + b"\n")
    rows, [fault] = read_all(tmp_path / f"f.txt{suffix}", data[: len(data) // 2], kind, "text")
    assert [values[0].encode() for _, values in rows] == lines[: len(rows)]
    assert len(rows) > 0.2 * len(lines)
    assert (fault.row, fault.reason) == (None, "truncated_file")


@pytest.mark.parametrize("suffix", COMPRESS)
def test_a_long_row_of_csv_is_read_from_every_compression(tmp_path: Path, suffix: str) -> None:
    texts = ["x" * 3_000_000, "short", "y" * 5_000_000]
    data = COMPRESS[suffix]("\n".join(["text", *texts, ""]).encode())
    rows, faults = read_all(tmp_path / f"f.csv{suffix}", data, "csv", "text", longest=5_000_001)
    assert [values for _, values in rows] == [(text,) for text in texts]
    assert faults == []
    rows, faults = read_all(tmp_path / f"f.csv{suffix}", data, "csv", "text", longest=5_000_000)
    assert [values for _, values in rows] == [(text,) for text in texts[:2]]
    assert [(fault.row, fault.reason) for fault in faults] == [(2, "row_too_large")]


def test_the_ceiling_counts_decompressed_bytes(tmp_path: Path) -> None:
    data = gzip.compress(b"a\n" * (1 << 20))
    rows, [fault] = read_all(tmp_path / "f.txt.gz", data, "lines", "text", ceiling=1 << 20)
    assert 0 < len(rows) <= (1 << 20) / 2
    assert (fault.row, fault.reason) == (None, "too_large")
    assert fault.message == "decompresses to more than 1,048,576 bytes; raise ingest.max_file_bytes to read it"


# --- JSON arrays --------------------------------------------------------------------------------

value = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text('ab"\\[]{},:é\n', max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('a"[]\\', max_size=3), inner, max_size=3),
    max_leaves=6,
)


@given(
    objects=st.lists(st.fixed_dictionaries({"v": value}), max_size=8),
    indent=st.sampled_from([None, 1]),
    piece=st.integers(1, 40),
    ascii_only=st.booleans(),
)
@settings(deadline=None, max_examples=200)
def test_an_array_in_pieces_of_any_size_gives_the_objects_that_json_reads(
    scratch: Path, objects: list[dict[str, Any]], indent: int | None, piece: int, ascii_only: bool
) -> None:
    data = json.dumps(objects, indent=indent, ensure_ascii=ascii_only).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_array, "CHUNK_BYTES", piece)
        rows, faults = read_all(scratch / "a.json", data, "json", "v")
    assert [values for _, values in rows] == [(row["v"],) for row in objects]
    assert faults == []


def test_rows_of_an_array_are_the_bytes_where_elements_begin(tmp_path: Path) -> None:
    data = '[{"a": "é"},{"a": "b"}, 3]'.encode()
    rows, [fault] = read_all(tmp_path / "a.json", data, "json", "a")
    assert rows == [(1, ("é",)), (13, ("b",))]
    assert (fault.row, fault.reason) == (24, "not_an_object")


OBJECTS = [{"text": f"row {number}", "tags": ["a", "b"]} for number in range(300)]
ROWS_IN_DATA = "'data' holds a list of objects; if those are the rows, write the list to a .json file (jq '.\"data\"')"
OVER_LINES = [
    (
        {"version": 1, "data": OBJECTS},
        f"a JSON object over several lines; expected an object a line; its {ROWS_IN_DATA}",
    ),
    (OBJECTS[0], "a JSON object over several lines; expected an object a line: write it so (jq -c . FILE)"),
    (
        {"words": dict.fromkeys(map(str, range(20_000)), "w")},
        "a JSON object over several lines; expected an object a line: write it so (jq -c . FILE)",
    ),
]


@pytest.mark.parametrize(("value", "message"), OVER_LINES)
@pytest.mark.parametrize("bom", [b"", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.jsonl.gz", "a.json.zst"])
def test_an_object_over_several_lines_is_one_fault(
    tmp_path: Path, name: str, value: dict[str, Any], message: str, bom: bytes
) -> None:
    data = COMPRESS[Path(name).suffix if name.count(".") > 1 else ""](bom + json.dumps(value, indent=1).encode())
    for range_bytes in (1 << 30, 3000):
        rows, [fault] = read_all(tmp_path / name, data, name.split(".")[1], "text", range_bytes=range_bytes)
        assert (rows, fault.row, fault.reason, fault.message) == ([], None, "broken_json", message)
        assert fault.rows is None  # nobody can count them
        assert 0 < fault.lost_bytes <= len(data)


def test_objects_over_several_lines_one_after_another_are_one_fault(tmp_path: Path) -> None:
    data = b"\n".join(json.dumps(row, indent=2, ensure_ascii=False).encode() for row in OBJECTS)
    lost = Fault(None, "broken_json", OVER_LINES[1][1], rows=None, lost_bytes=len(data))
    assert read_all(tmp_path / "a.jsonl", data, "jsonl", "text") == ([], [lost])


@pytest.mark.parametrize("separator", [",\n", ",\n  "])
def test_an_array_over_several_lines_is_rows_as_json_and_one_fault_as_json_lines(
    tmp_path: Path, separator: str
) -> None:
    data = f"[{separator.join(json.dumps(row) for row in OBJECTS)}]".encode()
    message = "a JSON array over several lines; expected an object a line; read it as an array with format: json"
    for range_bytes in (1 << 30, 3000):
        rows, [fault] = read_all(tmp_path / "a.jsonl", data, "jsonl", "text", range_bytes=range_bytes)
        assert (rows, fault.row, fault.reason, fault.message) == ([], None, "broken_json", message)
    assert len(read_all(tmp_path / "a.json", data, "json", "text")[0]) == 300


def test_an_array_or_an_envelope_on_one_line_says_what_was_found(tmp_path: Path) -> None:
    data = json.dumps(OBJECTS).encode()
    rows, [fault] = read_all(tmp_path / "a.jsonl", data, "jsonl", "text")
    assert (rows, fault.row, fault.reason) == ([], 0, "not_an_object")
    assert fault.message == "expected a JSON object, found list; read an array of rows with format: json"
    for kind in ("json", "jsonl"):
        data = json.dumps({"version": 1, "data": OBJECTS}).encode()
        rows, [fault] = read_all(tmp_path / "a.json", data, kind, "text", "lang")
        assert (rows, fault.row, fault.reason) == ([], 0, "missing_column")
        assert fault.message == f"expected text, lang; found an object whose {ROWS_IN_DATA}"
        assert read_all(tmp_path / "a.json", data, kind, "data.0.text") == ([(0, ("row 0",))], [])


@pytest.mark.parametrize(
    "first",
    [b'{"text": "a', b'{"text": "a",', b'{"text":', b"{", b"[", b'{"text": "\xff', b"}", b'{"text": "a"} {"text": "b"'],
)
def test_a_first_line_that_is_cut_costs_no_other(tmp_path: Path, first: bytes) -> None:
    data = first + b'\n{"text": "b"}\n{"text": "c"}\n'
    rows, [fault] = read_all(tmp_path / "a.jsonl", data, "jsonl", "text")
    assert [values for _, values in rows] == [("b",), ("c",)]
    assert fault.row == 0


# --- text ---------------------------------------------------------------------------------------


def test_lines_of_text_are_documents_in_every_cut(tmp_path: Path) -> None:
    data = "one\n\n  \ntwo \u2028 two\r\nthree".encode()
    expected = [(0, ("one",)), (8, ("two \u2028 two\r",)), (21, ("three",))]
    for size in range(1, len(data) + 1):
        assert read_all(tmp_path / "a.txt", data, "lines", "text", range_bytes=size) == (expected, []), size


def test_a_line_that_is_not_text_costs_itself_alone(tmp_path: Path) -> None:
    rows, [fault] = read_all(tmp_path / "a.txt", b"a\n\xff\xfe\nb\n", "lines", "text")
    assert rows == [(0, ("a",)), (5, ("b",))]
    assert (fault.row, fault.reason, fault.raw) == (2, "undecodable_bytes", b"\xff\xfe")


def test_a_file_of_text_is_one_document(tmp_path: Path) -> None:
    assert read_all(tmp_path / "a.txt", b"\xef\xbb\xbfone\n\ntwo\n", "text", "text") == ([(0, ("one\n\ntwo\n",))], [])


def test_text_has_no_column_but_text(tmp_path: Path) -> None:
    for kind in ("lines", "text"):
        rows, [fault] = read_all(tmp_path / "a.txt", b"a\n", kind, "text", "lang")
        assert (rows, fault.reason, fault.message) == ([], "missing_column", "expected lang; the file has text")


def test_front_matter_is_columns_and_the_rest_is_text(tmp_path: Path) -> None:
    data = b"---\r\ntitle: Habari\nlang: sw\ntags: [a, b]\nmeta: {by: {name: X}}\n---\nBody\n---\nmore\n"
    rows, faults = read_all(tmp_path / "a.md", data, "markdown", "text", "title", "tags.1", "meta.by.name", "none")
    assert rows == [(0, ("Body\n---\nmore\n", "Habari", "b", "X", MISSING))]
    assert faults == []


def test_words_of_front_matter_are_text_though_older_yaml_reads_truth_values_and_numbers(tmp_path: Path) -> None:
    data = b"---\nlang: no\nat: 12:30\nzip: 01234\nversion: 1.10\nyear: 2024\nok: true\n---\nBody"
    rows, faults = read_all(tmp_path / "a.md", data, "markdown", "lang", "at", "zip", "version", "year", "ok")
    assert rows == [(0, ("no", "12:30", "01234", "1.10", 2024, True))]
    assert faults == []


def test_markdown_without_front_matter_is_text(tmp_path: Path) -> None:
    assert read_all(tmp_path / "a.md", b"# Title\n---\n", "markdown", "text") == ([(0, ("# Title\n---\n",))], [])


# --- Arrow --------------------------------------------------------------------------------------


def test_a_folder_of_hugging_face_datasets_is_read_from_disk(tmp_path: Path) -> None:
    import datasets

    from compass_ray.ingest.config import SourceConfig

    rows = [{"q": {"stem": f"s{number}"}, "lang": "en"} for number in range(10)]
    whole = datasets.DatasetDict({split: datasets.Dataset.from_list(rows) for split in ("train", "test")})
    whole.save_to_disk(str(tmp_path / "saved"), num_shards={"train": 2, "test": 1})
    source = SourceConfig(
        role="pool", path=str(tmp_path / "saved"), columns={"text": "q.stem", "lang": "lang"}, split="all"
    )
    files = list_source("s", source).files
    assert [file.uri for file in files] == [
        "test/data-00000-of-00001.arrow",
        "train/data-00000-of-00002.arrow",
        "train/data-00001-of-00002.arrow",
    ]
    found = [batch for file in files for batch in read(ReadUnit("s", file), source.wanted_columns)]
    assert [value for batch in found for value in batch.values("q.stem")] == [f"s{n}" for n in [*range(10)] * 2]
    assert [row for batch in found[1:] for row in batch.rows] == [*range(5)] * 2


@pytest.mark.parametrize("writer", [pa.ipc.new_stream, pa.ipc.new_file])
def test_both_arrow_formats_and_all_kinds_of_strings_are_read(tmp_path: Path, writer: Any) -> None:
    text = pa.array(["a", None, "c"], pa.large_string())
    table = pa.table({"text": text, "d": text.cast(pa.string()).dictionary_encode(), "v": text.cast(pa.string_view())})
    stream = io.BytesIO()
    with writer(stream, table.schema) as sink:
        sink.write_table(table)
    rows, faults = read_all(tmp_path / "a.arrow", stream.getvalue(), "arrow", "text", "d", "v")
    assert rows == [(number, (value,) * 3) for number, value in enumerate(["a", None, "c"])]
    assert faults == []


def test_bytes_that_are_not_text_in_a_typed_format_cost_their_row(tmp_path: Path) -> None:
    raw = pa.array([b"a", b"\xff", b"c"])
    text = pa.Array.from_buffers(pa.string(), 3, raw.buffers())
    nested = pa.StructArray.from_arrays([pa.Array.from_buffers(pa.string(), 3, raw.buffers())], ["x"])
    for column, path in ((text, "t"), (nested, "t.x")):
        stream = io.BytesIO()
        pq.write_table(pa.table({"t": column}), stream)
        rows, [fault] = read_all(tmp_path / "a.parquet", stream.getvalue(), "parquet", path)
        assert rows == [(0, ("a",)), (2, ("c",))]
        assert (fault.row, fault.reason) == (1, "undecodable_bytes")


# --- fields -------------------------------------------------------------------------------------

NESTED = [
    {"q": {"stem": "s0", "choices": [{"text": "a"}, {"text": "b"}]}, "x.y": "dots"},
    {"q": {"stem": None, "choices": [{"text": "c"}]}, "x.y": "more"},
]
PATHS = ["q.stem", "q.choices.1.text", "x.y"]


def test_paths_lead_through_objects_and_lists_in_json(tmp_path: Path) -> None:
    data = b"\n".join(json.dumps(row).encode() for row in NESTED)
    rows, _ = read_all(tmp_path / "a.jsonl", data, "jsonl", *PATHS)
    assert [values for _, values in rows] == [("s0", "b", "dots"), (None, MISSING, "more")]


def test_paths_lead_through_structs_and_lists_in_parquet(tmp_path: Path) -> None:
    stream = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(NESTED), stream)
    rows, faults = read_all(tmp_path / "a.parquet", stream.getvalue(), "parquet", *PATHS)
    assert [values for _, values in rows] == [("s0", "b", "dots"), (None, MISSING, "more")]
    assert faults == []
    _, [fault] = read_all(tmp_path / "a.parquet", stream.getvalue(), "parquet", "q.stm")
    assert (fault.reason, fault.message) == ("missing_column", "expected q.stm; the file has q, x.y")


# --- lengths ------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", [64, 1 << 10, 4 << 20])
def test_whether_a_line_is_too_long_does_not_depend_on_how_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(streams, "CHUNK_BYTES", chunk)
    path = tmp_path / "a.txt"
    path.write_bytes(b"a\n" + b"x" * 1000 + b"\n" + b"y" * 1001 + b"\nz\n")
    unit = ReadUnit("s", InputFile(str(path), "a.txt", 2006, "v", "lines", "c"))
    batches = list(read(unit, ["text"], Limits(row_bytes=1000)))
    assert [len(text) for batch in batches if batch.rows for text in batch.values("text")] == [1, 1000, 1]
    [fault] = [fault for batch in batches for fault in batch.faults]
    assert (fault.row, fault.reason, fault.raw) == (1003, "row_too_large", b"y" * len(fault.raw))


def test_a_header_of_any_width_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delimited, "CHUNK_BYTES", 1 << 20)
    names = [f"column {number}" for number in range(5000)]
    data = "\n".join([",".join(names), ",".join(["v"] * 5000)]).encode()
    assert read_all(tmp_path / "a.csv", data, "csv", names[-1]) == ([(0, ("v",))], [])
