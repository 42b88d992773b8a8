"""The actor through which workers say how far they are, and the display that watches it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from compass_ray.runtime.progress import Display

_POLL_S = 1.0


class Tally:
    """What workers have done so far, by key. Setting a number twice does no harm, so a restarted worker may."""

    def __init__(self) -> None:
        self._done: dict[str, int] = {}
        self._notes: dict[str, Any] = {}

    def set(self, key: str, done: int) -> None:
        """Record how much of ``key`` is done."""
        self._done[key] = done

    def total(self) -> int:
        """Sum all that is done."""
        return sum(self._done.values())

    def note(self, key: str, value: Any) -> None:
        """Leave a message for the driver."""
        self._notes[key] = value

    def notes(self) -> dict[str, Any]:
        """Return all messages."""
        return dict(self._notes)


@contextmanager
def watched(display: Display, name: str, total: int, unit: str) -> Iterator[Any]:
    """Start a :class:`Tally` actor, its total shown as the progress of a stage."""
    import ray

    tally = ray.remote(num_cpus=0)(Tally).remote()
    finished = threading.Event()

    def watch() -> None:
        seen = 0
        with display.stage(name, total=total, unit=unit) as bar:
            while not finished.wait(_POLL_S):
                try:
                    done = ray.get(tally.total.remote())
                except ray.exceptions.RayError:
                    return  # the work itself will say what happened to Ray
                bar.advance(done - seen)
                seen = done

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield tally
    finally:
        finished.set()
        watcher.join()
        ray.kill(tally)
