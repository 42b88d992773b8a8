"""A survey counts what ingest will find, from a part of it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from demo import demo_config
from typer.testing import CliRunner

from compass_ray.cli import app
from compass_ray.errors import ConfigError, SchemaError
from compass_ray.ingest.config import SourceConfig
from compass_ray.ingest.near_languages import only_near
from compass_ray.ingest.survey import survey


def _source(path: Path) -> SourceConfig:
    return SourceConfig(role="pool", path=str(path), lang="sw")


def _lines(count: int) -> bytes:
    return b"".join(
        json.dumps({"text": f"sentensi namba {number} ya maandishi"}).encode() + b"\n" for number in range(count)
    )


def test_rows_of_a_parquet_file_are_counted_by_its_footer(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [f"a {number}" for number in range(70_000)]}), tmp_path / "a.parquet")
    found = survey("pool", _source(tmp_path / "a.parquet"), "prompt")
    assert (found.rows, found.counted) == (70_000, True)
    assert found.sample.num_rows < 70_000


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_rows_of_a_long_line_file_are_estimated_from_its_beginning(tmp_path: Path, name: str) -> None:
    data = _lines(60_000)
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    found = survey("pool", _source(tmp_path / name), "prompt")
    assert found.rows == pytest.approx(60_000, rel=0.1)
    assert found.documents == found.rows
    assert not (found.counted and name == "a.jsonl")


def test_a_file_whose_later_lines_are_longer_is_looked_at_all_over(tmp_path: Path) -> None:
    long = b"".join(json.dumps({"text": f"{number} " + "neno " * 60}).encode() + b"\n" for number in range(10_000))
    (tmp_path / "a.jsonl").write_bytes(_lines(30_000) + long)
    found = survey("pool", _source(tmp_path / "a.jsonl"), "prompt")
    assert found.rows == pytest.approx(40_000, rel=0.25)  # by its beginning it would be 91,000


def test_rows_that_will_be_rejected_are_expected_in_proportion(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(_lines(30) + b'{"text": ""}\n' * 10)
    found = survey("pool", _source(tmp_path / "a.jsonl"), "prompt")
    assert found.outcomes == {"document": 30, "empty": 10}
    assert (found.rows, found.counted, found.documents) == (40, True, 30)


def test_rows_of_a_small_csv_are_counted_and_not_its_lines(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b'text;n\n"a\nb";1\n\nc;2\n"d" e;3\n')
    (tmp_path / "b.tsv").write_bytes(b'text\tn\n"a\t1\n')
    found = survey("pool", _source(tmp_path), "prompt")
    assert (found.rows, found.counted) == (4, True)
    assert found.outcomes == {"broken_csv": 1, "document": 3}
    assert found.dialects == {
        'delimiter semicolon, quote ", header, 2 columns': {"files": 1, "first": "a.csv"},
        "delimiter tab, quote none, header, 2 columns": {"files": 1, "first": "b.tsv"},
    }


def test_a_dry_run_shows_sources_and_first_documents_and_writes_nothing(tmp_path: Path) -> None:
    body = json.dumps(demo_config(tmp_path / "out").unexpanded)
    shown = CliRunner().invoke(app, ["curate", body, "--dry-run", "--json"])
    assert shown.exit_code == 0, shown.output
    found = json.loads(shown.stdout)
    assert found["shards"] == 8
    usage = next(source for source in found["sources"] if source["source"] == "usage")
    assert (usage["rows"], usage["documents"], usage["outcomes"]["language_unknown"]) == (205, 204, 1)
    assert len(usage["first"]) == 5
    stages = [stage["stage"] for stage in found["stages"]]
    assert stages == ["ingest", "embed", "codebook", "meaning", "assign", "near_usage", "sample", "select"]
    assert found["seconds"] == sum(stage["seconds"] for stage in found["stages"]) > 0
    printed = CliRunner().invoke(app, ["curate", body, "--dry-run"])
    assert "Sources, into 8 shards" in printed.stdout
    assert "memory, at most" in printed.stdout
    assert "usage: usage.tsv.gz read with delimiter tab, quote none, header, 3 columns" in printed.stdout
    assert not (tmp_path / "out").exists()


def test_a_dry_run_looks_at_evaluations(tmp_path: Path) -> None:
    body = demo_config(tmp_path / "out").unexpanded
    pool = next(source for source in body["sources"].values() if source["role"] == "pool")
    pool.update(path=str(tmp_path / "a.jsonl"), columns={"text": "text"}, exclude=[], lang="sw")
    pool.pop("lang_pattern", None)
    said = "neno moja na jingine la pili na la tatu na la nne na la tano na la sita"
    (tmp_path / "a.jsonl").write_bytes(_lines(20) + json.dumps({"text": f"Kwanza {said}."}).encode() + b"\n")
    (tmp_path / "quiz.jsonl").write_bytes(json.dumps({"text": said}).encode() + b'\n{"text": "?"}\n')
    body["ingest"] |= {"decontaminate": {"evaluations": {"quiz": {"path": str(tmp_path / "quiz.jsonl")}}}}
    shown = CliRunner().invoke(app, ["curate", json.dumps(body), "--dry-run", "--json"])
    assert shown.exit_code == 0, shown.output
    found = json.loads(shown.stdout)
    assert found["evaluations"][0]["first_file"] | {"ngrams": 0} == {
        "texts": 2,
        "too_short": 1,
        "blank": 0,
        "ngrams": 0,
    }
    assert {"document": 20, "contaminated": 1} in [source["outcomes"] for source in found["sources"]]
    printed = CliRunner().invoke(app, ["curate", json.dumps(body), "--dry-run"])
    assert "evaluation quiz: 1 file, the first: 2 texts, 1 too short, 0 blank rows; " in printed.stdout
    (tmp_path / "quiz.jsonl").write_bytes(b'{"text": \n')
    shown = CliRunner().invoke(app, ["curate", json.dumps(body), "--dry-run"])
    assert isinstance(shown.exception, SchemaError)


def test_a_dry_run_in_which_no_row_is_a_document_says_what_became_of_them(tmp_path: Path) -> None:
    body = demo_config(tmp_path / "out").unexpanded
    (tmp_path / "a.jsonl").write_bytes(b'{"text": ""}\n' * 3)
    for source in body["sources"].values():
        source.update(path=str(tmp_path / "a.jsonl"), columns={"text": "text"}, exclude=[], lang="sw")
        source.pop("lang_pattern", None)
    shown = CliRunner().invoke(app, ["curate", json.dumps(body), "--dry-run"])
    assert isinstance(shown.exception, ConfigError)
    assert "'usage': {'empty': 3}" in str(shown.exception)


def test_what_is_not_read_of_messages_is_counted_in_the_sample(tmp_path: Path) -> None:
    turn = {"role": "user", "content": "Habari?", "stamp": 7}
    rows = [{"messages": [{**turn, "content": f"Habari {number}?"}]} for number in range(3)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    columns = {"messages": "messages", "tools": "tools"}
    source = SourceConfig(role="pool", path=str(tmp_path / "a.jsonl"), lang="sw", columns=columns)
    assert survey("pool", source, "prompt").notes == {
        "a message has stamp, which is not read": 3,
        "the row has no tools": 3,
    }


# --- what a dry run says ------------------------------------------------------------------------


def _parquet(path: Path, rows: int, column: str = "text") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({column: [f"sentensi {path.name} {number}" for number in range(rows)]}), path)


def test_columns_are_compared_with_every_footer_that_is_read(tmp_path: Path) -> None:
    for number in range(10):
        _parquet(tmp_path / f"in/{number}.parquet", 100, "content" if number == 8 else "text")
    found = survey("pool", _source(tmp_path / "in"), "prompt")
    assert (found.rows, found.documents, found.counted) == (1000, 900, True)
    assert found.misfits == ("8.parquet: missing_column: expected text; the file has content",)
    assert found.said == [
        "columns: 1 file will be a reject: 8.parquet: missing_column: expected text; the file has content"
    ]


def test_columns_are_compared_with_the_schema_of_arrow_files_too(tmp_path: Path) -> None:
    table = pa.table({"content": ["a", "b"]})
    with pa.OSFile(str(tmp_path / "a.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    found = survey("pool", _source(tmp_path / "a.arrow"), "prompt")
    assert found.misfits == ("a.arrow: missing_column: expected text; the file has content",)
    assert found.documents == 0


def test_documents_are_expected_by_language_of_the_path_over_all_files(tmp_path: Path) -> None:
    for number, lang in enumerate(["swh_Latn"] * 30 + ["yor_Latn"] * 10):
        _parquet(tmp_path / f"in/{lang}/{number}.parquet", 50)
    source = SourceConfig(role="pool", path=str(tmp_path / "in"), lang_pattern="^(?P<lang>[a-z]{3}_[A-Z][a-z]{3})/")
    found = survey("pool", source, "prompt")
    assert list(found.languages) == ["sw", "yo"]
    assert found.languages["sw"] == pytest.approx(1500, rel=0.05)
    assert sum(found.languages.values()) == pytest.approx(2000, rel=0.05)


def test_documents_are_expected_by_language_of_the_rows_that_were_read(tmp_path: Path) -> None:
    rows = [{"text": f"a {number}", "lang": "sw" if number % 4 else "yo"} for number in range(40)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = SourceConfig(role="pool", path=str(tmp_path / "a.jsonl"), columns={"text": "text", "lang": "lang"})
    assert survey("pool", source, "prompt").languages == {"sw": 30, "yo": 10}


def test_rows_that_are_no_documents_are_explained_by_the_first(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(_lines(30) + b'{"text": ""}\n' * 9 + b"{\n")
    [line] = survey("pool", _source(tmp_path / "a.jsonl"), "prompt").said
    assert line.startswith("10 of 40 rows looked at are no documents (1 broken_json, 9 empty), as a.jsonl:")


def test_a_dry_run_says_what_is_not_read_and_which_language_goes_by_another_tag(tmp_path: Path) -> None:
    body = demo_config(tmp_path / "out").unexpanded
    for number, name in enumerate(["train.jsonl", "test.jsonl", "b.tar"]):
        (tmp_path / "in").mkdir(exist_ok=True)
        (tmp_path / "in" / name).write_bytes(_lines(20 + number))
    usage = next(name for name, source in body["sources"].items() if source["role"] == "usage")
    body["sources"] = {
        "pool": {"role": "pool", "path": str(tmp_path / "in"), "lang": "zh-Hant"},
        usage: {"role": "usage", "path": str(tmp_path / "in/train.jsonl"), "lang": "zh"},
    }
    shown = CliRunner().invoke(app, ["curate", json.dumps(body), "--dry-run", "--json"])
    assert shown.exit_code == 0, shown.output
    found = json.loads(shown.stdout)
    pool = found["sources"][0]
    assert pool["languages"] == {"zh-Hant": 20}
    assert {one["reason"]: one["files"] for one in pool["left_out"]} == {"split test": 1, ".tar": 1}
    assert found["near_languages"] == {"zh": ["zh-Hant"]}
    printed = CliRunner().invoke(app, ["curate", json.dumps(body), "--dry-run"]).stdout
    tar, test = (f"{len(_lines(count)):,} bytes" for count in (22, 21))
    assert f"pool: not read: .tar (1 file, {tar}: b.tar), split test (1 file, {test}: test.jsonl)" in printed
    assert "Chinese (zh): usage asks for it and the pool has none, only zh-Hant; if that is meant" in printed
    assert "Documents by language, about, copies not yet found" in printed


@pytest.mark.parametrize(
    ("usage", "pool", "near"),
    [
        (["sw", "yo"], ["sw", "ha"], {}),
        (["zh-Hant"], ["zh"], {"zh-Hant": ["zh"]}),
        (["ko"], ["ko-Hang", "ja"], {"ko": ["ko-Hang"]}),
        (["sr", "nn"], ["sr-Latn", "no", "hr"], {"sr": ["sr-Latn"], "nn": ["no"]}),
        (["arz"], ["ar", "he"], {"arz": ["ar"]}),
        (["acm", "yue"], ["ar", "zh", "he"], {"acm": ["ar"], "yue": ["zh"]}),
        (["gn"], ["es"], {}),
        (["sw", "sw-Arab"], ["sw"], {"sw-Arab": ["sw"]}),
        ([], ["sw"], {}),
    ],
)
def test_a_neighbour_is_the_same_language_or_one_that_is_read_alike(
    usage: list[str], pool: list[str], near: dict[str, list[str]]
) -> None:
    assert only_near(usage, pool) == near
