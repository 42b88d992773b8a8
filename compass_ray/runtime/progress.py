"""One progress display on stderr: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress

_PLAIN_INTERVAL_S = 10.0


class Bar(Protocol):
    """The progress of one stage."""

    def advance(self, steps: int = 1) -> None:
        """Record finished steps."""


class Display:
    """Shows stages as they run; the only thing in the program that writes progress."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)

    def say(self, message: str) -> None:
        """Print one line for people."""
        self._console.print(message, highlight=False, markup=False, soft_wrap=True)

    @contextmanager
    def stage(self, name: str, total: int, done: int = 0, unit: str = "shards") -> Iterator[Bar]:
        """Show the progress of one stage over ``total`` units. Of these ``done`` were found finished."""
        if self._console.is_terminal:
            columns = (
                TextColumn(f"{name:<10}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn(unit),
                TimeElapsedColumn(),
            )
            with RichProgress(*columns, console=self._console, transient=True) as rich:
                yield _RichBar(rich, total, done)
        else:
            yield _PlainBar(self, name, total, done, unit)


class _RichBar:
    def __init__(self, rich: RichProgress, total: int, done: int) -> None:
        self._rich = rich
        self._task = rich.add_task("", total=total, completed=done)

    def advance(self, steps: int = 1) -> None:
        self._rich.advance(self._task, steps)


class _PlainBar:
    def __init__(self, display: Display, name: str, total: int, done: int, unit: str) -> None:
        self._display, self._name, self._total, self._done, self._unit = display, name, total, done, unit
        self._last = time.monotonic()

    def advance(self, steps: int = 1) -> None:
        self._done += steps
        if time.monotonic() - self._last >= _PLAIN_INTERVAL_S:
            self._last = time.monotonic()
            self._display.say(f"{self._name:<10} {self._done}/{self._total} {self._unit}")
