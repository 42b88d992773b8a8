"""Tools that a model may call, and its calls of them, in the one form that documents keep.

Data sets write both in many ways: as OpenAI does, flat, as JSON text, or as structs in which Parquet has unified the
fields of all rows. Here a call is ``{"id", "type", "function": {"name", "arguments"}}``, its arguments being JSON text.
The tools of a row are JSON text too, of a list of ``{"type": "function", "function": {"name", ...}}``. Fields stay in
the order in which they were given, because chat templates print them so.

A null in an object is read as absent, as Parquet fills the fields that a row does not have. In JSON text nobody has
filled anything in, so nulls stay.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from compass_ray.ingest.readers.batch import Refused

_ARGUMENTS = ("arguments", "parameters", "args")
"""What data sets call the arguments of a call."""

_EMPTY: tuple[Any, ...] = (None, "", [], {})


def is_absent(value: Any) -> bool:
    """Tell whether a value says nothing: null, or empty text, list or object."""
    return type(value) in (type(None), str, list, dict) and value in _EMPTY


def parsed(text: str, name: str, wanted: str = "JSON") -> Any:
    """Read a value from JSON text; name and what is wanted are for messages.

    Raises
    ------
    Refused
        If it is not JSON, or holds half of an escaped pair.
    """
    try:
        value = json.loads(text, parse_constant=_no_number)
        if "\\u" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as exc:
        raise Refused("lone_surrogate", f"{name}: {exc}") from exc
    except (ValueError, RecursionError) as exc:
        raise Refused("wrong_type", f"{name}: expected {wanted}, found {text!r:.60} ({exc})") from exc
    return value


def calls_of(value: Any, unread: list[str]) -> list[dict[str, Any]]:
    """Read the calls of one message.

    Parameters
    ----------
    value
        A list of calls, one call, or the JSON text of either.
    unread : list of str
        Gets the names of fields that are left out.

    Returns
    -------
    list of dict
        Values of the field ``tool_calls`` of ``records.MESSAGES``.

    Raises
    ------
    Refused
    """
    if isinstance(value, str):
        value = parsed(value, "tool_calls")
    if is_absent(value):
        return []
    return [_call(call, unread) for call in (value if isinstance(value, list) else [value])]


def tools_of(value: Any) -> str | None:
    """Read the tools of one row.

    Parameters
    ----------
    value
        A list of tools, one tool, the JSON text of either, or nothing.

    Returns
    -------
    str or None
        JSON text; None without tools.

    Raises
    ------
    Refused
    """
    if isinstance(value, str):
        value = parsed(value, "tools") if value.strip() else None
    else:
        value = _without_nulls(value, "tools")
    if is_absent(value):
        return None
    tools = value if isinstance(value, list) else [value]
    return _text([_tool(tool, number) for number, tool in enumerate(tools)], "tools")


def call_line(call: Mapping[str, Any]) -> str:
    """Write a call as a line of text."""
    return f"{call['function']['name']}({call['function']['arguments']})"


def _call(call: Any, unread: list[str]) -> dict[str, Any]:
    if not isinstance(call, dict):
        raise Refused("wrong_type", f"tool_calls: expected an object, found {type(call).__name__}")
    function = call.get("function")
    if function is None:
        function = call
    name = function.get("name") if isinstance(function, dict) else None
    if not isinstance(name, str) or not name.strip():
        kind = f" of type {call['type']!r:.60}" if call.get("type") else ""
        raise Refused("wrong_type", f"tool_calls: a call{kind} names no function")
    given = next((key for key in _ARGUMENTS if function.get(key) is not None), None)
    known = {"id", "type", "function"} | ({"name", given} if function is call else set())
    unread += [f"tool_calls.{key}" for key, item in call.items() if key not in known and not is_absent(item)]
    if function is not call:
        inner = (key for key, item in function.items() if key not in ("name", given) and not is_absent(item))
        unread += [f"tool_calls.function.{key}" for key in inner]
    arguments = _arguments(None if given is None else function[given], name)
    number = call.get("id")
    if number is not None and not isinstance(number, str):
        raise Refused("wrong_type", f"tool_calls: the id of a call of {name} is {number!r:.60}; expected text")
    return {"id": number or None, "type": "function", "function": {"name": name, "arguments": arguments}}


def _arguments(value: Any, function: str) -> str:
    name = f"tool_calls: arguments of {function}"
    if isinstance(value, str) and value.strip():
        value = parsed(value, name)
    elif isinstance(value, dict):
        value = _without_nulls(value, name)
    elif is_absent(value) or isinstance(value, str):
        value = {}
    if not isinstance(value, dict):
        raise Refused("wrong_type", f"{name}: expected an object or its JSON, found {type(value).__name__}")
    return _text(value, name)


def _tool(tool: Any, number: int) -> dict[str, Any]:
    """Bring one tool into the form in which OpenAI writes it. A flat one is a function."""
    if isinstance(tool, str):
        tool = parsed(tool, f"tools: tool {number}")
    given = tool if isinstance(tool, dict) else {}
    wrapped = isinstance(given.get("function"), dict)
    function = dict(given["function"]) if wrapped else {key: item for key, item in given.items() if key != "type"}
    name = function.get("name")
    if not isinstance(name, str) or not name.strip():
        found = ", ".join(map(str, given)) or type(tool).__name__
        raise Refused("wrong_type", f"tools: tool {number} names no function; found {found:.60}")
    if isinstance(parameters := function.get("parameters"), str) and parameters.lstrip().startswith("{"):
        function["parameters"] = parsed(parameters, f"tools: parameters of {name}")
    others = {key: item for key, item in given.items() if key not in ("type", "function")} if wrapped else {}
    return {"type": "function", "function": function, **others}


def _without_nulls(value: Any, name: str) -> Any:
    try:
        return _dropped(value)
    except RecursionError as exc:
        raise Refused("wrong_type", f"{name}: nested too deeply") from exc


def _dropped(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _dropped(item) for key, item in value.items() if item is not None}
    return [_dropped(item) for item in value] if isinstance(value, list) else value


def _text(value: Any, name: str) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (ValueError, TypeError, RecursionError) as exc:
        raise Refused("wrong_type", f"{name}: not to be written as JSON ({exc})") from exc


def _no_number(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")
