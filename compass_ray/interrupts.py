"""Ctrl-C and SIGTERM as an error of the tree, the same for commands and for jobs, whatever libraries make of them.

Cluster schedulers, ``ray job stop`` and container runtimes say SIGTERM where a person says Ctrl-C.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from compass_ray.errors import Interrupted


@contextmanager
def resumable() -> Iterator[None]:
    """Run work that the same command can go on with; for the main thread.

    Raises
    ------
    Interrupted
        On Ctrl-C or SIGTERM, once what was being written has been written whole or taken back.
    """
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted("interrupted: nothing is half-written; run the same command again to go on") from None
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def kept_handler() -> Iterator[None]:
    """Leave Ctrl-C what it was, around what takes it over.

    That is the ``fit`` of Ray Train, which ends the program with 0 on it, and keeps it when it has returned.

    Raises
    ------
    KeyboardInterrupt
        Where the other handler would have ended the program.
    """
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as exc:
        raise KeyboardInterrupt from exc
    finally:
        if before is not None and threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt
