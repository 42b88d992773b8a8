"""Documents of a run are found by text, by place and by id, by this process alone, and told why in words."""

from __future__ import annotations

import csv
import gzip
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from demo import DEMO, demo_config
from processes import clean_environment

from compass_ray import CurationRun, curate
from compass_ray.artifacts import Artifact, open_artifact
from compass_ray.errors import ConfigError
from compass_ray.pipelines import lookup
from compass_ray.pipelines.explain import explain, explain_line, explain_row, explain_text

WITHOUT_RAY = "import sys; sys.modules['ray'] = None; from compass_ray.cli import main; main()"
LANGUAGES = ["sw", "hi", "ta", "en", "de", "am", "pl", "ja", "es", "fr", "ar", "ru"]


def artifact_of(run: CurationRun, stage: str) -> Artifact:
    return open_artifact(f"{run.path.rsplit('/runs/', 1)[0]}/cache/{run.record['stages'][stage]['artifact']}")


def rows_of(run: CurationRun, stage: str = "ingest") -> list[dict[str, Any]]:
    made = artifact_of(run, stage)
    rows: list[dict[str, Any]] = pa.concat_tables(made.read_all(made.manifest().receipts)).to_pylist()
    return rows


@pytest.fixture(scope="module")
def repeated(local_ray: None, tmp_path_factory: pytest.TempPathFactory) -> CurationRun:
    """The demo with a source that holds a text in twelve languages, twice in one, and a question of usage."""
    folder = tmp_path_factory.mktemp("repeated")
    with gzip.open(DEMO / "usage.tsv.gz", "rt", encoding="utf-8", newline="") as stream:
        question = next(csv.DictReader(stream, delimiter="\t"))["question"]
    rows = [{"text": " One text\t in many languages. ", "lang": lang} for lang in [*LANGUAGES, "sw"]]
    rows.append({"text": question, "lang": "en"})
    (folder / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows[:2]) + "\n")
    (folder / "more.jsonl").write_text("\n \n" + "\n\n".join(json.dumps(row) for row in rows[2:]) + "\n")
    source = f"sources.many={{role: pool, path: '{folder}/*.jsonl', columns: {{text: text, lang: lang}}}}"
    return curate(demo_config(folder / "out", source, "ingest.shard_bytes=1000000"))


def test_a_document_is_the_same_by_id_by_text_and_by_row(finished_demo: CurationRun) -> None:
    rows = rows_of(finished_demo)
    drawn = {
        (row["doc_id"], row["target_lang"]) for row in artifact_of(finished_demo, "sample").read("draw").to_pylist()
    }
    chosen = {doc_id for doc_id, _ in drawn}
    for row in [*rows[::40], *(row for row in rows if row["reject"]), *(r for r in rows if r["doc_id"] in chosen)][
        :120
    ]:
        found = explain(finished_demo, row["doc_id"].hex())
        assert explain_row(finished_demo, row["source"], row["row"], row["uri"]) == found
        if row["text"]:
            assert found in explain_text(finished_demo, row["text"]).documents
        for verdict in found.verdicts:
            assert verdict.selected == ((row["doc_id"], verdict.target_lang) in drawn)
        kept = any(shown["reject"] is None for shown in found.rows)  # of a duplicate, the first copy
        assert bool(found.verdicts) == (row["role"] == "pool" and kept)


def test_a_line_is_counted_as_an_editor_counts_but_for_blank_ones(finished_demo: CurationRun) -> None:
    lines = (DEMO / "pool" / "sw.chat.jsonl").read_bytes().split(b"\n")
    for number in (1, 5, len(lines) - 1):
        found = explain_line(finished_demo, "pool-chat", number, "sw.chat.jsonl")
        assert found.text == json.loads(lines[number - 1])["prompt"]
        assert found.rows[0]["row"] == len(b"\n".join(lines[: number - 1])) + (number > 1)


def test_blank_lines_do_not_count(repeated: CurationRun) -> None:
    langs = [explain_line(repeated, "many", line, "more.jsonl").rows[0]["lang"] for line in range(1, 11)]
    assert langs == LANGUAGES[2:]


def test_a_rejected_row_is_found_by_its_place_and_by_what_the_quarantine_keeps_of_it(
    finished_demo: CurationRun,
) -> None:
    rejects = finished_demo.quarantine.to_pylist()
    for row in rejects:
        (found,) = explain_row(finished_demo, row["source"], row["row"], row["uri"]).rows
        assert found["reject"] == {"reason": row["reason"], "message": row["message"]}
    unknown = next(row for row in rejects if row["reason"] == "language_unknown")
    told = explain_text(finished_demo, json.loads(unknown["raw"])["text"])
    assert [document.rows[0]["row"] for document in told.documents] == [unknown["row"]]
    assert told.documents[0].verdicts == []


def test_all_documents_with_a_text_are_found_and_ten_explained(repeated: CurationRun) -> None:
    found = explain_text(repeated, "One text in many languages.")
    assert (len(found.documents), found.more) == (10, 2)
    assert {document.text for document in found.documents} == {"One text\t in many languages."}
    langs = Counter(row["lang"] for document in found.documents for row in document.rows)
    assert set(langs) < set(LANGUAGES)
    if "sw" in langs:
        assert langs["sw"] == 2
    (again,) = [r for r in rows_of(repeated) if r["source"] == "many" and r["reject"]]
    twice = explain_row(repeated, "many", again["row"], again["uri"])
    assert sorted(row["reject"]["reason"] if row["reject"] else "" for row in twice.rows) == ["", "duplicate"]


def test_a_text_of_usage_is_found_in_the_pool_too_and_barred_there(repeated: CurationRun) -> None:
    question = explain_line(repeated, "many", 12, "more.jsonl").text
    found = explain_text(repeated, question).documents
    assert sorted(document.rows[0]["role"] for document in found) == ["pool", "usage"]
    (pool,) = [document for document in found if document.verdicts]
    assert all("the same text is usage of" in verdict.reason for verdict in pool.verdicts)


@pytest.mark.parametrize("way", ["id", "text", "row"])
def test_one_shard_of_each_artifact_is_read_in_full(
    way: str, finished_demo: CurationRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = next(row for row in rows_of(finished_demo)[::-1] if row["role"] == "pool" and row["text"])
    read: list[tuple[str, str]] = []
    original = Artifact.read_bytes

    def spy(self: Artifact, key: str) -> bytes:
        read.append((self.stage, key))
        return original(self, key)

    monkeypatch.setattr(Artifact, "read_bytes", spy)
    if way == "id":
        explain(finished_demo, row["doc_id"].hex())
    elif way == "text":
        explain_text(finished_demo, row["text"])
    else:
        explain_row(finished_demo, row["source"], row["row"], row["uri"])
    stages = Counter(stage for stage, key in read if key.isdigit())
    assert stages == {"ingest": 1, "assign": 1, "near_usage": 1, "embed": 1}


def test_no_ray_is_needed(finished_demo: CurationRun, tmp_path: Path) -> None:
    row = next(row for row in rows_of(finished_demo) if row["role"] == "pool" and row["text"])
    place = ["--source", row["source"], "--uri", row["uri"], "--row", str(row["row"])]
    for way in ([row["doc_id"].hex()], ["--text", row["text"]], place):
        done = subprocess.run(
            [sys.executable, "-c", WITHOUT_RAY, "explain", finished_demo.path, *way],
            env=clean_environment(tmp_path),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        assert f"document {row['doc_id'].hex()}" in done.stdout
        assert done.stderr == ""


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (
            ("pool-chat", 812, "sw.chat.jsonl"),
            r"no row 812 of source 'pool-chat' \(sw.chat.jsonl\); rows of JSON lines",
        ),
        (("pool-chat", 812, "sw.chat.jsonl"), r"are byte offsets, give --line 812 for the line number$"),
        (("pool-tables", 99_999, "pl.csv"), r"no row 99999 of .*\(pl.csv\); rows of other files are counted from 0$"),
        (("pool-tables", 99_999, None), r"no row 99999 of source 'pool-tables' \(es.csv, pl.csv\); rows"),
        (
            ("pool-chat", 0, None),
            r"several files of source 'pool-chat' have a row 0; give --uri, one of ar.chat.jsonl, .* more$",
        ),
        (("pool-chat", 0, "no.jsonl"), r"no file 'no.jsonl' in source 'pool-chat'; it has ar.chat.jsonl, "),
        (("pool", 0, None), r"no source 'pool' in this run; it has read current, pool-chat, pool-tables, "),
    ],
)
def test_a_row_that_is_not_there_is_refused_with_what_is(
    place: tuple[str, int, str | None], message: str, finished_demo: CurationRun
) -> None:
    with pytest.raises(ConfigError, match=message):
        explain_row(finished_demo, *place)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        (("pool-chat", 1, None), r"several files of source 'pool-chat' have lines; give --uri, one of ar.chat"),
        (("pool-tables", 1, "pl.csv"), r"\(pl.csv\): csv files have rows, not lines; give --row, counted from 0"),
        (("pool-chat", 0, "sw.chat.jsonl"), r"no line 0 of .*; it has \d+ lines that are not blank, counted from 1"),
        (("pool-chat", 1, "no.jsonl"), r"no file 'no.jsonl' in source 'pool-chat'"),
    ],
)
def test_a_line_that_is_not_there_is_refused_with_what_is(
    place: tuple[str, int, str | None], message: str, finished_demo: CurationRun
) -> None:
    with pytest.raises(ConfigError, match=message):
        explain_line(finished_demo, *place)


def test_a_text_that_nobody_has_read_is_refused(finished_demo: CurationRun) -> None:
    for text, message in (
        ("nobody wrote this", "no document of .* has this text, nor does a reject"),
        (" \n", "the text to explain is empty"),
        ("\udc80", "not UTF-8"),
    ):
        with pytest.raises(ConfigError, match=message):
            explain_text(finished_demo, text)


def test_the_rows_that_are_shown_name_the_document_again(repeated: CurationRun) -> None:
    for document in explain_text(repeated, "One text in many languages.").documents:
        for row in document.rows:
            place = lookup.by_row(artifact_of(repeated, "ingest"), row["source"], row["row"], row["uri"])
            assert place.doc_id.hex() == document.doc_id
