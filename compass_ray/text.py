"""Texts as people are shown them."""

from __future__ import annotations

import regex

EXEMPLAR_CHARACTERS = 160
"""How much of a document is shown where it stands for others."""


_CONTROLS = regex.compile(r"[\p{Cc}\u202a-\u202e\u2066-\u2069]+")
"""C0 and C1, and what opens and closes a direction of writing: they move a cursor, or turn around what follows."""


def without_controls(text: str) -> str:
    """Put a space for what is to control a terminal rather than to be read."""
    readable: str = _CONTROLS.sub(" ", text)
    return readable


def shorten(text: str, characters: int) -> str:
    """Shorten a text to its start, in one line.

    It is cut between words where there are spaces, and marked with an ellipsis.
    """
    line = " ".join(text.split())
    if len(line) <= characters:
        return line
    start = ""
    for grapheme in regex.findall(r"\X", line[: characters + 1])[:-1]:  # the last one may be cut
        if len(start) + len(grapheme) < characters:
            start += grapheme
    words, space, _ = start.rpartition(" ")
    return (words if space and len(words) > characters // 2 else start).rstrip() + "…"
