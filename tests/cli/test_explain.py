"""``compass-ray explain`` as a user types it: one way to name a document, and what is printed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from compass_ray import CurationRun
from compass_ray.cli import app
from compass_ray.errors import ConfigError


def explain(run: CurationRun, *arguments: str, stdin: str | None = None) -> str:
    told = CliRunner().invoke(app, ["explain", run.path, *arguments], input=stdin)
    assert told.exit_code == 0, told.output
    return told.stdout


@pytest.fixture
def chosen(finished_demo: CurationRun) -> dict[str, Any]:
    row: dict[str, Any] = finished_demo.selection("sw").take(1)[0]
    return row


def test_text_is_given_as_it_is_or_by_a_file_or_on_stdin(
    finished_demo: CurationRun, chosen: dict[str, Any], tmp_path: Path
) -> None:
    by_id = explain(finished_demo, chosen["doc_id"])
    (tmp_path / "text.txt").write_text(f"\ufeff{chosen['text']}\n", encoding="utf-8")
    assert explain(finished_demo, "--text", chosen["text"]) == by_id
    assert explain(finished_demo, "--text", f"@{tmp_path}/text.txt") == by_id
    assert explain(finished_demo, "--text", "-", stdin=f"  {chosen['text']}\r\n") == by_id
    place = ("--source", chosen["source"], "--uri", chosen["uri"], "--row", str(chosen["row"]))
    assert explain(finished_demo, *place) == by_id


def test_what_is_printed_names_roles_languages_and_units(finished_demo: CurationRun, chosen: dict[str, Any]) -> None:
    lines = explain(finished_demo, chosen["doc_id"]).splitlines()
    assert lines[0] == f"document {chosen['doc_id']}"
    assert lines[1] == f"  {chosen['text'][:300]}" + ("…" if len(chosen["text"]) > 300 else "")
    assert lines[2].startswith(f"  {chosen['source']}: {chosen['uri']} row {chosen['row']}, pool, ")
    assert lines[2].endswith(f" ({chosen['lang']}): kept")
    assert lines[3].startswith(f"  cluster {chosen['cluster']}, cosine {chosen['similarity']:.3f} to its centre, ")
    assert lines[3].endswith(" tokens")
    assert [line.split(": ")[0] for line in lines[4:]] == ["Hindi (hi)", "Swahili (sw)", "Tamil (ta)"]
    assert f"Swahili (sw): selected: {chosen['reason']}" in lines


def test_usage_is_said_to_be_no_candidate(finished_demo: CurationRun) -> None:
    lines = explain(finished_demo, "--source", "usage", "--row", "3").splitlines()
    assert lines[2].startswith("  usage: usage.tsv.gz row 3, usage, ")
    assert lines[4:] == ["  never a candidate: documents are drawn from the pool alone"]


def test_json_has_the_fields_of_one_document_and_the_others_of_its_text(
    finished_demo: CurationRun, chosen: dict[str, Any]
) -> None:
    body = json.loads(explain(finished_demo, chosen["doc_id"], "--json"))
    assert list(body) == ["doc_id", "text", "rows", "assignment", "verdicts", "others", "more"]
    assert (body["doc_id"], body["others"], body["more"]) == (chosen["doc_id"], [], 0)
    assert list(body["verdicts"][0]) == ["target_lang", "selected", "reason"]
    assert json.loads(explain(finished_demo, "--text", chosen["text"], "--json")) == body


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "name the document in one way: DOC_ID, --text TEXT, --row N or --line N"),
        (["0" * 32, "--text", "x"], "in one way"),
        (["--source", "usage", "--row", "1", "--line", "1"], "in one way"),
        (["--row", "1"], "need --source NAME"),
        (["--text", "x", "--source", "usage"], "need --source NAME"),
        (["--text", "x", "--uri", "a.jsonl"], "need --source NAME"),
        (["--text", "@nowhere.txt"], "--text @nowhere.txt: .*No such file"),
        (["0" * 32], "has read no such document; ask by its text"),
        (["12"], "expected 32 hexadecimal digits"),
    ],
)
def test_a_document_that_is_not_named_in_one_way_is_bad_usage(
    arguments: list[str], message: str, finished_demo: CurationRun
) -> None:
    told = CliRunner().invoke(app, ["explain", finished_demo.path, *arguments])
    assert isinstance(told.exception, ConfigError)
    assert told.exception.exit_code == 2
    with pytest.raises(ConfigError, match=message):
        raise told.exception


def test_there_is_no_cluster_to_join(finished_demo: CurationRun) -> None:
    told = CliRunner().invoke(app, ["explain", finished_demo.path, "--address", "auto"])
    assert told.exit_code == 2
