"""Words that YAML takes for something else than they look like: ``no`` (false), ``010`` (8), ``12:30`` (750).

A word here is a scalar without quotes that JSON would write otherwise. Which of them were meant as text only the reader
of the document knows, so they are kept beside what YAML makes of them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import date
from typing import Any, TypeAlias

import yaml

from compass_ray.values import written

Path: TypeAlias = tuple[int | str, ...]

_MISREAD = re.compile(r"[-+]?0[0-7_]+|.*:.*")
"""Numbers to the base of 8 and of 60, which nobody writes on purpose."""


@dataclass(frozen=True)
class Word:
    """A scalar as it was typed, and what YAML reads of it."""

    text: str
    value: Any

    def __str__(self) -> str:
        kind = {bool: "", type(None): "", int: "the number ", float: "the number "}.get(type(self.value), "the date ")
        read = f"{self.text or 'nothing'}, which YAML reads as {kind}{written(self.value) or self.value}"
        return f"{read}: write '{self.text}' in quotes if it is text"

    @property
    def is_misread(self) -> bool:
        """Whether not even a number was meant to be what YAML reads."""
        return isinstance(self.value, int | float) and bool(_MISREAD.fullmatch(self.text))


@dataclass
class Words:
    """The words of a document, by where they stand."""

    values: dict[Path, Word] = field(default_factory=dict)
    keys: dict[Path, Word] = field(default_factory=dict)

    def replaced(self, path: Path, by: Words) -> Words:
        """Find the words after what stood at a path was replaced."""
        values, keys = (
            {at: word for at, word in words.items() if at[: len(path)] != path} for words in (self.values, self.keys)
        )
        return Words(values | by.values, keys | by.keys)

    def at(self, path: Path) -> Word | None:
        """Find the word at a path, or at what it leads through."""
        return next((word for at, word in self.values.items() if path[: len(at)] == at), None)


class Loader(yaml.SafeLoader):
    """Safe YAML in which words are :class:`Word`."""

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        value = super().construct_object(node, deep=deep)
        if not isinstance(node, yaml.ScalarNode) or node.style is not None or isinstance(value, str):
            return value
        typed = node.value.lower() if value is None or isinstance(value, bool) else node.value
        return value if typed == written(value) else Word(node.value, value)


def load(document: str | bytes, path: Path = ()) -> tuple[Any, Words]:
    """Load a document as YAML reads it, and its words. Keys are as they were typed; the document stands at ``path``.

    Raises
    ------
    yaml.YAMLError
    """
    words = Words()
    return _plain(yaml.load(document, Loader), path, words), words  # noqa: S506 a safe loader


def as_typed(value: Any) -> Any:
    """Turn words in a loader's value into text, but for dates and null."""
    if isinstance(value, dict):
        return {as_typed(key): as_typed(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_typed(item) for item in value]
    if isinstance(value, Word):
        return value.value if value.value is None or isinstance(value.value, date) else value.text
    return value


def _plain(value: Any, path: Path, words: Words) -> Any:
    if isinstance(value, dict):
        keyed = ((_key(key, path, words), item) for key, item in value.items())
        return {key: _plain(item, (*path, key), words) for key, item in keyed}
    if isinstance(value, list):
        return [_plain(item, (*path, number), words) for number, item in enumerate(value)]
    if isinstance(value, Word):
        words.values[path] = value
        return value.value
    return value


def _key(key: Any, path: Path, words: Words) -> str:
    if isinstance(key, str):
        return key
    word = key if isinstance(key, Word) else Word(str(written(key)), key)
    words.keys[*path, word.text] = word
    return word.text
