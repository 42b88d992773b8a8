"""One conversation -> its messages: from OpenAI's form, ShareGPT's and their kin, whatever a file has made of them.

A message is a role and what is said. All else that training or a chat template asks for is kept beside it, under one
name each. Null and empty are read as absent: where files unify the fields of all rows, every message has all of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from compass_ray.ingest.cleaning import normalize
from compass_ray.ingest.readers.batch import MISSING, Refused
from compass_ray.ingest.tools import call_line, calls_of, is_absent, parsed
from compass_ray.values import side_by_side

_ROLES = {role: role for role in ("system", "user", "assistant", "tool")} | {
    "developer": "system",
    "human": "user",
    "prompter": "user",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "function": "tool",
    "observation": "tool",
    "tool_response": "tool",
    "ipython": "tool",
}
"""Roles as OpenAI, ShareGPT and their kin call them."""

_CALL_ROLES = ("function_call", "tool_call")
"""Roles of an assistant whose content is the JSON of its calls."""

_ROLE_NAMES = "assistant, system, tool or user"
_ROLE = ("role", "from")
_CONTENT = ("content", "value", "text")
_REASONING = ("reasoning_content", "reasoning", "thinking")
_CALLS = ("tool_calls", "function_call")
_WEIGHT = ("weight", "train", "training", "loss_mask")
_MEDIA = ("audio", "audios", "image", "images", "video", "videos")
_TEXT_PARTS = (None, "text", "input_text", "output_text")
_KNOWN = frozenset((*_ROLE, *_CONTENT, *_REASONING, *_CALLS, *_WEIGHT, "name", "tool_call_id"))


class Turn(NamedTuple):
    """One message.

    Attributes
    ----------
    beside : dict, optional
        Those of ``name``, ``tool_call_id``, ``reasoning_content``, ``tool_calls`` and ``weight`` that it has, as
        ``records.MESSAGES`` holds them.
    unread : tuple of str
        Fields that say something and are left out.
    """

    role: str
    content: str
    beside: dict[str, Any] | None = None
    unread: tuple[str, ...] = ()


def turns_of(value: Any, column: str) -> list[Turn]:
    """Read the messages of one row; a system message that says nothing is left out.

    Parameters
    ----------
    value
        A list of messages, its JSON text, an object of equally long lists, or a list that holds one conversation.
    column : str
        For messages of rejects.

    Raises
    ------
    Refused
    """
    turns = []
    for number, message in enumerate(_messages(value, column)):
        try:
            turn = _plain_turn(message) or _turn(message)
        except Refused as refused:
            raise Refused(refused.reason, f"{column}: message {number}: {refused.message}") from refused
        if turn[0] != "system" or turn[1].strip():
            turns.append(turn)
    return turns


def whole_text(content: str, beside: Mapping[str, Any]) -> str:
    """Join all that a message says: reasoning, content and calls. Each is on lines of its own."""
    return shown_text("\n".join(filter(None, (beside.get("reasoning_content"), content))), beside)


def shown_text(content: str, beside: Mapping[str, Any]) -> str:
    """Join the content of a message and a line for each call. This is what is embedded of it."""
    return "\n".join(filter(None, (content, *(call_line(call) for call in beside.get("tool_calls") or ()))))


def _messages(value: Any, column: str) -> list[Any]:
    if value is MISSING:
        raise Refused("missing_column", f"the row has no {column}")
    if isinstance(value, str):
        value = parsed(value, column, "a list of messages or its JSON")
    if isinstance(value, dict) and any(isinstance(value.get(name), list) for name in _ROLE):
        value = _transposed(value, column)
    if isinstance(value, list) and len(value) == 1 and isinstance(value[0], list):
        value = value[0]  # a list of conversations that holds one
    if not isinstance(value, list) or not value:
        raise Refused("wrong_type", f"{column}: expected a list of messages, found {_kind(value)}")
    return value


def _transposed(fields: Mapping[str, Any], column: str) -> list[dict[str, Any]]:
    """Turn an object of lists into messages. ``datasets`` stores a list of objects so."""
    lists = {name: values for name, values in fields.items() if values is not None}
    wrong = [name for name, values in lists.items() if not isinstance(values, list)]
    lengths = {name: len(values) for name, values in lists.items() if name not in wrong}
    if wrong or len(set(lengths.values())) > 1:
        found = ", ".join(f"{length} of {name}" for name, length in lengths.items())
        found += "".join(f", no list of {name}" for name in wrong)
        raise Refused("wrong_type", f"{column}: expected lists of one length, a value for each message; found {found}")
    return side_by_side(lists)


def _plain_turn(message: Any) -> Turn | None:
    """Read a message of role and content alone, as nearly all are. A short cut of :func:`_turn`."""
    if type(message) is not dict:
        return None
    given = message if len(message) == 2 else {name: item for name, item in message.items() if item is not None}
    if len(given) != 2:
        return None
    role, content = given.get("role", given.get("from")), given.get("content", given.get("value"))
    known = _ROLES.get(role) if type(role) is str else None
    return Turn(known, content) if known is not None and type(content) is str else None


def _turn(message: Any) -> Turn:
    if not isinstance(message, dict):
        raise Refused("wrong_type", f"expected an object with a role, found {_kind(message)}")
    if media := [name for name in _MEDIA if not is_absent(message.get(name))]:
        raise Refused("wrong_type", f"{media[0]}: only text is read")
    unread = [str(name) for name, item in message.items() if name not in _KNOWN and not is_absent(item)]
    _, found = _first(message, _ROLE, unread)
    content_field, content = _first(message, _CONTENT, unread)
    role = _role(message, found)
    beside = _beside(message, unread)
    if role in _CALL_ROLES:
        role, calls, content = "assistant", calls_of(content, unread), None
        if calls:
            beside["tool_calls"] = [*calls, *beside.get("tool_calls", ())]
    text = "" if content is None else _said(content, content_field)
    if role != "assistant":
        beside.pop("weight", None)  # only answers are trained, whatever it is
    if content is None and role not in ("system", "tool") and "tool_calls" not in beside:
        raise _speechless(message, role)
    return Turn(role, text, beside or None, tuple(unread))


def _first(message: Mapping[str, Any], names: tuple[str, ...], unread: list[str]) -> tuple[str, Any]:
    """Find the first of some fields that says something. Others that do are unread unless they say the same."""
    given = [(name, message[name]) for name in names if not is_absent(message.get(name))]
    unread += [name for name, value in given[1:] if value != given[0][1]]
    return given[0] if given else (names[0], None)


def _role(message: Mapping[str, Any], found: Any) -> str:
    if found is None:
        fields = ", ".join(map(str, message)) or "no field"
        raise Refused("wrong_type", f"has no role ({' or '.join(_ROLE)}), only {fields:.100}")
    role = found.strip().lower() if isinstance(found, str) else ""
    if role in _CALL_ROLES:
        return role
    if role not in _ROLES:
        raise Refused("wrong_type", f"the role {found!r:.60} is not known; expected {_ROLE_NAMES}")
    return _ROLES[role]


def _speechless(message: Mapping[str, Any], role: str) -> Refused:
    """Make the reject of a message without content. One whose content has another name is told apart."""
    if any(name in message for name in _CONTENT):
        return Refused("empty", f"{role} says nothing")
    fields = ", ".join(map(str, message))
    return Refused("missing_column", f"has no content ({', '.join(_CONTENT)}), only {fields:.100}")


def _said(content: Any, field: str) -> str:
    if isinstance(content, list):
        return "\n".join(_part(part, field) for part in content)
    if not isinstance(content, str):
        raise Refused("wrong_type", f"{field}: expected text, found {_kind(content)}")
    return content


def _part(part: Any, field: str) -> str:
    if isinstance(part, str):
        return part
    given = part if isinstance(part, dict) else {}
    text = given.get("text")
    if given.get("type") in _TEXT_PARTS and isinstance(text, str):
        return text
    if given.get("type") in _TEXT_PARTS[1:]:
        raise Refused("wrong_type", f"{field}: a part of type {given['type']} has no text")
    found = given.get("type") or ", ".join(map(str, given)) or _kind(part)
    raise Refused("wrong_type", f"{field}: only parts of type text are read, found {found!r:.60}")


def _beside(message: Mapping[str, Any], unread: list[str]) -> dict[str, Any]:
    found = {
        "name": _one(message, ("name",), _plain),
        "tool_call_id": _one(message, ("tool_call_id",), _plain),
        "reasoning_content": _one(message, _REASONING, lambda value, name: normalize(_said(value, name))),
        "tool_calls": _one(message, _CALLS, lambda value, _: calls_of(value, unread)),
        "weight": _one(message, _WEIGHT, _weight),
    }
    if found["weight"] == 1:  # what every answer has that says nothing about it
        del found["weight"]
    return {name: value for name, value in found.items() if not is_absent(value)}


def _one(message: Mapping[str, Any], names: tuple[str, ...], read: Callable[[Any, str], Any]) -> Any:
    """Read what the fields of one meaning say. None if they say nothing."""
    said = {name: read(message[name], name) for name in names if not is_absent(message.get(name))}
    values: Iterator[Any] = iter(said.values())
    first = next(values, None)
    if any(value != first for value in values):
        raise Refused("wrong_type", f"{' and '.join(said)} differ; expected one of them")
    return first


def _plain(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise Refused("wrong_type", f"{name}: expected text, found {_kind(value)}")
    return value


def _weight(value: Any, name: str) -> int:
    if isinstance(value, bool | int | float) and value in (0, 1):
        return int(value)
    raise Refused("wrong_type", f"{name}: expected 0, 1, true or false, found {value!r:.60}")


def _kind(value: Any) -> str:
    return "an empty list" if value == [] else type(value).__name__
