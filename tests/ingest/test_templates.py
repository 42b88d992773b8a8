"""Templates: fields in braces, numbers as the file has them, lists of any length, and what is refused."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from documents import documents, only
from pydantic import ValidationError
from sources import ingested, write

from compass_ray.ingest.config import Columns
from compass_ray.ingest.readers.fields import json_column
from compass_ray.ingest.templates import fields_of


def of(row: dict[str, Any], template: str) -> dict[str, Any]:
    """The document of one row, its columns found as the JSON reader finds them."""
    return only([{name: json_column([row], name)[0] for name in fields_of(template)}], columns={"text": template})


def filled(row: dict[str, Any], template: str) -> str:
    document = of(row, template)
    assert document["reject"] is None, document["reject"]
    text: str = document["text"]
    return text


def refused(row: dict[str, Any], template: str) -> tuple[str, str]:
    reject = of(row, template)["reject"]
    return reject["reason"], reject["message"]


# --- fields -------------------------------------------------------------------------------------


def test_a_template_joins_fields_and_braces_are_doubled() -> None:
    row = {"title": "T", "q": {"stem": "S"}, "n": 3, "ok": True, "x": None}
    assert filled(row, "{title}: {{{q.stem}}} {n} {ok}{x}") == "T: {S} 3 true"


def test_a_template_serves_prompts_and_completions_too() -> None:
    document = only([{"i": "Add", "x": "1 2", "a": "3"}], columns={"prompt": "{i}: {x}", "completion": "= {a}"})
    assert [turn["content"] for turn in document["messages"]] == ["Add: 1 2", "= 3"]


@pytest.mark.parametrize(
    ("row", "reason", "message"),
    [
        ({"a": "x"}, "missing_column", "the row has no b"),
        ({"a": "x", "b": ["y"]}, "wrong_type", "b: expected text, found list"),
        ({"a": "x", "b": float("nan")}, "wrong_type", "b: expected text, found nan, which JSON does not write"),
        ({"a": " ", "b": None}, "empty", "{a}{b} is empty"),
    ],
)
def test_a_row_that_a_template_cannot_be_filled_from_is_refused(row: dict[str, Any], reason: str, message: str) -> None:
    assert refused(row, "{a}{b}") == (reason, message)


@pytest.mark.parametrize(
    "template",
    [
        "{a",
        "a}",
        "{}",
        "{a!r}",
        "{a:>9}",
        "{a:{b}}",
        "{{a}}",
        "{*}",
        "{a.*.b.*}",
        "{a.*:{b.*}}",
        "{a.*:{b:x}}",
        "{a.*!r}",
    ],
)
def test_templates_hold_names_and_no_code(template: str) -> None:
    with pytest.raises(ValidationError, match=r"text\n"):
        Columns(text=template)


def test_a_time_is_no_template() -> None:
    with pytest.raises(ValidationError, match="templates are for text, prompt, completion, system and lang"):
        Columns(text="t", timestamp="{a}")


def test_language_and_script_may_stand_in_two_columns() -> None:
    rows = [("srp", "Latn"), ("srp", "Cyrl"), ("sr", None), ("yor", ""), ("xx", "Latn")]
    columns = {"text": "t", "lang": "{iso}_{script}"}
    found = documents(
        [{"t": f"text {n}", "iso": iso, "script": script} for n, (iso, script) in enumerate(rows)], columns=columns
    )
    assert [row["lang"] for row in found] == ["sr-Latn", "sr", "sr", "yo", None]
    assert found[0]["source_lang"] == "srp_Latn"
    assert found[4]["reject"]["message"].startswith("'xx_Latn' is no known language")


def test_a_list_is_joined_in_a_template_only() -> None:
    with pytest.raises(ValidationError, match=r"several items make one text in a template only; write '{a\.\*\.b}'"):
        Columns(text="a.*.b")


# --- numbers ------------------------------------------------------------------------------------

LONG = 123456789012345678901234567890


@pytest.mark.parametrize(
    ("written", "text"),
    [
        (str(LONG), str(LONG)),
        (str(-LONG), str(-LONG)),
        (str(2**53 + 1), str(2**53 + 1)),
        (str(2**64), str(2**64)),
        (str(-(2**63) - 1), str(-(2**63) - 1)),
        ("9" * 400, "9" * 400),
        ("1.1", "1.1"),
        ("1.5e300", "1.5e+300"),
        ("true", "true"),
        ("null", ""),
    ],
)
def test_numbers_of_json_are_written_as_in_the_file(written: str, text: str, tmp_path: Path) -> None:
    for kind, rows in (("jsonl", '{"text": "x", "n": %s}\n'), ("json", '[{"text": "x", "n": %s}]')):
        path = tmp_path / f"a.{kind}"
        path.write_text(rows % written)
        assert ingested(path, columns={"text": "{text} {n}"})["text"].to_pylist() == [f"x {text}".strip()]
        path.write_text(rows % f'[{{"id": {written}}}]')
        assert ingested(path, columns={"text": "{text} {n.0.id}"})["text"].to_pylist() == [f"x {text}".strip()]


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (LONG, pa.decimal128(38, 0), str(LONG)),
        (Decimal("1.50"), pa.decimal128(10, 2), "1.50"),
        (Decimal("1e9"), pa.decimal256(60, 0), "1000000000"),
        (2**64 - 1, pa.uint64(), str(2**64 - 1)),
        (2**53 + 1, pa.int64(), str(2**53 + 1)),
        (1.1, pa.float32(), "1.1"),
        (0.1, pa.float16(), "0.1"),
        (0.1, pa.float64(), "0.1"),
        (3.0, pa.float32(), "3.0"),
        ([1.1, 0.1], pa.list_(pa.float32()), "1.1 0.1"),
        ([1.1, 0.1], pa.list_(pa.float32(), 2), "1.1 0.1"),
        ([None, 0.1], pa.large_list(pa.float16()), "0.1"),
    ],
)
def test_numbers_of_parquet_are_written_as_in_the_file(
    value: Any, kind: pa.DataType, text: str, tmp_path: Path
) -> None:
    pq.write_table(pa.table({"text": ["x"], "n": pa.array([value], kind)}), tmp_path / "a.parquet")
    columns = {"text": "{text} {n.*: }" if isinstance(value, list) else "{text} {n}"}
    [found] = ingested(tmp_path / "a.parquet", columns=columns)["text"].to_pylist()
    assert found.split() == ["x", *text.split()]


def test_short_floats_inside_objects_are_written_as_in_the_file(tmp_path: Path) -> None:
    kind = pa.struct([("a", pa.float32()), ("b", pa.list_(pa.struct([("c", pa.float32()), ("d", pa.string())])))])
    rows = pa.array([{"a": 1.1, "b": [{"c": 0.1, "d": "x"}, None]}, None], kind)
    pq.write_table(pa.table({"n": rows}), tmp_path / "a.parquet")
    found = ingested(tmp_path / "a.parquet", columns={"text": "{n.a} {n.b.0.c} {n.b.0.d}"})
    assert found["text"].to_pylist() == ["1.1 0.1 x", None]


# --- NaN ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_nan_in_a_column_that_nobody_asked_for_does_not_cost_the_row(value: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "\\ud83d\\ude00 a", "x": {"y": [' + value + ']}}\n{"text": "b"}\n')
    assert ingested(tmp_path / "a.jsonl")["text"].to_pylist() == ["😀 a", "b"]


DATED = {"text": "text", "timestamp": "x"}
ASKED: list[dict[str, Any]] = [
    {"columns": {"text": "x"}},
    {"columns": {"text": "{x}"}},
    {"columns": DATED},
    {"where": {"x": 1}},
]


@pytest.mark.parametrize("given", ASKED, ids=str)
def test_nan_in_a_column_that_is_asked_for_is_a_fault_of_json(given: Any, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a", "x": NaN}\n{"text": "b", "x": -Infinity}\n')
    reasons = [(row["reason"], row["message"]) for row in ingested(tmp_path / "a.jsonl", **given)["reject"].to_pylist()]
    assert reasons == [
        ("broken_json", f"x: found {value}, which JSON does not write; write null or leave it out")
        for value in ("nan", "-inf")
    ]


@pytest.mark.parametrize(
    ("given", "reason", "message"),
    [
        (ASKED[1], "wrong_type", "x: expected text, found nan, which JSON does not write"),
        (
            ASKED[2],
            "bad_timestamp",
            "x: expected ISO 8601, RFC 2822 or Unix time, found nan; leave a time that is not known empty",
        ),
        (
            ASKED[3],
            "wrong_type",
            "x: expected text, a number, a date, true, false or null, found nan, which JSON does not write",
        ),
    ],
)
def test_nan_of_parquet_is_a_fault_where_json_could_not_write_it(
    given: Any, reason: str, message: str, tmp_path: Path
) -> None:
    pq.write_table(pa.table({"text": ["a"], "x": [float("nan")]}), tmp_path / "a.parquet")
    [reject] = ingested(tmp_path / "a.parquet", **given)["reject"].to_pylist()
    assert (reject["reason"], reject["message"]) == (reason, message)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"text": "a", "x": NaN', "broken_json"),
        ('{"text": "NaN", }', "broken_json"),
        ('{"text": "\\ud83d", "x": NaN}', "lone_surrogate"),
        ('{"text": "a", "x": nan}', "broken_json"),
        ("NaN", "not_an_object"),
        ('{"text": "a", "x": %s}' % ("[" * 2000 + "NaN" + "]" * 2000), "broken_json"),
    ],
)
def test_nan_makes_nothing_else_sound(line: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(line + "\n")
    assert [row["reason"] for row in ingested(tmp_path / "a.jsonl")["reject"].to_pylist()] == [reason]


# --- lists --------------------------------------------------------------------------------------

LABELS = "ABCDE"
CHOICES = ["North.", "South.", "East.", "West.", "Nowhere."]
QUIZ = "{question.stem}\n{question.choices.*:{label}. {text}}\nAnswer:"


def question(choices: int, *, side_by_side: bool = False) -> dict[str, Any]:
    items = [{"label": label, "text": text} for label, text in zip(LABELS, CHOICES[:choices], strict=False)]
    lists = {name: [item[name] for item in items] for name in ("label", "text")}
    return {"stem": "Where does the river run?", "choices": lists if side_by_side else items}


@pytest.mark.parametrize("side_by_side", [False, True])
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_questions_with_three_to_five_choices_are_one_template(kind: str, side_by_side: bool, tmp_path: Path) -> None:
    """As EXAMS has them, and as ``datasets`` keeps a list of objects: lists side by side."""
    rows = [
        {"text": "", "question": question(count, side_by_side=side_by_side), "answer": LABELS[count - 1]}
        for count in (3, 4, 5)
    ]
    columns = {"prompt": QUIZ, "completion": "{answer}"}
    found = ingested(write(tmp_path, kind, rows), columns=columns)
    for count, messages in zip((3, 4, 5), found["messages"].to_pylist(), strict=True):
        lines = messages[0]["content"].split("\n")
        assert lines[0] == "Where does the river run?"
        assert lines[1:-1] == [f"{LABELS[number]}. {CHOICES[number]}" for number in range(count)]
        assert lines[-1] == "Answer:"
        assert messages[1]["content"] == LABELS[count - 1]


@pytest.mark.parametrize(
    ("template", "row", "text"),
    [
        ("{a.*}", {"a": ["x", "y"]}, "x\ny"),
        ("{a.*:, }", {"a": ["x", 2, True, None]}, "x, 2, true,"),
        ("{a.b.*.c: | }", {"a": {"b": [{"c": "x"}, {"c": "y"}]}}, "x | y"),
        ("{a.*:- {}}", {"a": ["x", "y"]}, "- x\n- y"),
        ("{a.*:{{{}}}}", {"a": ["x", "y"]}, "{x}\n{y}"),
        ("{a.*.b:{c.d}={e}}", {"a": [{"b": {"c": {"d": 1}, "e": 2}}]}, "1=2"),
        ("{a.*.b:, }", {"a": {"b": ["x", "y"], "c": ["1", "2"], "d": None}}, "x, y"),
        ("{a.b.*:, }", {"a": {"b": ["x", "y"]}}, "x, y"),
        ("z{a.*}", {"a": []}, "z"),
        ("z{a.*}", {"a": None}, "z"),
        ("{a.1} {a.*:, }", {"a": ["x", "y"]}, "y x, y"),
    ],
)
def test_the_items_of_a_list_are_written_one_after_another(template: str, row: dict[str, Any], text: str) -> None:
    assert filled(row, template) == text


@pytest.mark.parametrize(
    ("template", "row", "reason", "message"),
    [
        ("{a.*}", {}, "missing_column", "the row has no a"),
        ("{a.*}", {"a": "x"}, "wrong_type", "a: expected a list, found str"),
        ("{a.*}", {"a": [["x"]]}, "wrong_type", "a.0: expected text, found list"),
        ("{a.*.b}", {"a": [{"b": "x"}, {"c": "y"}]}, "missing_column", "the row has no a.1.b"),
        ("{a.*:{l}. {t}}", {"a": [{"l": "A"}]}, "missing_column", "the row has no a.0.t"),
        ("{a.*}", {"a": [float("nan")]}, "wrong_type", "a.0: expected text, found nan, which JSON does not write"),
        (
            "{a.*.b}",
            {"a": {"b": ["x"], "c": []}},
            "wrong_type",
            "a: expected lists of one length, found b: 1, c: 0",
        ),
        ("{a.*.b}", {"a": {"b": "x"}}, "wrong_type", "a: expected a list, found dict"),
    ],
)
def test_a_list_that_cannot_be_written_is_refused_with_its_place(
    template: str, row: dict[str, Any], reason: str, message: str
) -> None:
    assert refused(row, "z" + template) == (reason, message)


def test_a_column_of_text_is_no_list(tmp_path: Path) -> None:
    path = write(tmp_path, "csv", [{"text": "x", "tags": json.dumps(["a", "b"])}])
    [reject] = ingested(path, columns={"text": "{text} {tags.*}"})["reject"].to_pylist()
    assert (reject["reason"], reject["message"]) == ("wrong_type", "tags: expected a list, found str")
