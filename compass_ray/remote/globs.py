"""Globs over the keys of objects, which no store knows: the meaning that ``glob`` gives them on disk."""

from __future__ import annotations

import re
from collections.abc import Callable

_CLASS_SPECIAL = re.compile(r"([\\\[\]^&~|])")
_ESCAPED = r"\\\1"
_VISIBLE = r"(?!\.)[^/]"
_PARENTS = rf"(?:{_VISIBLE}*/)*"
_WILDCARD = re.compile(r"[*?\[]")


def literal_start(pattern: str) -> str:
    """Find what comes before the first wildcard."""
    return pattern[: match.start()] if (match := _WILDCARD.search(pattern)) else pattern


def literally(pattern: str, exists: Callable[[str], bool]) -> tuple[str, str]:
    """Split a path into the part that is there and the glob.

    The part is there as it is spelled, wildcards and all. The glob is below it, and nothing if none is.

    >>> literally("in/a[1]/*.csv", {"in/a[1]"}.__contains__)
    ('in/a[1]', '*.csv')
    """
    names = pattern.split("/")
    for place, name in enumerate(names):
        if _WILDCARD.search(name) and not exists("/".join(names[: place + 1])):
            return "/".join(names[:place]), "/".join(names[place:])
    return pattern, ""


def as_regex(pattern: str) -> str:
    """Write a glob over object keys as a regular expression.

    It has the meaning that ``glob`` gives it on disk. Wildcards stay inside one name, but for a ``**`` that is a whole
    name; they do not match hidden names. The name of a folder may be empty (``a//b``), which no disk knows.
    """
    *folders, last = pattern.split("/")
    parents = "".join(_PARENTS if name == "**" else _name_regex(name) + "/" for name in folders)
    return parents + (f"{_PARENTS}{_VISIBLE}+" if last == "**" else _name_regex(last))


def _name_regex(name: str) -> str:
    parts = [r"(?!\.)"] if name.startswith(("*", "?", "[")) else []
    for piece in re.findall(r"\*+|\?|\[!?\]?[^\]]*\]|.", name, re.DOTALL):
        if piece[0] == "*":
            parts.append("[^/]*")
        elif piece == "?":
            parts.append("[^/]")
        elif piece[0] == "[" and len(piece) > 2:
            negated = piece[1] == "!"
            members = _CLASS_SPECIAL.sub(_ESCAPED, piece[1 + negated : -1])
            parts.append(f"[{'^/' if negated else ''}{members}]")
        else:
            parts.append(re.escape(piece))
    return "".join(parts)
