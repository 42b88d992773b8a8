"""A survey counts what ingest will find, from a part of it."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import demo_config
from typer.testing import CliRunner

from compass_ray.cli import app
from compass_ray.errors import ConfigError, SchemaError
from compass_ray.ingest.config import SourceConfig
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
    assert found["evaluations"][0]["first_file"] | {"ngrams": 0} == {"texts": 2, "too_short": 1, "ngrams": 0}
    assert {"document": 20, "contaminated": 1} in [source["outcomes"] for source in found["sources"]]
    printed = CliRunner().invoke(app, ["curate", json.dumps(body), "--dry-run"])
    assert "evaluation quiz: 1 file, the first: 2 texts, 1 too short; " in printed.stdout
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
