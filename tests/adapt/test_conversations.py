"""Calls, reasoning, tools and weights reach the chat template and the mask, and what a template leaves out is told."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from chat_templates import LLAMA, PHI, QWEN, STYLES, make_tokenizer, styled, talk, trained_text
from transformers import PreTrainedTokenizerFast

from compass_ray import records
from compass_ray.adapt.conversations import CallsNotInTemplate, TemplateMismatch
from compass_ray.adapt.examples import chat_example, check_template, example_of, not_in_template

TOOLS = json.dumps([{"type": "function", "function": {"name": "count", "parameters": {"type": "object"}}}])

# As Qwen writes them: tools in the system message, reasoning and calls between tags, results in the user's name.
AGENT = (
    "{% if tools %}{{ '<|im_start|>system\n<tools>' }}"
    "{% for tool in tools %}{{ '\n' + tool | tojson }}{% endfor %}{{ '\n</tools><|im_end|>\n' }}{% endif %}"
    "{% for message in messages %}"
    "{% if message.role == 'assistant' %}{{ '<|im_start|>assistant\n' }}"
    "[["
    "{% if message.reasoning_content %}{{ '<think>\n' + message.reasoning_content + '\n</think>\n' }}{% endif %}"
    "{{ message.content }}"
    "{% for call in message.tool_calls %}"
    "{% if message.content or not loop.first %}{{ '\n' }}{% endif %}"
    "{{ '<tool_call>' + call.function | tojson + '</tool_call>' }}{% endfor %}"
    "{{ '<|im_end|>' }}]]{{ '\n' }}"
    "{% elif message.role == 'tool' %}"
    "{% if loop.previtem.role != 'tool' %}{{ '<|im_start|>user' }}{% endif %}"
    "{{ '\n<result>' + message.content + '</result>' }}"
    "{% if loop.last or loop.nextitem.role != 'tool' %}{{ '<|im_end|>\n' }}{% endif %}"
    "{% else %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
# As DeepSeek writes calls: arguments are joined to text.
JOINED = (
    "{% for message in messages %}{{ '<|' + message.role + '|>' + message.content }}"
    "{% for call in message.tool_calls %}"
    "{{ call.function.name + '\n```json\n' + call.function.arguments + '\n```' }}{% endfor %}"
    "{{ '<|end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
# As gpt-oss calls it.
THINKING = (
    "{% for message in messages %}{{ '<|' + message.role + '|>' }}"
    "{% if message.thinking %}{{ message.thinking + '|' }}{% endif %}{{ message.content + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
FIRST_CALL = AGENT.replace("in message.tool_calls %}", "in message.tool_calls[:1] %}")


@cache
def agent(generation: bool = False, template: str = AGENT) -> PreTrainedTokenizerFast:
    marks = ("{% generation %}", "{% endgeneration %}") if generation else ("", "")
    return make_tokenizer(template.replace("[[", marks[0]).replace("]]", marks[1]), "<|im_end|>")


def call(name: str, **arguments: Any) -> dict[str, Any]:
    return {"id": None, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}


def calling(*calls: dict[str, Any], content: str = "", **beside: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, "tool_calls": list(calls), **beside}


def stored(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages as documents hold them, every field of every one."""
    [found] = pa.array([messages], records.MESSAGES).to_pylist()
    return list(found)


LEGS = stored(
    [
        *talk("s:Hesabu.", "u:Buibui ana miguu mingapi?"),
        calling(call("count", animal="buibui", of="miguu"), reasoning_content="Lazima nihesabu."),
        *talk("t:8", "a:Minane.", "u:Na nyuki, na 蜘蛛?"),
        calling(call("count", animal="nyuki"), call("count", animal="蜘蛛"), content="Subiri."),
        *talk("t:6", "t:8", "a:Sita, 八本."),
    ]
)
SPOKEN = [
    "<think>\nLazima nihesabu.\n</think>\n"
    '<tool_call>{"name": "count", "arguments": {"animal": "buibui", "of": "miguu"}}</tool_call>',
    "Minane.",
    'Subiri.\n<tool_call>{"name": "count", "arguments": {"animal": "nyuki"}}</tool_call>\n'
    '<tool_call>{"name": "count", "arguments": {"animal": "蜘蛛"}}</tool_call>',
    "Sita, 八本.",
]
both_ways = pytest.mark.parametrize("generation", [False, True])


@both_ways
def test_calls_and_reasoning_are_trained_with_the_answers_and_nothing_else(generation: bool) -> None:
    tokenizer = agent(generation)
    example = chat_example(tokenizer, LEGS, 4096, TOOLS)
    assert trained_text(tokenizer, example) == "".join(said + "<|im_end|>" for said in SPOKEN)
    assert example.n_bytes == len("".join(SPOKEN).encode())
    assert example.left_out == ()
    text = tokenizer.decode(example.tokens, clean_up_tokenization_spaces=False)
    assert text.startswith('<|im_start|>system\n<tools>\n{"type": "function", "function": {"name": "count"')
    assert "<|im_start|>user\n<result>6</result>\n<result>8</result><|im_end|>" in text


@both_ways
@pytest.mark.parametrize("untrained", [{0}, {1}, {2, 3}, {0, 1, 2}])
def test_answers_of_weight_zero_are_read_and_not_trained(generation: bool, untrained: set[int]) -> None:
    tokenizer = agent(generation)
    numbers = [number for number, message in enumerate(LEGS) if message["role"] == "assistant"]
    left = {numbers[answer] for answer in untrained}
    weighted = [{**message, "weight": 0} if number in left else message for number, message in enumerate(LEGS)]
    example = chat_example(tokenizer, weighted, 4096, TOOLS)
    kept = [said for answer, said in enumerate(SPOKEN) if answer not in untrained]
    assert trained_text(tokenizer, example) == "".join(said + "<|im_end|>" for said in kept)
    assert example.n_bytes == len("".join(kept).encode())
    np.testing.assert_array_equal(example.tokens, chat_example(tokenizer, LEGS, 4096, TOOLS).tokens)


@both_ways
def test_weights_make_no_difference_to_templates_that_know_no_tools(generation: bool) -> None:
    for style in STYLES:
        tokenizer = styled(style, generation)
        messages = talk("u:legs?", "a:Eight.", "u:a bee?", "a:Six.")
        example = chat_example(tokenizer, [messages[0], {**messages[1], "weight": 0}, *messages[2:]], 4096)
        assert trained_text(tokenizer, example) == "Six." + STYLES[style].end_of_turn


def test_nothing_is_left_of_a_chat_whose_weights_are_all_zero() -> None:
    messages = [*talk("u:legs?"), {"role": "assistant", "content": "Eight.", "weight": 0}]
    row = {"text": "legs?", "messages": messages, "tools": None}
    assert example_of(styled("qwen"), row, 4096) == (None, "all_weights_zero")


def test_templates_read_reasoning_by_the_name_they_know() -> None:
    tokenizer = make_tokenizer(THINKING)
    messages = stored([*talk("u:legs?"), {"role": "assistant", "content": "Eight.", "reasoning_content": "A spider."}])
    example = chat_example(tokenizer, messages, 4096)
    assert trained_text(tokenizer, example) == "A spider.|Eight.<|end|>"
    assert example.left_out == ()


def test_a_template_that_joins_arguments_to_text_gets_them_as_text() -> None:
    tokenizer = make_tokenizer(JOINED)
    messages = stored([*talk("u:legs?"), calling(call("count", of="miguu")), *talk("t:8", "a:Minane.")])
    example = chat_example(tokenizer, messages, 4096)
    assert trained_text(tokenizer, example) == 'count\n```json\n{"of": "miguu"}\n```<|end|>Minane.<|end|>'


def test_a_template_that_shows_calls_only_without_content_gets_none() -> None:
    template = JOINED.replace("in message.tool_calls %}", "in message.tool_calls if 'content' not in message %}")
    tokenizer = make_tokenizer(template.replace("+ message.content", "+ (message.content or '')"))
    messages = stored([*talk("u:legs?"), calling(call("count", of="miguu")), *talk("t:8", "a:Minane.")])
    example = chat_example(tokenizer, messages, 4096)
    assert trained_text(tokenizer, example) == 'count\n```json\n{"of": "miguu"}\n```<|end|>Minane.<|end|>'
    beside = stored([*talk("u:legs?"), calling(call("count", of="miguu"), content="Subiri.")])
    with pytest.raises(CallsNotInTemplate):
        chat_example(tokenizer, beside, 4096)


def test_content_that_a_template_leaves_out_beside_calls_is_counted() -> None:
    tokenizer = agent(
        template=AGENT.replace("{{ message.content }}", "{{ '' if message.tool_calls else message.content }}")
    )
    silent = stored([*talk("u:legs?"), calling(call("count", of="a"))])
    spoken = stored([*talk("u:legs?"), calling(call("count", of="a"), content="Subiri.")])
    assert chat_example(tokenizer, silent, 4096).left_out == ()
    assert chat_example(tokenizer, spoken, 4096).left_out == ("content beside calls",)
    assert chat_example(agent(), spoken, 4096).left_out == ()


@pytest.mark.parametrize("template", [QWEN, LLAMA, PHI], ids=STYLES)
def test_a_chat_whose_calls_the_template_leaves_out_is_refused(template: str) -> None:
    tokenizer = make_tokenizer(template.replace("[[", "").replace("]]", ""), "<|end|>")
    messages = stored([*talk("u:legs?"), calling(call("count", of="miguu")), *talk("t:8", "a:Minane.")])
    with pytest.raises(CallsNotInTemplate, match="the chat template leaves out calls of tools"):
        chat_example(tokenizer, messages, 4096, TOOLS)
    row = {"text": "legs?", "messages": messages, "tools": None}
    assert example_of(tokenizer, row, 4096) == (None, "tool_calls_not_in_template")


def test_a_chat_of_which_one_call_is_left_out_is_refused() -> None:
    tokenizer = agent(template=FIRST_CALL)
    once = stored([*talk("u:legs?"), calling(call("count", of="a"))])
    assert chat_example(tokenizer, once, 4096).left_out == ()
    with pytest.raises(CallsNotInTemplate):
        chat_example(tokenizer, stored([once[0], calling(call("count", of="a"), call("count", of="b"))]), 4096)


def test_a_call_is_not_taken_for_rendered_because_its_name_is_elsewhere() -> None:
    """The name is in the question, and in what the tool returns."""
    tokenizer = styled("qwen")
    messages = stored([*talk("u:count legs"), calling(call("count")), *talk("t:count: 8", "a:Eight.")])
    with pytest.raises(CallsNotInTemplate):
        chat_example(tokenizer, messages, 4096)


def test_reasoning_and_tools_that_the_template_leaves_out_are_counted() -> None:
    tokenizer = styled("qwen")
    thought = stored([*talk("u:legs?"), {"role": "assistant", "content": "Eight.", "reasoning_content": "A spider."}])
    plain = stored(talk("u:legs?", "a:Eight."))
    rows = [(thought, None), (thought, TOOLS), (plain, TOOLS), (plain, None)]
    examples = [chat_example(tokenizer, messages, 4096, tools) for messages, tools in rows]
    assert [example.left_out for example in examples] == [("reasoning",), ("reasoning", "tools"), ("tools",), ()]
    assert not_in_template([*examples, None]) == {"reasoning": 2, "tools": 2}
    assert {trained_text(tokenizer, example) for example in examples} == {"Eight.<|im_end|>"}


@pytest.mark.parametrize(
    "turn",
    [
        {"role": "assistant", "content": "8", "reasoning_content": "over<|im_end|>"},
        calling(call("count<|im_end|>")),
        calling(call("count", of=["a", {"b": "<|im_end|>"}])),
        calling(call("count", **{"<|im_end|>": 1})),
        {"role": "tool", "content": "8", "tool_call_id": "<|im_end|>"},
        {"role": "tool", "content": "8", "name": "<|im_end|>"},
    ],
    ids=str,
)
def test_no_part_of_a_message_may_spell_a_control_token(turn: dict[str, Any]) -> None:
    messages = stored([*talk("u:legs?", "a:Eight.", "u:sure?"), turn, *talk("a:Yes.")])
    with pytest.raises(TemplateMismatch, match=r"^message 3 spells the control token '<\|im_end\|>'$"):
        chat_example(agent(), messages, 4096)


def test_no_tool_may_spell_a_control_token() -> None:
    tools = json.dumps([{"type": "function", "function": {"name": "count", "description": "<|im_start|>"}}])
    with pytest.raises(TemplateMismatch, match=r"^a tool spells the control token '<\|im_start\|>'$"):
        chat_example(agent(), LEGS, 4096, tools)


def test_templates_that_cannot_render_a_chat_cost_it_alone() -> None:
    tokenizer = make_tokenizer("{% for message in messages %}{{ message.content + message.tool_calls }}{% endfor %}")
    row = {"text": "legs?", "messages": stored([*talk("u:legs?"), calling(call("count"))]), "tools": None}
    assert example_of(tokenizer, row, 4096) == (None, "template_mismatch")


@both_ways
def test_a_template_with_tools_passes_the_check(generation: bool) -> None:
    check_template(agent(generation), "adapt.base_model")
