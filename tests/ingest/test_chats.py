"""Chats are more than role and content: calls, reasoning, weights, tools, and the shapes that files give them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from documents import PINNED, documents, only, said
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from compass_ray import records, storage
from compass_ray.ingest.config import Columns, SourceConfig
from compass_ray.ingest.files import InputFile, ReadUnit
from compass_ray.ingest.near_duplicates import whole_texts
from compass_ray.ingest.shuffle import count_rows, finish_shard
from compass_ray.ingest.stage import read_unit

ASKED = {"role": "user", "content": "Hali ya hewa Nairobi?"}
ARGUMENTS = {"city": "Nairobi", "days": 2}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": json.dumps(ARGUMENTS)}}
CALLING = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RETURNED = {"role": "tool", "content": "24 C", "tool_call_id": "c1", "name": "weather"}
ANSWERED = {"role": "assistant", "content": "Nyuzi 24."}
TOOL_CHAT = [ASKED, CALLING, RETURNED, ANSWERED]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Says how warm it is",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}},
    },
}


def chats(*values: Any, **given: Any) -> list[dict[str, Any]]:
    """Rows of one chat each, as documents."""
    return documents([{"m": value} for value in values], columns={"messages": "m"}, **given)


def chat(value: Any, **given: Any) -> dict[str, Any]:
    [document] = chats(value, **given)
    return document


def refusal(value: Any) -> tuple[str, str]:
    reject = chat(value)["reject"]
    return reject["reason"], reject["message"]


def answer_with(**beside: Any) -> list[dict[str, Any]]:
    return [ASKED, {**ANSWERED, **beside}]


def read_back(path: Path, source: SourceConfig) -> list[dict[str, Any]]:
    """Documents of a file, in the order of its rows."""
    stat = storage.stat(str(path))
    file = InputFile(str(path), path.name, stat.size, stat.version, path.suffix.removeprefix("."), "")
    tables = read_unit(ReadUnit("s", file), {"s": source}, "prompt", 1, frozenset({0}))
    rows: list[dict[str, Any]] = pa.concat_tables(tables).to_pylist()
    return sorted(rows, key=lambda row: row["row"])


MESSAGES = SourceConfig(role="pool", path="x", lang="sw", columns={"messages": "messages"})
WITH_TOOLS = SourceConfig(role="pool", path="x", lang="sw", columns={"messages": "messages", "tools": "tools"})


# --- identity -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "beside",
    [
        {"tool_calls": [CALL]},
        {"tool_calls": [{**CALL, "id": "c2"}]},
        {"tool_calls": [CALL, CALL]},
        {"tool_calls": [{"name": "weather", "arguments": {"city": "Kisumu"}}]},
        {"reasoning_content": "The user asks in Swahili."},
        {"name": "weather_bot"},
        {"tool_call_id": "c1"},
        {"weight": 0},
    ],
    ids=str,
)
def test_what_is_beside_the_content_makes_another_document_of_equal_content_id(beside: dict[str, Any]) -> None:
    plain, more = chats(answer_with(), answer_with(**beside))
    assert more["reject"] is None
    assert plain["doc_id"] != more["doc_id"]
    assert plain["content_id"] == more["content_id"], "the prompt, which is embedded, is the same"


def test_rows_that_differ_in_one_field_only_are_all_kept_and_their_copies_are_not() -> None:
    values = [answer_with(tool_calls=[CALL]), answer_with(weight=0), answer_with(thinking="?"), answer_with(name="a")]
    found = chats(*values, *values)
    table = pa.Table.from_pylist(
        [{name: row[name] for name in records.INGESTED.names} for row in found], schema=records.INGESTED
    )
    outcomes = count_rows(finish_shard(table))["rows"]
    assert outcomes == [["src", "document", 4], ["src", "duplicate", 4]]


def test_a_weight_of_one_is_what_an_answer_without_a_weight_has() -> None:
    plain, weighted, other = chats(answer_with(), answer_with(weight=1), [{**ASKED, "weight": 0}, ANSWERED])
    assert plain["doc_id"] == weighted["doc_id"] == other["doc_id"]


def test_reflowed_reasoning_is_the_same_reasoning() -> None:
    one, other = chats(answer_with(reasoning="a  b\n"), answer_with(reasoning=" a b"))
    assert one["doc_id"] == other["doc_id"]


def test_tools_are_part_of_the_document_and_no_tools_are_none() -> None:
    columns = {"messages": "m", "tools": "t"}
    rows = [{"m": TOOL_CHAT, "t": tools} for tools in ([TOOL], [], None, "", "[]", json.dumps([TOOL]))]
    found = documents(rows, columns=columns)
    assert found[0]["doc_id"] == found[5]["doc_id"]
    assert {row["doc_id"] for row in found[1:5]} == {chat(TOOL_CHAT)["doc_id"]}
    assert found[0]["doc_id"] != found[1]["doc_id"]
    assert [row["tools"] is None for row in found] == [False, True, True, True, True, False]


def test_ids_of_chats_with_calls_stay_what_they_are() -> None:
    assert chat(TOOL_CHAT)["doc_id"].hex() == "58afe266bebd7a47d0f6302148a182fd"
    row = {"m": TOOL_CHAT, "t": [TOOL]}
    assert only([row], columns={"messages": "m", "tools": "t"})["doc_id"].hex() == "84da9753963b989f9f6d808098f2d5e8"


def test_a_chat_that_has_none_of_it_has_the_id_that_it_has_always_had() -> None:
    row, source, doc_id, content_id = PINNED[-1]
    absent = dict.fromkeys(("name", "tool_calls", "tool_call_id", "reasoning_content", "weight", "function_call"))
    filled = [{**absent, **turn} for turn in row["m"]]
    for value in (row["m"], filled, json.dumps(row["m"]), [{**turn, "weight": 1} for turn in filled]):
        columns = {"messages": "m", "tools": "t", "system": "s"}
        document = only([{"m": value, "t": None, "s": None}], **{**source, "columns": columns})
        assert (document["doc_id"].hex(), document["content_id"].hex()) == (doc_id, content_id)


# --- what is kept -------------------------------------------------------------------------------


def test_calls_results_and_who_is_called_are_kept_as_openai_writes_them() -> None:
    kept = said(chat(TOOL_CHAT))
    assert kept == [ASKED, {**CALLING, "content": ""}, RETURNED, ANSWERED]


@pytest.mark.parametrize(
    "call",
    [
        {"function": {"name": "weather", "arguments": ARGUMENTS}},
        {"function": {"name": "weather", "arguments": json.dumps(ARGUMENTS, indent=2)}, "type": None},
        {"name": "weather", "arguments": ARGUMENTS},
        {"name": "weather", "parameters": json.dumps(ARGUMENTS)},
        {"name": "weather", "args": ARGUMENTS, "type": "tool_call"},
    ],
    ids=str,
)
def test_a_call_has_one_form_however_it_is_written(call: dict[str, Any]) -> None:
    wanted = {"type": "function", "function": {"name": "weather", "arguments": json.dumps(ARGUMENTS)}}
    human = {"from": "human", "value": ASKED["content"]}
    for value in (
        [ASKED, {"role": "assistant", "content": "", "tool_calls": [call]}],
        [ASKED, {"role": "assistant", "tool_calls": json.dumps([call])}],
        [ASKED, {"role": "assistant", "content": None, "function_call": call}],
        [human, {"from": "function_call", "value": json.dumps(call)}],
        [human, {"from": "tool_call", "value": json.dumps([call])}],
    ):
        [_, calling] = said(chat(value)) or []
        [found] = calling["tool_calls"]
        assert {name: item for name, item in found.items() if item is not None} == wanted
        assert (calling["role"], calling["content"]) == ("assistant", "")


def test_arguments_keep_their_order_their_numbers_and_in_text_their_nulls() -> None:
    text = '{"z": 1, "a": null, "n": 123456789012345678901234567890, "x": 1.0, "s": "ü"}'
    [_, calling] = chat([ASKED, {"role": "assistant", "tool_calls": [{"name": "f", "arguments": text}]}])["messages"]
    assert calling["tool_calls"][0]["function"]["arguments"] == text


@pytest.mark.parametrize("arguments", [None, "", " ", {}, "{}", {"unit": None}], ids=str)
def test_a_call_without_arguments_has_an_empty_object(arguments: Any) -> None:
    [_, calling] = chat([ASKED, {"role": "assistant", "tool_calls": [{"name": "f", "arguments": arguments}]}])[
        "messages"
    ]
    assert calling["tool_calls"][0]["function"]["arguments"] == "{}"


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
def test_reasoning_is_kept_under_one_name(name: str) -> None:
    [_, answer] = chat(answer_with(**{name: " Step\r\nby step. "}))["messages"]
    assert (answer["reasoning_content"], answer["content"]) == ("Step\nby step.", "Nyuzi 24.")


@pytest.mark.parametrize("name", ["weight", "train", "training", "loss_mask"])
@pytest.mark.parametrize(("value", "kept"), [(0, 0), (False, 0), (0.0, 0), (1, None), (True, None), (None, None)])
def test_a_weight_is_zero_or_none_whatever_it_is_called(name: str, value: Any, kept: int | None) -> None:
    [asked, answer] = chat([{**ASKED, name: value}, {**ANSWERED, name: value}])["messages"]
    assert (asked["weight"], answer["weight"]) == (None, kept), "only answers are trained at all"


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=8,
    )
)
def test_any_arguments_are_json_that_says_the_same_but_for_nulls(value: Any) -> None:
    [_, calling] = chat([ASKED, {"role": "assistant", "tool_calls": [{"name": "f", "arguments": {"a": value}}]}])[
        "messages"
    ]
    assert json.loads(calling["tool_calls"][0]["function"]["arguments"]) == without_nulls({"a": value})


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_nulls(item) for name, item in value.items() if item is not None}
    return [without_nulls(item) for item in value] if isinstance(value, list) else value


def test_tools_have_one_form_however_they_are_written() -> None:
    function = TOOL["function"]
    assert isinstance(function, dict)
    unified = {**function, "strict": None, "parameters": {**function["parameters"], "required": None}}
    forms = [
        [TOOL],
        TOOL,
        json.dumps([TOOL]),
        json.dumps(TOOL),
        [json.dumps(TOOL)],
        [function],
        [{"type": "function", **function}],
        [{"function": unified, "type": "function", "name": None}],
        [{**function, "parameters": json.dumps(function["parameters"])}],
    ]
    found = documents([{"m": TOOL_CHAT, "t": tools} for tools in forms], columns={"messages": "m", "tools": "t"})
    assert {row["tools"] for row in found} == {json.dumps([TOOL])}


# --- null is absent, an empty turn is not always one --------------------------------------------


def test_a_union_of_two_forms_is_read_by_what_is_not_null() -> None:
    empty = dict.fromkeys(("role", "from", "content", "value", "text", "tool_calls", "name", "weight", "reasoning"))
    openai = [{**empty, "role": "user", "content": "Q"}, {**empty, "role": "assistant", "content": "A"}]
    sharegpt = [{**empty, "from": "human", "value": "Q"}, {**empty, "from": "gpt", "value": "A"}]
    blank = [{**turn, "role": "", "content": ""} for turn in sharegpt]
    plain = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A"}]
    found = chats(plain, openai, sharegpt, blank)
    assert len({row["doc_id"] for row in found}) == 1
    assert [row["notes"] for row in found] == [None] * 4


@pytest.mark.parametrize("content", [None, "", " \n", []])
def test_content_may_be_missing_beside_a_call_and_in_what_a_tool_returns(content: Any) -> None:
    value = [ASKED, {**CALLING, "content": content}, {**RETURNED, "content": content}, ANSWERED]
    document = chat(value)
    assert document["reject"] is None
    assert [turn["content"] for turn in document["messages"]] == [ASKED["content"], "", "", ANSWERED["content"]]


@pytest.mark.parametrize("role", ["user", "assistant"])
@pytest.mark.parametrize("content", [None, "", "\x00"])
def test_others_who_say_nothing_make_the_row_empty(role: str, content: Any) -> None:
    reason, message = refusal([ASKED, ANSWERED, {"role": role, "content": content, "reasoning": "?"}])
    assert (reason, message.removeprefix("m: message 2: ")) == ("empty", f"{role} says nothing")


@pytest.mark.parametrize("calls", [None, [], "", "[]", "null", "{}"])
def test_calls_that_are_none_are_no_calls(calls: Any) -> None:
    assert chat(answer_with(tool_calls=calls))["doc_id"] == chat(answer_with())["doc_id"]
    reason, message = refusal([ASKED, {"role": "assistant", "content": None, "tool_calls": calls}])
    assert (reason, message) == ("empty", "m: message 1: assistant says nothing")
    assert refusal([ASKED, {"from": "function_call", "value": calls}])[0] == "empty"


@pytest.mark.parametrize("content", [None, "", " "])
def test_a_system_message_that_says_nothing_is_left_out(content: Any) -> None:
    with_it, without = chats([{"role": "system", "content": content}, ASKED, ANSWERED], [ASKED, ANSWERED])
    assert with_it["doc_id"] == without["doc_id"]


@pytest.mark.parametrize(
    ("value", "prompt", "completion", "full"),
    [
        (
            [ASKED, CALLING],
            "Hali ya hewa Nairobi?",
            'weather({"city": "Nairobi", "days": 2})',
            'Hali ya hewa Nairobi?\nweather({"city": "Nairobi", "days": 2})',
        ),
        (
            TOOL_CHAT,
            'Hali ya hewa Nairobi?\nweather({"city": "Nairobi", "days": 2})\n24 C',
            "Nyuzi 24.",
            'Hali ya hewa Nairobi?\nweather({"city": "Nairobi", "days": 2})\n24 C\nNyuzi 24.',
        ),
        (
            [ASKED, {**CALLING, "content": "Subiri.", "thinking": "?"}, {**RETURNED, "content": ""}],
            "Hali ya hewa Nairobi?",
            'Subiri.\nweather({"city": "Nairobi", "days": 2})',
            'Hali ya hewa Nairobi?\nSubiri.\nweather({"city": "Nairobi", "days": 2})',
        ),
    ],
)
def test_a_call_is_embedded_as_a_line_and_reasoning_is_not(value: Any, prompt: str, completion: str, full: str) -> None:
    assert [chat(value, view=view)["text"] for view in ("prompt", "completion", "full")] == [prompt, completion, full]
    ids = {chat(value, view=view)["doc_id"] for view in ("prompt", "completion", "full")}
    assert len(ids) == 1


def test_the_content_id_is_that_of_the_embedded_text() -> None:
    text = chat(TOOL_CHAT)["text"]
    assert chat(TOOL_CHAT)["content_id"] == only([{"text": text}])["content_id"]


def test_characters_are_those_that_a_reader_sees() -> None:
    value = [{"role": "user", "content": "ab"}, {**CALLING, "reasoning": "long " * 9}, {**RETURNED, "content": "c"}]
    assert chat(value, min_characters=3, max_characters=3)["reject"] is None
    assert chat(value, min_characters=4)["reject"]["message"] == "3 characters, below min_characters = 4"
    assert chat([CALLING], view="full")["reject"]["reason"] == "too_short"


def test_all_that_a_chat_says_is_compared_for_near_copies() -> None:
    value = [ASKED, {**CALLING, "reasoning": "Look it\nup."}, RETURNED, ANSWERED]
    rows = [chat(value), chat([ASKED, ANSWERED]), only([{"text": "plain\ntext"}])]
    table = pa.Table.from_pylist(
        [{name: row[name] for name in records.INGESTED.names} for row in rows], schema=records.INGESTED
    )
    assert whole_texts(table).to_pylist() == [
        'Hali ya hewa Nairobi? Look it up. weather({"city": "Nairobi", "days": 2}) 24 C Nyuzi 24.',
        "Hali ya hewa Nairobi? Nyuzi 24.",
        "plain text",
    ]


# --- shapes -------------------------------------------------------------------------------------


def test_one_chat_is_one_document_in_whatever_shape_it_comes() -> None:
    sharegpt = [
        {"from": "human", "value": ASKED["content"]},
        {"from": "function_call", "value": json.dumps({"id": "c1", "name": "weather", "arguments": ARGUMENTS})},
        {"from": "observation", "value": "24 C", "tool_call_id": "c1", "name": "weather"},
        {"from": "gpt", "value": "Nyuzi 24."},
    ]
    names = ("role", "content", "tool_calls", "tool_call_id", "name")
    lists = {name: [turn.get(name) for turn in TOOL_CHAT] for name in names} | {"weight": None}
    parts = [
        {**turn, "content": turn["content"] and [{"type": "text", "text": turn["content"], "image_url": None}]}
        for turn in TOOL_CHAT
    ]
    shapes = [TOOL_CHAT, [TOOL_CHAT], json.dumps(TOOL_CHAT), sharegpt, json.dumps(sharegpt), lists, parts]
    found = chats(*shapes, json.dumps(lists))
    assert [row["reject"] for row in found] == [None] * len(found)
    assert len({row["doc_id"] for row in found}) == 1


@pytest.mark.parametrize("content", [["a", "b"], [{"text": "a"}, {"type": "input_text", "text": "b"}]])
def test_text_parts_are_joined_by_lines(content: Any) -> None:
    assert chat([{"role": "user", "content": content}, ANSWERED])["text"] == "a\nb"


def test_parquet_and_json_lines_of_the_same_chats_are_the_same_documents(tmp_path: Path) -> None:
    """Parquet fills in all fields of all messages, and of all arguments, with nulls."""
    other = {"id": "c2", "type": "function", "function": {"name": "clock", "arguments": {"zone": "EAT"}}}
    weather = {**CALL, "function": {"name": "weather", "arguments": ARGUMENTS}}
    ticking = {
        "type": "function",
        "function": {"name": "clock", "parameters": {"properties": {"zone": {"type": "string"}}}},
    }
    rows = [
        {"messages": [ASKED, {**CALLING, "tool_calls": [weather]}, RETURNED, ANSWERED], "tools": [TOOL]},
        {"messages": [ASKED, {**CALLING, "tool_calls": [other]}], "tools": [{**ticking}]},
        {"messages": [ASKED, {**ANSWERED, "weight": 0, "reasoning": "?"}], "tools": None},
    ]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    lines, filled = (read_back(tmp_path / f"a.{suffix}", WITH_TOOLS) for suffix in ("jsonl", "parquet"))
    assert [row["reject"] for row in lines] == [None] * 3
    assert [row["messages"] for row in lines] == [row["messages"] for row in filled]
    assert [row["tools"] for row in lines] == [row["tools"] for row in filled]
    assert [row["doc_id"] for row in lines] == [row["doc_id"] for row in filled]


def test_documents_that_are_written_and_read_again_are_the_same_documents(tmp_path: Path) -> None:
    value = [ASKED, {**CALLING, "weight": 0, "thinking": "?"}, RETURNED, ANSWERED]
    source = {"m": value, "t": [TOOL]}
    first = only([source], columns={"messages": "m", "tools": "t"}, lang="sw")
    kept = pa.table(
        {
            "messages": pa.array([first["messages"]], records.MESSAGES),
            "tools": pa.array([first["tools"]], pa.string()),
        }
    )
    pq.write_table(kept, tmp_path / "a.parquet")
    [again] = read_back(tmp_path / "a.parquet", WITH_TOOLS)
    assert (again["doc_id"], again["messages"], again["tools"]) == (
        first["doc_id"],
        first["messages"],
        first["tools"],
    )


# --- system and tools columns -------------------------------------------------------------------


def test_a_system_column_goes_first_beside_messages_and_beside_a_prompt() -> None:
    columns = {"messages": "m", "system": "s"}
    whole = [{"role": "system", "content": "Jibu kwa ufupi."}, ASKED, ANSWERED]
    rows = [{"m": whole[1:], "s": " Jibu  kwa ufupi.\n"}, {"m": whole, "s": "Jibu kwa ufupi."}, {"m": whole, "s": None}]
    found = documents(rows, columns=columns)
    pair = only(
        [{"p": ASKED["content"], "c": ANSWERED["content"], "s": "Jibu kwa ufupi."}],
        columns={"prompt": "p", "completion": "c", "system": "s"},
    )
    assert {row["doc_id"] for row in [*found, pair]} == {chat(whole)["doc_id"]}
    assert pair["text"] == "Jibu kwa ufupi.\nHali ya hewa Nairobi?"


@pytest.mark.parametrize("instruction", [None, "", " \n"])
def test_a_system_column_that_says_nothing_adds_nothing(instruction: Any) -> None:
    rows = [{"p": "Q", "c": "A", "s": instruction}, {"p": "Q", "c": "A", "s": "S"}]
    found = documents(rows, columns={"prompt": "p", "completion": "c", "system": "s"})
    assert [[turn["content"] for turn in row["messages"]] for row in found] == [["Q", "A"], ["S", "Q", "A"]]
    plain = only([{"p": "Q", "c": "A"}], columns={"prompt": "p", "completion": "c"})
    assert found[0]["doc_id"] == plain["doc_id"]


def test_a_system_column_may_be_a_template() -> None:
    columns = {"prompt": "p", "system": "You are {name}."}
    assert only([{"p": "Q", "name": "Amani"}], columns=columns)["text"] == "You are Amani.\nQ"


def test_two_systems_that_differ_are_refused() -> None:
    row = {"m": [{"role": "system", "content": "S"}, ASKED], "s": "T"}
    reject = only([row], columns={"messages": "m", "system": "s"})["reject"]
    assert (reject["reason"], reject["message"]) == (
        "wrong_type",
        "s: m has a system message that says something else",
    )


def test_tools_go_with_prompts_too() -> None:
    row = {"p": "Q", "c": "A", "t": json.dumps([TOOL])}
    assert only([row], columns={"prompt": "p", "completion": "c", "tools": "t"})["tools"] == json.dumps([TOOL])


def test_rows_without_the_columns_that_need_not_be_there_are_counted() -> None:
    rows = [{"m": TOOL_CHAT}, {"m": TOOL_CHAT[:2], "s": None, "t": None}]
    found = documents(rows, columns={"messages": "m", "system": "s", "tools": "t"})
    assert [row["reject"] for row in found] == [None, None]
    assert [row["notes"] for row in found] == [["the row has no s", "the row has no t"], None]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"text": "t", "tools": "x"}, "tools beside text: name messages or prompt in place of text"),
        ({"text": "t", "tools": "x", "system": "s"}, "system and tools beside text"),
        ({"messages": "m", "tools": "{x}"}, "expected one column; templates are for text, prompt, completion, sys"),
        ({"messages": "m", "system": "{x"}, "system\n"),
    ],
)
def test_columns_that_make_no_sense_together_are_refused(columns: dict[str, str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Columns(**columns)


# --- what is refused, and what is told ----------------------------------------------------------


@pytest.mark.parametrize(
    ("turn", "message"),
    [
        ({"role": "boss", "content": "a"}, "the role 'boss' is not known; expected assistant, system, tool or user"),
        (
            {"role": "user", "content": [{"type": "text", "text": "Q"}, {"type": "image_url", "image_url": {}}]},
            "content: only parts of type text are read, found 'image_url'",
        ),
        (
            {"role": "user", "content": [{"type": "input_audio"}]},
            "content: only parts of type text are read, found 'in",
        ),
        ({"role": "user", "content": [{"functionCall": {}}]}, "content: only parts of type text are read, found 'func"),
        ({"role": "user", "content": [7]}, "content: only parts of type text are read, found 'int'"),
        ({"role": "user", "content": {"a": 1}}, "content: expected text, found dict"),
        ({"role": "user", "content": "Q", "images": ["a.png"]}, "images: only text is read"),
        ({**ANSWERED, "weight": 0.5}, "weight: expected 0, 1, true or false, found 0.5"),
        ({**ANSWERED, "train": "yes"}, "train: expected 0, 1, true or false, found 'yes'"),
        ({**ANSWERED, "weight": 0, "train": True}, "weight and train differ; expected one of them"),
        ({**ANSWERED, "reasoning": "a", "thinking": "b"}, "reasoning and thinking differ; expected one of them"),
        ({**ANSWERED, "thinking": True}, "thinking: expected text, found bool"),
        ({**ANSWERED, "name": 3}, "name: expected text, found int"),
        ({**ANSWERED, "tool_calls": ["f"]}, "tool_calls: expected an object, found str"),
        ({**ANSWERED, "tool_calls": [{"id": "1"}]}, "tool_calls: a call names no function"),
        (
            {**ANSWERED, "tool_calls": [{"type": "custom", "custom": {"name": "f"}}]},
            "tool_calls: a call of type 'custom' names no function",
        ),
        (
            {**ANSWERED, "tool_calls": [{"name": "f", "arguments": "city=Nairobi"}]},
            "tool_calls: arguments of f: expected JSON, found 'city=Nairobi'",
        ),
        (
            {**ANSWERED, "tool_calls": [{"name": "f", "arguments": "[1]"}]},
            "tool_calls: arguments of f: expected an object or its JSON, found list",
        ),
        (
            {**ANSWERED, "tool_calls": [{"name": "f", "arguments": '{"a": NaN}'}]},
            "tool_calls: arguments of f: expected JSON, found '{\"a\": NaN}' (NaN is not JSON)",
        ),
        (
            {**ANSWERED, "tool_calls": [{"name": "f", "arguments": {"a": float("nan")}}]},
            "tool_calls: arguments of f: not to be written as JSON",
        ),
        (
            {**ANSWERED, "tool_calls": [{"name": "f", "arguments": {"a": b""}}]},
            "tool_calls: arguments of f: not to be written as JSON",
        ),
        ({**ANSWERED, "tool_calls": [{"name": "f", "id": 7}]}, "tool_calls: the id of a call of f is 7; expected text"),
        ({"from": "function_call", "value": "f()"}, "tool_calls: expected JSON, found 'f()'"),
    ],
    ids=str,
)
def test_what_cannot_be_carried_through_is_refused_by_name(turn: dict[str, Any], message: str) -> None:
    reason, told = refusal([ASKED, turn])
    assert reason == "wrong_type"
    assert told.startswith(f"m: message 1: {message}")


@pytest.mark.parametrize(
    ("tools", "message"),
    [
        ("weather", "tools: expected JSON, found 'weather'"),
        ([{"type": "code_interpreter"}], "tools: tool 0 names no function; found type"),
        ([TOOL, 7], "tools: tool 1 names no function; found int"),
        (3, "tools: tool 0 names no function; found int"),
    ],
)
def test_tools_that_are_none_are_refused(tools: Any, message: str) -> None:
    reject = only([{"m": TOOL_CHAT, "t": tools}], columns={"messages": "m", "tools": "t"})["reject"]
    assert reject["reason"] == "wrong_type"
    assert reject["message"].startswith(message)


def test_lists_of_different_length_are_no_chat() -> None:
    reason, message = refusal({"role": ["user", "assistant"], "content": ["a"]})
    assert (reason, message) == (
        "wrong_type",
        "m: expected lists of one length, a value for each message; found 2 of role, 1 of content",
    )


@pytest.mark.parametrize(
    "value",
    [
        json.dumps([{"role": "user", "content": "\ud800"}]),
        [ASKED, {**ANSWERED, "tool_calls": [{"name": "f", "arguments": '{"a": "\\ud800"}'}]}],
    ],
)
def test_half_a_pair_inside_json_text_costs_its_row_alone(value: Any) -> None:
    broken, sound = chats(value, TOOL_CHAT)
    assert broken["reject"]["reason"] == "lone_surrogate"
    assert sound["reject"] is None


def test_json_nested_without_end_costs_its_row_alone() -> None:
    depth = 100_000
    endless = '{"a":' * depth + "{}" + "}" * depth
    calling = [ASKED, {**ANSWERED, "tool_calls": [{"name": "f", "arguments": endless}]}]
    found = chats(calling, endless, TOOL_CHAT)
    assert [row["reject"] and row["reject"]["reason"] for row in found] == ["wrong_type", "wrong_type", None]


def test_an_object_as_deep_as_a_reader_gives_costs_its_row_alone() -> None:
    deep: dict[str, Any] = {}
    for _ in range(1020):
        deep = {"a": deep}
    found = chats([ASKED, {**ANSWERED, "tool_calls": [{"name": "f", "arguments": deep}]}], TOOL_CHAT)
    assert found[0]["reject"]["message"] == "m: message 1: tool_calls: arguments of f: nested too deeply"
    assert found[1]["reject"] is None


def test_fields_of_messages_that_are_not_read_are_counted_by_name() -> None:
    value = [{**ASKED, "ts": 3, "thoughts": "?", "tags": [], "x": None}, {**ANSWERED, "ts": 4}]
    call = {**CALL, "index": 0, "function": {**CALL["function"], "strict": True}}
    found = chats(value, [ASKED, {**CALLING, "tool_calls": [call]}], [ASKED, ANSWERED])
    assert [row["notes"] for row in found] == [
        ["a message has thoughts, which is not read", "a message has ts, which is not read"],
        [
            "a message has tool_calls.function.strict, which is not read",
            "a message has tool_calls.index, which is not read",
        ],
        None,
    ]
    table = pa.Table.from_pylist(
        [{name: row[name] for name in records.INGESTED.names} for row in [*found, chat(value, lang="fr")]],
        schema=records.INGESTED,
    )
    assert count_rows(table)["notes"] == [
        ["src", "a message has thoughts, which is not read", 2],
        ["src", "a message has tool_calls.function.strict, which is not read", 1],
        ["src", "a message has tool_calls.index, which is not read", 1],
        ["src", "a message has ts, which is not read", 2],
    ]


def test_fields_without_end_are_not_all_told() -> None:
    value = [{**ASKED, **{f"field {number}" * 20: 1 for number in range(1000)}}, ANSWERED]
    notes = chat(value)["notes"]
    assert len(notes) == 20
    assert max(map(len, notes)) < 100


def test_of_two_contents_the_first_is_read_and_the_other_told() -> None:
    document = chat([{**ASKED, "text": "other"}, {**ANSWERED, "value": ANSWERED["content"]}])
    assert document["text"] == ASKED["content"]
    assert document["notes"] == ["a message has text, which is not read"]
