"""Files as people really have them, and as an attacker would: rejects with reasons, bounded memory, a finished run."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import json
import lzma
import pickle
import re
import tracemalloc
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from compass_ray.ingest.config import IngestConfig, Limits, SourceConfig
from compass_ray.ingest.documents import FILTERS
from compass_ray.ingest.files import read_units
from compass_ray.ingest.listing import list_source
from compass_ray.ingest.stage import ingest, plan, read_unit, row_counts
from compass_ray.letters import HIDING
from compass_ray.runtime.config import RayConfig
from compass_ray.runtime.stage import session

SMALL = Limits(row_bytes=1 << 20, file_bytes=2 << 20)
GOOD = b'{"text": "a"}\n'
GOOD_Z = b'{"text": "z"}\n'


def zstd(data: bytes) -> bytes:
    return pa.Codec("zstd").compress(data, asbytes=True)


def parquet(table: pa.Table, **options: Any) -> bytes:
    stream = io.BytesIO()
    pq.write_table(table, stream, **options)
    return stream.getvalue()


def arrow_stream(table: pa.Table) -> bytes:
    stream = io.BytesIO()
    with pa.ipc.new_stream(stream, table.schema) as writer:
        writer.write_table(table)
    return stream.getvalue()


class Bomb:
    """Unpickling one is what must never happen."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return (_went_off, ("a pickle from a file was run",))


def _went_off(message: str) -> None:
    raise AssertionError(message)


def pickled(storage: pa.DataType = pa.large_binary()) -> pa.Table:  # noqa: B008
    """A column that claims to be Ray's pickled objects, beside one of text."""
    mark = {"ARROW:extension:name": "ray.data.arrow_pickled_object", "ARROW:extension:metadata": ""}
    schema = pa.schema([pa.field("text", pa.string()), pa.field("object", storage, metadata=mark)])
    return pa.table({"text": ["a", "b"], "object": [pickle.dumps(Bomb())] * 2}, schema=schema)


def tensors() -> pa.Table:
    """A column that claims to be Ray's tensors, with a pickle where their shape should stand."""
    mark = {b"ARROW:extension:name": b"ray.data.arrow_tensor", b"ARROW:extension:metadata": pickle.dumps(Bomb())}
    schema = pa.schema([pa.field("text", pa.string()), pa.field("t", pa.list_(pa.int64()), metadata=mark)])
    return pa.table({"text": ["a"], "t": [[1]]}, schema=schema)


def twice() -> pa.Table:
    return pa.table([pa.array(["a"]), pa.array(["b"])], names=["text", "text"])


def twice_inside() -> pa.Table:
    message = pa.StructArray.from_arrays(
        [pa.array(["user"]), pa.array(["user"]), pa.array(["Q"])], ["role", "role", "content"]
    )
    return pa.table({"m": pa.ListArray.from_arrays([0, 1], message)})


def far_future() -> pa.Table:
    """Two chats whose messages have times, one of which no Python datetime holds."""
    times = pa.array([0, 1 << 58], pa.timestamp("us"))
    message = pa.StructArray.from_arrays(
        [pa.array(["user"] * 2), pa.array(["Q"] * 2), times], ["role", "content", "at"]
    )
    return pa.table({"m": pa.ListArray.from_arrays([0, 1, 2], message)})


def wide(columns: int) -> bytes:
    header = [*(f"c{number}" for number in range(columns - 1)), "text"]
    return b"\n".join(",".join(line).encode() for line in (header, ["x"] * columns)) + b"\n"


LANG = {"columns": {"text": "text", "lang": "lang"}, "lang": None}
CHAT = {"columns": {"messages": "m"}}


@dataclass(frozen=True)
class Case:
    """A file, and what has to become of it."""

    name: str
    file: str
    data: bytes
    documents: int | None  # None where it depends on the decompressor
    given: dict[str, Any]  # of the source
    rejects: dict[str, int]


def case(
    name: str, file: str, data: bytes, documents: int | None, given: dict[str, Any] | None = None, **rejects: int
) -> Case:
    return Case(name, file, data, documents, given or {}, rejects)


HOSTILE = [
    case("line separator inside JSON", "a.jsonl", '{"text": "a\u2028b\u2029c\u0085d"}\n'.encode(), 1),
    case("byte order mark", "a.jsonl", b"\xef\xbb\xbf" + GOOD, 1),
    case("UTF-16", "a.jsonl", GOOD.decode().encode("utf-16"), 0, undecodable_bytes=1),
    case("UTF-16 without a mark", "a.jsonl", GOOD.decode().encode("utf-16-le"), 0, broken_json=2),
    case("UTF-16 CSV", "a.csv", "text\na\n".encode("utf-16"), 0, undecodable_bytes=1),
    case("UTF-32 Markdown", "a.md", codecs.BOM_UTF32_BE + "text".encode("utf-32-be"), 0, undecodable_bytes=1),
    case("Latin-1", "a.jsonl", GOOD + '{"text": "é"}\n'.encode("latin-1") + GOOD_Z, 2, undecodable_bytes=1),
    case("NUL bytes between rows", "a.jsonl", GOOD + b"\0\0\0\n" + GOOD_Z, 2, broken_json=1),
    case("NUL escapes in text", "a.jsonl", b'{"text": "a\\u0000b"}\n{"text": "\\u0000"}\n', 1, empty=1),
    case("NUL bytes in CSV", "a.csv", b"text\na\0b\n", 1),
    case("nothing but NUL", "a.jsonl", b"\0" * 5000, 0, broken_json=1),
    case(
        "a long single line", "a.jsonl", GOOD + b'{"text": "' + b"x" * (3 << 20) + b'"}\n' + GOOD_Z, 2, row_too_large=1
    ),
    case("a line without end", "a.jsonl", b"[" * (3 << 20), 0, row_too_large=1),
    case("gzip bomb", "a.jsonl.gz", gzip.compress(b"\0" * (16 << 20)), 0, row_too_large=1, too_large=1),
    case("gzip bomb of lines", "a.jsonl.gz", gzip.compress(b"\n" * (16 << 20)), 0, too_large=1),
    case("bzip2 bomb", "a.txt.bz2", bz2.compress(b" " * (16 << 20)), 0, given={"format": "text"}, row_too_large=1),
    case(
        "xz bomb of CSV",
        "a.csv.xz",
        lzma.compress((b"text\n" + (b"a" * 999 + b"\n") * 9000), preset=0),
        None,
        too_large=1,
    ),
    case("truncated Zstandard", "a.jsonl.zst", zstd(GOOD * 9)[:-4], None, truncated_file=1),
    case("truncated xz", "a.jsonl.xz", lzma.compress(GOOD * 9)[:-20], None, truncated_file=1),
    case("truncated bzip2", "a.jsonl.bz2", bz2.compress(GOOD * 9)[:-4], None, truncated_file=1),
    case("not Zstandard", "a.jsonl.zst", b"this is no archive", 0, corrupt_file=1),
    case("not bzip2", "a.jsonl.bz2", b"this is no archive", 0, corrupt_file=1),
    case("not xz", "a.csv.xz", b"this is no archive", 0, corrupt_file=1),
    case("gzip with garbage behind", "a.jsonl.gz", gzip.compress(GOOD) + b"garbage", 1, corrupt_file=1),
    case("an empty file", "a.jsonl", b"", 0),
    case("an empty CSV", "a.csv", b"", 0, missing_column=1),
    case("duplicate keys", "a.jsonl", b'{"text": "a", "text": "b"}\n', 1),
    case("nested 5,000 deep", "a.jsonl", b'{"text": ' + b"[" * 5000 + b"]" * 5000 + b"}\n" + GOOD, 1, broken_json=1),
    case("nested 900 deep", "a.jsonl", b'{"text": ' + b"[" * 900 + b"]" * 900 + b"}\n" + GOOD, 1, wrong_type=1),
    case("lone surrogate", "a.jsonl", b'{"text": "\\ud800"}\n' + GOOD, 1, lone_surrogate=1),
    case("encoded surrogate", "a.jsonl", b'{"text": "\xed\xa0\x80"}\n', 0, undecodable_bytes=1),
    case("NaN and huge numbers", "a.jsonl", b'{"text": NaN}\n{"text": 1e999}\n' + GOOD, 1, broken_json=2),
    case("arrays and scalars", "a.jsonl", b'[1]\n3\n"a"\nnull\n' + GOOD, 1, not_an_object=4),
    case("missing and null fields", "a.jsonl", b'{"t": 1}\n{"text": null}\n' + GOOD, 1, missing_column=1, empty=1),
    case(
        "JSON array with a broken element",
        "a.json",
        b'[{"text": "a"}, {"text": b}, {"text": "]},{"}]',
        2,
        broken_json=1,
    ),
    case("JSON array that breaks off", "a.json", b'[{"text": "a"}, {"text": "b', 1, truncated_file=1),
    case("JSON array with more behind", "a.json", b'[{"text": "a"}] [{"text": "b"}]', 1, broken_json=1),
    case("JSON array with one endless string", "a.json", b'[{"text": "' + b"x" * (6 << 20), 0, row_too_large=1),
    case("JSON lines called .json", "a.json", GOOD + GOOD_Z, 2),
    case("HTML called .json", "a.json", b"<html>\n</html>\n", 0, broken_json=2),
    case("10,000 columns", "a.csv", wide(10_000), 1),
    case("stray quotes in CSV", "a.csv", b'text,n\na "b" c,1\n"x"y,2\nz,3\n', 2, broken_csv=1),
    case(
        "a quote that never closes", "a.csv", b'text,n\na,1\n"b,2\n' + b"c,3\n" * (1 << 18), 1 + (1 << 18), broken_csv=1
    ),
    case(
        "a quote that closes far away",
        "a.csv",
        b'text,n\n"b,2\n' + b"c,3\n" * (1 << 18) + b'd",4\n',
        1 + (1 << 18),
        broken_csv=1,
    ),
    case("nothing but quotes", "a.csv", b"text\n" + b'"' * (3 << 20), 0, row_too_large=1),
    case("lines of three quotes", "a.csv", b"text\n" + b'"""\n' * 9999, 4999, broken_csv=1),
    case(
        "indented JSON object",
        "a.jsonl",
        json.dumps({"data": [{"text": "a"}] * 99}, indent=1).encode(),
        0,
        broken_json=1,
    ),
    case("JSON array called .jsonl", "a.jsonl", json.dumps([{"text": "a"}] * 9).encode(), 0, not_an_object=1),
    case("xz with padding", "a.jsonl.xz", lzma.compress(GOOD) + bytes(4) + lzma.compress(GOOD_Z) + bytes(8), 2),
    case("xz with garbage behind", "a.jsonl.xz", lzma.compress(GOOD) + b"garbage", 1, corrupt_file=1),
    case("wrong number of columns", "a.tsv", b"text\tn\na\t1\nb\nc\t1\t2\n", 1, wrong_column_count=2),
    case("two columns of one name", "a.csv", b"text,text\na,b\n", 0, ambiguous_column=1),
    case("two columns of one name in Parquet", "a.parquet", parquet(twice()), 0, ambiguous_column=1),
    case("two fields of one name in Parquet", "a.parquet", parquet(twice_inside()), 0, CHAT, ambiguous_column=1),
    case("a time beyond all calendars", "a.parquet", parquet(far_future()), 1, CHAT, wrong_type=1),
    case("lone surrogates in front matter", "a.md", b'---\ntext: "\\ud800"\n---\na', 0, lone_surrogate=1),
    case("CSV with a bad byte", "a.csv", b"text,n\na,1\n\xff,2\nc,3\n", 2, undecodable_bytes=1),
    case("CSV called .parquet", "a.parquet", b"text\na\n" * 9, 0, corrupt_file=1),
    case(
        "Parquet with a wrong magic", "a.parquet", parquet(pa.table({"text": ["a"]}))[:-4] + b"PAR2", 0, corrupt_file=1
    ),
    case("Parquet with a torn footer", "a.parquet", b"PAR1" + b"\xff" * 64 + b"\x40\0\0\0PAR1", 0, corrupt_file=1),
    case("Parquet with pickled objects", "a.parquet", parquet(pickled()), 2),
    case(
        "pickled objects as text",
        "a.parquet",
        parquet(pickled()),
        0,
        given={"columns": {"text": "object"}},
        wrong_type=2,
    ),
    case("Parquet with a pickle in its schema", "a.parquet", parquet(tensors()), 1),
    case(
        "Arrow with pickled objects",
        "a.arrow",
        arrow_stream(pickled()),
        0,
        given={"columns": {"text": "object"}},
        wrong_type=2,
    ),
    case("Arrow with a pickle in its schema", "a.arrow", arrow_stream(tensors()), 1),
    case("Arrow that breaks off", "a.arrow", arrow_stream(pa.table({"text": ["a"] * 99}))[:-80], 0, corrupt_file=1),
    case("not Arrow", "a.arrow", b"this is no arrow stream", 0, corrupt_file=1),
    case("numbers for text in Parquet", "a.parquet", parquet(pa.table({"text": [1, 2]})), 0, wrong_type=2),
    case(
        "path traversal in a language code",
        "a.jsonl",
        b'{"text": "a", "lang": "../../etc"}\n',
        0,
        given=LANG,
        language_unknown=1,
    ),
    case(
        "an odd language code",
        "a.jsonl",
        b'{"text": "a", "lang": "\\u0000en"}\n{"text": "a", "lang": ["en"]}\n',
        0,
        given=LANG,
        language_unknown=1,
        wrong_type=1,
    ),
    case("aliases in front matter", "a.md", b"---\na: &a [x, x]\nb: [*a, *a]\n---\ntext", 0, broken_front_matter=1),
    case(
        "code in front matter",
        "a.md",
        b"---\na: !!python/object/apply:os.system ['true']\n---\ntext",
        0,
        broken_front_matter=1,
    ),
    case("front matter without end", "a.md", b"---\na: 1\ntext", 1),
    case(
        "unknown roles and shapes",
        "a.jsonl",
        b'{"m": [{"role": "boss", "content": "x"}]}\n{"m": {"a": 1}}\n{"m": [[]]}\n',
        0,
        given=CHAT,
        wrong_type=3,
    ),
    case("control characters", "a.jsonl", b'{"text": "\\u0007\\u001b[31mred\\u001b[0m"}\n', 1),
    case(
        "bad times",
        "a.jsonl",
        b'{"text": "a", "t": "soon"}\n{"text": "b", "t": 1e300}\n{"text": "c", "t": [1]}\n{"text": "d", "t": ""}\n',
        1,
        given={"columns": {"text": "text", "timestamp": "t"}},
        bad_timestamp=3,
    ),
]
BY_NAME = {case.name: case for case in HOSTILE}


def source_of(path: Path, given: dict[str, Any]) -> SourceConfig:
    fields = {"role": "pool", "path": str(path), "lang": "en", **given}
    return SourceConfig(**{name: value for name, value in fields.items() if value is not None})


def outcomes(path: Path, given: dict[str, Any], limits: Limits = SMALL) -> tuple[int, dict[str, int]]:
    """Documents, and rejects by reason, of one file."""
    source = source_of(path, given)
    units = read_units({"s": list_source("s", source).files}, 4 << 20)
    tables = [table for unit in units for table in read_unit(unit, {"s": source}, "prompt", 1, frozenset({0}), limits)]
    reasons = Counter(row["reason"] if row else None for table in tables for row in table["reject"].to_pylist())
    return reasons.pop(None, 0), dict(reasons)


@pytest.fixture(scope="module", autouse=True)
def _ray_has_registered_its_types() -> None:
    import ray.data  # noqa: F401 as in every worker


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda hostile: hostile.name)
def test_a_hostile_file_gives_rejects_and_never_an_exception(hostile: Case, tmp_path: Path) -> None:
    (tmp_path / hostile.file).write_bytes(hostile.data)
    documents, reasons = outcomes(tmp_path / hostile.file, hostile.given)
    assert reasons == hostile.rejects
    assert hostile.documents in (None, documents)


def test_the_pickles_of_these_tests_do_go_off() -> None:
    with pytest.raises(AssertionError, match="a pickle from a file was run"):
        pickle.loads(pickle.dumps(Bomb()))  # noqa: S301


@pytest.mark.parametrize("name", ["gzip bomb", "a line without end", "bzip2 bomb", "xz bomb of CSV"])
def test_a_bomb_costs_no_more_memory_than_the_limits(name: str, tmp_path: Path) -> None:
    hostile = BY_NAME[name]
    (tmp_path / hostile.file).write_bytes(hostile.data)
    tracemalloc.start()
    try:
        outcomes(tmp_path / hostile.file, hostile.given)
        assert tracemalloc.get_traced_memory()[1] < 40 << 20
    finally:
        tracemalloc.stop()


def test_all_hostile_files_together_leave_a_finished_ingest(local_ray: None, tmp_path: Path) -> None:
    """Every file is a source of its own, so that what became of it can be looked up."""
    sources, expected = {}, {}
    for number, hostile in enumerate(HOSTILE):
        path = tmp_path / "in" / str(number) / hostile.file
        path.parent.mkdir(parents=True)
        path.write_bytes(hostile.data)
        sources[f"s{number}"] = source_of(path, {"role": "current", **hostile.given})  # duplicates stay
        expected |= {(f"s{number}", reason): rows for reason, rows in hostile.rejects.items()}
        if hostile.documents:
            expected[f"s{number}", "document"] = hostile.documents
    config = IngestConfig(max_row_bytes=SMALL.row_bytes, max_file_bytes=SMALL.file_bytes)
    planned = plan(sources, config, str(tmp_path / "out"))
    with session(str(tmp_path / "out"), RayConfig(), None, "hostile") as opened:
        counts = row_counts(ingest(planned, config, opened))
    assert {key: counts.get(key) for key in expected} == expected


# --- any mixture of rows and garbage ------------------------------------------------------------

hidden = re.compile(f"[{HIDING}]|\\s")
words = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12).map(str.strip)
words = words.filter(lambda text: bool(hidden.sub("", text)))  # the rest is a reject: empty
garbage = st.binary(max_size=30).filter(lambda data: b"\n" not in data and not _is_json(data))


def _is_json(data: bytes) -> bool:
    try:
        json.loads(data)
    except (ValueError, UnicodeDecodeError):
        return False
    return True


@given(
    rows=st.lists(st.one_of(words, garbage), max_size=20),
    packed=st.sampled_from(["", ".gz", ".zst"]),
    range_bytes=st.integers(16, 400),
)
@settings(deadline=None, max_examples=150)
def test_any_mixture_of_rows_and_garbage_gives_exactly_the_rows(
    tmp_path_factory: pytest.TempPathFactory, rows: list[str | bytes], packed: str, range_bytes: int
) -> None:
    lines = [json.dumps({"text": row}).encode() if isinstance(row, str) else row for row in rows]
    data = b"".join(line + b"\n" for line in lines)
    path = tmp_path_factory.getbasetemp() / f"mixture.jsonl{packed}"
    path.write_bytes({"": bytes, ".gz": gzip.compress, ".zst": zstd}[packed](data))
    source = source_of(path, {})
    units = read_units({"s": list_source("s", source).files}, range_bytes)
    tables = [table for unit in units for table in read_unit(unit, {"s": source}, "prompt", 1, frozenset({0}))]
    found = sorted(
        (row["row"], row["text"], row["reject"])
        for table in tables
        for row in table.to_pylist()
        if row["row"] is not None
    )
    texts = [text for _, text, reject in found if reject is None]
    unmarked = data.startswith((b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff"))
    if not unmarked:
        assert [" ".join(text.split()) for text in texts] == [
            " ".join(_nfc(row).split()) for row in rows if isinstance(row, str) and _nfc(row)
        ]
        refused = [reject for *_, reject in found if reject is not None and reject["reason"] not in FILTERS]
        assert len(refused) == sum(isinstance(row, bytes) and bool(row.strip()) for row in rows)


def _nfc(text: str) -> str:
    from compass_ray.ingest.cleaning import normalize

    return normalize(text)
