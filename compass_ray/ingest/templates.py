"""Templates: text made of several fields, as ``"{title}: {question.stem}"``. No code, no format options."""

from __future__ import annotations

import string
from collections.abc import Iterator


def is_template(spec: str) -> bool:
    """Whether a text names its fields in braces, and not a column."""
    return "{" in spec or "}" in spec


def parts(template: str) -> Iterator[tuple[str, str | None]]:
    """Literal texts, each with the field that follows it; ``{{`` and ``}}`` stand for braces.

    Raises
    ------
    ValueError
        If a brace is left open, a name is missing, or there is more than a name between braces.
    """
    for literal, field, options, conversion in string.Formatter().parse(template):
        if field is not None and (not field or options or conversion or "{" in field):
            raise ValueError(f"'{template}': a template has plain field names in braces, as in '{{title}}: {{body}}'")
        yield literal, field


def fields_of(spec: str) -> list[str]:
    """The columns that a column name or template reads."""
    return [field for _, field in parts(spec) if field] if is_template(spec) else [spec]
