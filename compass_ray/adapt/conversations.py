"""Conversations as chat templates take them, and what of one a template leaves out.

Documents keep arguments of calls and definitions of tools as JSON text; templates take objects. What a message does not
have it must not have as null either: templates ask whether a field is there.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NamedTuple

Messages = Sequence[Mapping[str, Any]]

_REASONING = ("reasoning_content", "reasoning", "thinking")
"""What templates call the reasoning behind an answer; each reads the one it knows."""


class TemplateMismatch(ValueError):
    """A conversation whose assistant tokens cannot be told from the others; says why. The caller counts and drops."""

    reason = "template_mismatch"


class CallsNotInTemplate(TemplateMismatch):
    """A conversation whose calls of tools the chat template leaves out: what is left of it is no conversation."""

    reason = "tool_calls_not_in_template"


class TurnRewritten(TemplateMismatch):
    """A conversation of which the chat template renders a turn otherwise once others follow it."""

    reason = "template_rewrites_turns"


@dataclass(frozen=True)
class Conversation:
    """Messages and tools in the form that templates take."""

    messages: list[dict[str, Any]]
    tools: list[dict[str, Any]] | None = None
    trained: tuple[int, ...] = ()  # numbers of the assistant's messages that are trained
    untrained: tuple[int, ...] = ()  # and of those that are not

    def until(self, number: int) -> Conversation:
        """Keep the first messages."""
        return replace(self, messages=self.messages[:number])


def conversation(tokenizer: Any, messages: Messages, tools: str | None = None) -> Conversation:
    """Bring a document's conversation into the form that the tokenizer's template takes.

    Parameters
    ----------
    messages
        As ``records.MESSAGES`` holds them; fields other than role and content may be missing.
    tools : str, optional
        JSON of a list of tools.
    """
    form = _form_of(tokenizer) if any(message.get("tool_calls") for message in messages) else _FORMS[0]
    answers = [number for number, message in enumerate(messages) if message["role"] == "assistant"]
    return Conversation(
        [_message(message, form) for message in messages],
        None if tools is None else json.loads(tools),
        tuple(number for number in answers if messages[number].get("weight") != 0),
        tuple(number for number in answers if messages[number].get("weight") == 0),
    )


def texts_of(value: Any) -> Iterator[str]:
    """Yield all texts inside plain JSON, names of fields too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        for name, item in value.items():
            yield name
            yield from texts_of(item)
    elif isinstance(value, list):
        for item in value:
            yield from texts_of(item)


def render(tokenizer: Any, talk: Conversation, *, prompt: bool = False) -> str:
    """Render a conversation in the chat template; with the header of the assistant's next turn if ``prompt``.

    Raises
    ------
    TemplateMismatch
        If the template refuses it, or joins text with something else.
    """
    from jinja2 import TemplateError

    try:
        rendered: str = tokenizer.apply_chat_template(
            talk.messages, tools=talk.tools, tokenize=False, add_generation_prompt=prompt
        )
    except (TemplateError, TypeError) as exc:
        raise TemplateMismatch(f"the chat template refuses the conversation: {exc}") from exc
    return rendered


def left_out(tokenizer: Any, talk: Conversation, text: str) -> tuple[str, ...]:
    """Name what the chat template leaves out of a conversation: ``reasoning``, ``content beside calls``, ``tools``.

    All but tools are looked for by rendering the conversation with marks in their place, and in place of names of
    called functions; tools by rendering it without them. Cost: up to two renderings, none of a plain conversation.

    Parameters
    ----------
    text : str
        The conversation as rendered.

    Raises
    ------
    CallsNotInTemplate
        If a call is left out.
    """
    lost = []
    marked, marks = _marked(talk)
    if marks:
        rendered = render(tokenizer, marked)
        missing = {kind for mark, kind in marks.items() if mark not in rendered}
        if "calls" in missing:
            raise CallsNotInTemplate("the chat template leaves out calls of tools")
        lost += sorted(missing)
    if talk.tools is not None and _is_rendered_as(text, tokenizer, replace(talk, tools=None)):
        lost.append("tools")
    return tuple(lost)


def _is_rendered_as(text: str, tokenizer: Any, talk: Conversation) -> bool:
    try:
        return render(tokenizer, talk) == text
    except TemplateMismatch:
        return False


class _Form(NamedTuple):
    """How a template takes a message that calls: with or without empty content, arguments as JSON text or as object."""

    with_content: bool
    as_text: bool


_FORMS = (_Form(True, False), _Form(True, True), _Form(False, False), _Form(False, True))
"""The usual form, and those for templates that join arguments to text, or ask whether there is content or a call."""


@lru_cache(maxsize=4)
def _form_of(tokenizer: Any) -> _Form:
    """Find the first form in which the tokenizer's template renders a call."""
    function = {"name": "compasscall", "arguments": json.dumps({"of": "compassvalue"})}
    call = {"id": "123456789", "type": "function", "function": function}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
    ]
    for form in _FORMS:
        try:
            rendered = render(tokenizer, Conversation([_message(message, form) for message in messages]))
        except TemplateMismatch:
            continue
        if "compasscall" in rendered and "compassvalue" in rendered:
            return form
    return _FORMS[0]


def _message(message: Mapping[str, Any], form: _Form) -> dict[str, Any]:
    calls = message.get("tool_calls")
    made: dict[str, Any] = {"role": message["role"]}
    if (content := message.get("content") or "") or not calls or form.with_content:
        made["content"] = content
    made |= {name: message[name] for name in ("name", "tool_call_id") if message.get(name) is not None}
    if (reasoning := message.get(_REASONING[0])) is not None:
        made |= dict.fromkeys(_REASONING, reasoning)
    if calls:
        made["tool_calls"] = [_call(call, form) for call in calls]
    return made


def _call(call: Mapping[str, Any], form: _Form) -> dict[str, Any]:
    arguments = call["function"]["arguments"]
    function = {
        "name": call["function"]["name"],
        "arguments": arguments if form.as_text else json.loads(arguments),
    }
    named = {} if call["id"] is None else {"id": call["id"]}
    return {**named, "type": call["type"], "function": function}


def _marked(talk: Conversation) -> tuple[Conversation, dict[str, str]]:
    """Put a mark in place of each call and reasoning. Returns the conversation, and of which kind each mark is."""
    marks: dict[str, str] = {}

    def mark(kind: str) -> str:
        made = f"compass{len(marks)}mark"
        marks[made] = kind
        return made

    messages = []
    for message in talk.messages:
        changed = dict(message)
        if _REASONING[0] in message:
            changed |= dict.fromkeys(_REASONING, mark("reasoning"))
        if "tool_calls" in message:
            if message.get("content"):
                changed["content"] = mark("content beside calls")
            changed["tool_calls"] = [
                {**call, "function": {**call["function"], "name": mark("calls")}} for call in message["tool_calls"]
            ]
        messages.append(changed)
    return replace(talk, messages=messages), marks
