"""The table of adapters: what each score is of, in which order, and what was left out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from compass_ray import AdaptedRun, records
from compass_ray.artifacts import to_parquet
from compass_ray.cli.adapted import adapted_as_json, print_adapted


def score(measures: str, lang: str, documents: int, inside: int) -> dict[str, Any]:
    figures = {"tokens": 10 * documents, "bytes": 20 * documents, "base_loss": 2.0, "loss": 1.0}
    row = {"adapter": "sw", "measures": measures, "lang": lang, "documents": documents, "in_language": inside}
    return row | (figures if documents else {})


def run_of(folder: Path, rows: list[dict[str, Any]], **usage: Any) -> AdaptedRun:
    """A finished run with one adapter."""
    told = {"heldout": 0, "scored": 0, "in_language": 0, "truncated": 0, "dropped_reasons": {}, **usage}
    counts = {"train": 1604, "in_language": {"train": 44, "heldout": 7}, "usage": told}
    counts["dropped_reasons"] = {"equals_held_out_usage": 2} if usage else {}
    body = {
        "base": {"name": "tiny"},
        "registry": "somewhere",
        "languages": {"sw": {"version": "0123456789abcdef", "scores": {"heldout": rows}}},
        "failed": {},
        "documents": {"sw": counts},
        "stages": {},
    }
    (folder / "adapt" / "sw").mkdir(parents=True)
    table = pa.Table.from_pylist(rows, schema=records.SCORE)
    (folder / "adapt" / "sw" / "scores.parquet").write_bytes(to_parquet(table))
    (folder / "adapt.json").write_text(json.dumps(body))
    return AdaptedRun(str(folder))


def lines_of(run: AdaptedRun, capsys: pytest.CaptureFixture[str]) -> list[str]:
    print_adapted(run)
    return capsys.readouterr().out.splitlines()


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("│").split("│")]


def test_each_score_says_what_it_is_of(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [score("usage", "sw", 25, 25), score("mixture", "sw", 101, 7), score("other", "ta", 9, 3)]
    lines = lines_of(run_of(tmp_path, rows, heldout=25, scored=25), capsys)
    assert lines[0].rstrip() == "Adapters on tiny: held-out text, base → adapter"
    usage, mixture, other = (cells(line) for line in lines if line.startswith("│"))
    assert usage[:3] == ["Swahili (sw)", "held-out usage", "25 of 25"]
    assert mixture[:3] == ["", "trained mixture", "7 of 101"]
    assert other[:3] == ["", "other languages", "3 of 9"]
    assert usage[3:] == ["2.000 → 1.000", "1.443 → 0.721", "-50.0%", "7.4 → 2.7"]
    assert max(len(line) for line in lines) <= 120
    assert lines[-2:] == [
        "sw: version 0123456789ab, trained on 1,604 documents, 44 in the language; left out: 2 × equals_held_out_usage",
        "registry: somewhere",
    ]


def test_without_usage_no_other_score_stands_for_the_language(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = lines_of(run_of(tmp_path, [score("usage", "sw", 0, 0), score("mixture", "sw", 101, 7)]), capsys)
    usage, mixture, other = (cells(line) for line in lines if line.startswith("│"))
    assert usage == ["Swahili (sw)", "no held-out usage", *["–"] * 5]
    assert mixture[:3] == ["", "trained mixture", "7 of 101"]
    assert other == ["", "no other languages", *["–"] * 5]
    assert "left out" not in "".join(lines)


def test_usage_that_was_cut_not_drawn_or_not_scored_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    usage = {"heldout": 700, "scored": 497, "truncated": 12, "dropped_reasons": {"template_mismatch": 3}}
    run = run_of(tmp_path, [score("usage", "sw", 497, 497)], **usage)
    assert lines_of(run, capsys)[-4:-1] == [
        "sw: held-out usage: 500 of 700 rows were drawn to be scored",
        "sw: held-out usage: 12 of 497 rows were cut at adapt.max_length",
        "sw: held-out usage: 3 of 500 rows could not be scored: template_mismatch",
    ]
    assert [row["measures"] for row in adapted_as_json(run)["languages"]["sw"]["scores"]["heldout"]] == ["usage"]


def test_what_the_chat_template_leaves_out_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = run_of(tmp_path, [score("usage", "sw", 5, 5)], heldout=5, scored=5, not_in_template={"tools": 2})
    record = json.loads((tmp_path / "adapt.json").read_text())
    record["documents"]["sw"]["not_in_template"] = {"reasoning": 1200, "tools": 3}
    (tmp_path / "adapt.json").write_text(json.dumps(record))
    assert lines_of(AdaptedRun(run.path), capsys)[-3:-1] == [
        "sw: the chat template leaves out reasoning of 1,200 documents, tools of 3 documents; a template that has them "
        "may be given as adapt.chat_template",
        "sw: held-out usage: the chat template leaves out tools of 2 rows",
    ]
