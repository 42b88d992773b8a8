"""Ctrl-C means what it meant, before, during and after work whose libraries take it over."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from compass_ray.errors import Interrupted
from compass_ray.interrupts import kept_handler, resumable


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def taken_over(*_: Any) -> None:
    """A handler like that of Ray Train: the program ends as if all were well."""
    sys.exit(0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_both_signals_are_one_error(number: signal.Signals) -> None:
    with pytest.raises(Interrupted, match="run the same command again"), resumable():
        signal.raise_signal(number)


def test_a_program_that_a_library_would_end_with_0_is_interrupted() -> None:
    with pytest.raises(Interrupted), resumable(), kept_handler():
        signal.signal(signal.SIGINT, taken_over)
        signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("handler", [signal.default_int_handler, signal.SIG_IGN, signal.SIG_DFL, taken_over])
def test_a_handler_that_a_library_leaves_behind_goes(handler: Any) -> None:
    signal.signal(signal.SIGINT, handler)
    with kept_handler():
        signal.signal(signal.SIGINT, lambda *_: None)
    assert signal.getsignal(signal.SIGINT) is handler


def test_in_another_thread_nothing_is_touched() -> None:
    failed: list[BaseException] = []

    def work() -> None:
        try:
            with kept_handler():
                pass
        except BaseException as exc:  # noqa: BLE001 said below
            failed.append(exc)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert failed == []
