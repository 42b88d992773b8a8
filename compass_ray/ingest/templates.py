"""Templates: text made of several fields, as ``"{title}: {question.stem}"``. No code, no format options.

``*`` in a path stands for every item of a list: ``{choices.*.text}`` is the text of all choices, a line each. After a
colon stands what is put between items (``{tags.*:, }``) or, with braces in it, how an item is written:
``{choices.*:{label}. {text}}``, where ``{}`` is the item itself.
"""

from __future__ import annotations

import string
from collections.abc import Iterator
from dataclasses import dataclass

_EVERY = "*"


@dataclass(frozen=True)
class Slot:
    """What stands between braces."""

    column: str  # name or path; of a list if every item of it is meant
    every: bool = False
    below: tuple[str, ...] = ()  # the path from an item on
    between: str = "\n"  # two items
    item: tuple[tuple[str, tuple[str, ...] | None], ...] = (("", ()),)  # literals, each with the path after it


def is_template(spec: str) -> bool:
    """Tell whether a text names its fields in braces, and not a column."""
    return "{" in spec or "}" in spec


def parts(template: str) -> Iterator[tuple[str, Slot | None]]:
    """Yield literal texts, each with the slot that follows it. ``{{`` and ``}}`` stand for braces.

    Raises
    ------
    ValueError
        If a brace is left open, a name is missing, or there is more than a name between braces.
    """
    for literal, field, options, conversion in string.Formatter().parse(template):
        if field is None:
            yield literal, None
            continue
        column, every, below = _at_every(field)
        if not column or "{" in field or conversion or (options and not every) or _EVERY in below:
            raise ValueError(
                f"'{template}': a template has plain field names in braces, as in '{{title}}: {{body}}', or lists, as "
                "in '{choices.*.text}', '{tags.*:, }' and '{choices.*:{label}. {text}}'"
            )
        if not every:
            yield literal, Slot(field)
        elif is_template(options or ""):
            yield literal, Slot(column, True, below, item=tuple(_item(template, options or "")))
        else:
            yield literal, Slot(column, True, below, between=options or "\n")


def fields_of(spec: str) -> list[str]:
    """List the columns that a column name or template reads.

    Raises
    ------
    ValueError
        As :func:`parts`, or if a name that is no template has a ``*`` in its path.
    """
    if is_template(spec):
        return [slot.column for _, slot in parts(spec) if slot]
    if _at_every(spec)[1]:
        raise ValueError(f"'{spec}': several items make one text in a template only; write '{{{spec}}}'")
    return [spec]


def _at_every(field: str) -> tuple[str, bool, tuple[str, ...]]:
    """Split a path at its first ``*``. Returned are the path up to it, whether there is one, and what is behind it."""
    path = field.split(".")
    if _EVERY not in path:
        return field, False, ()
    first = path.index(_EVERY)
    return ".".join(path[:first]), True, tuple(path[first + 1 :])


def _item(template: str, text: str) -> Iterator[tuple[str, tuple[str, ...] | None]]:
    for literal, field, options, conversion in string.Formatter().parse(text):
        if options or conversion or (field and ("{" in field or _EVERY in field.split("."))):
            raise ValueError(f"'{template}': an item is written with plain field names, as in '{{label}}. {{text}}'")
        yield literal, None if field is None else tuple(field.split(".")) if field else ()
