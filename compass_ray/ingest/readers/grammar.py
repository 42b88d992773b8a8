r"""The grammar of delimited text: where fields and records end, and what they say.

A field is quoted as a whole or not at all. What is quoted ends at a delimiter or a line end, else it is broken; a quote
anywhere else is text. Where lines end with ``\n``, with or without ``\r``, a ``\r`` alone is text.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

Data: TypeAlias = bytes | bytearray

BOM = b"\xef\xbb\xbf"
_NAMES = {",": "comma", "\t": "tab", ";": "semicolon", "|": "bar", " ": "space"}
_LETTERS = {b"n": b"\n", b"r": b"\r", b"t": b"\t"}  # what databases that quote nothing write after a backslash
_NULL = rb"\N"


class Broken(Exception):
    """A quoted field does not end as it should."""

    def __init__(self, field: int, after: bytes) -> None:
        super().__init__(field, after)
        self.field = field  # counted from 0
        self.after = after  # what comes after its closing quote; nothing if it never closes


@dataclass(frozen=True)
class Grammar:
    r"""How one file of delimited text is written; all are one byte.

    Attributes
    ----------
    delimiter : bytes
    quote : bytes
        Nothing where quotes are text.
    escape : bytes
        Nothing where there is none. It makes text of a delimiter, quote, line end or escape after it, and is text
        itself before anything else. A backslash where nothing is quoted is read as databases write it: ``\n``, ``\r``
        and ``\t`` are characters, and a field ``\N`` is empty.
    newline : bytes
        The last byte of a line end.
    """

    delimiter: bytes
    quote: bytes = b""
    escape: bytes = b""
    newline: bytes = b"\n"

    def record(self, data: Data, start: int) -> tuple[list[bytes], int, bool]:
        """Read the fields of the record that starts here, as written.

        With them come where it ends, and if by a line end.

        Raises
        ------
        Broken
        """
        fields = []
        at, delimiter, match_field = start, self.delimiter, self._field.match
        while match := match_field(data, at):
            field, end = match.groups()
            fields.append(field)
            at = match.end()
            if end != delimiter:
                return fields, at, end.endswith((self.newline, b"\n"))
        closed = self._quoted.match(data, at)
        raise Broken(len(fields), bytes(data[closed.end() : closed.end() + 20]) if closed else b"")

    def value(self, field: bytes) -> bytes:
        """Read what a field says."""
        quote, escape = self.quote, self.escape
        if quote and field.startswith(quote):
            inner = field[1:-1]
            if escape and escape in inner:
                return self._marked.sub(self._meant, inner)
            return inner.replace(quote + quote, quote) if quote in inner else inner
        if escape and escape in field:
            return b"" if field == _NULL and not quote else self._marked.sub(self._meant, field)
        return field

    def line_end(self, data: Data, start: int) -> int | None:
        """Find where the line ends that this is in. None if it goes on."""
        match = self._line_end.search(data, start)
        return match.end() if match else None

    def lines(self, text: Data) -> list[bytes]:
        """Split a text into lines, without their ends."""
        return self._line_end.split(bytes(text))

    def __str__(self) -> str:
        delimiter, quote, escape = (part.decode() for part in (self.delimiter, self.quote, self.escape))
        said = f"delimiter {_NAMES.get(delimiter, repr(delimiter))}, quote {quote or 'none'}"
        return f"{said}, escape {escape}" if escape else said

    @cached_property
    def _field(self) -> re.Pattern[bytes]:
        lone = [rb"\r(?!\n|\Z)"] if self.newline == b"\n" else []
        bare = _unrolled(rb"[^%s\r\n%s]" % (re.escape(self.delimiter), re.escape(self.escape)), lone + self._escapes)
        content = rb"%s|(?!%s)%s" % (self._quoted.pattern, re.escape(self.quote), bare) if self.quote else bare
        return re.compile(rb"(%s)(%s|%s|\r?\Z)" % (content, re.escape(self.delimiter), self._line_end.pattern))

    @cached_property
    def _quoted(self) -> re.Pattern[bytes]:
        quote = re.escape(self.quote)
        inner = _unrolled(rb"[^%s%s]" % (quote, re.escape(self.escape)), [quote + quote, *self._escapes])
        return re.compile(quote + inner + quote)

    @cached_property
    def _line_end(self) -> re.Pattern[bytes]:
        return re.compile(rb"\r?\n" if self.newline == b"\n" else rb"\r\n?|\n")

    @cached_property
    def _escapes(self) -> list[bytes]:
        return [re.escape(self.escape) + rb"(?:[\s\S]|\Z)"] if self.escape else []

    @cached_property
    def _marked(self) -> re.Pattern[bytes]:
        doubled = [re.escape(self.quote * 2)] if self.quote else []
        return re.compile(b"|".join([*doubled, re.escape(self.escape) + rb"([\s\S])"]))

    def _meant(self, mark: re.Match[bytes]) -> bytes:
        char: bytes | None = mark[1]
        if char is None:
            return self.quote
        if char in (self.delimiter, self.quote, self.escape, b"\r", b"\n"):
            return char
        if not self.quote and self.escape == b"\\":
            return _LETTERS.get(char, mark[0])
        return mark[0]


@dataclass(frozen=True)
class Layout:
    """How a file is written, and what its columns are called.

    Attributes
    ----------
    header : bool
        Whether the names stand in the file.
    doubtful : bool
        Whether nothing bears out what is taken for a quote, so that fields which speak against it are faults.
    """

    grammar: Grammar
    names: tuple[str, ...]
    header: bool = True
    doubtful: bool = False

    def __str__(self) -> str:
        columns = f"{len(self.names)} column{'' if len(self.names) == 1 else 's'}"
        return f"{self.grammar}, {'header' if self.header else 'no header'}, {columns}"


def _unrolled(plain: bytes, special: Sequence[bytes]) -> bytes:
    """Write a pattern of any number of both. The plain ones are passed over in runs; nothing is ever tried twice."""
    return rb"%s*+(?:(?:%s)%s*+)*+" % (plain, b"|".join(special), plain) if special else plain + b"*+"
