#!/usr/bin/env bash
# ray 2.60.0: an exception that a signal handler raises ends no wait inside ray.get or ray.wait, unless it is
# KeyboardInterrupt or SystemExit. Ray runs Python's handlers while it waits, leaves what they raise pending and waits
# on; when the task is done at last, what comes out is a SystemError, and the task's value is lost. So a deadline by
# signal.alarm is none for a wait on Ray, nor is that of pytest-timeout, whose handler raises pytest's own Failed: its
# method "signal" ends a test that sleeps, and lets one that waits for Ray hang for ever.
# Seen: with an alarm after 1 s, time.sleep(4) ends after 1.0 s with the handler's exception; ray.get and ray.wait of a
# task of 4 s end after 4.0 s with "SystemError: ... returned a result with an exception set"; if the handler raises
# KeyboardInterrupt, after 1.0 s with that.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check ray==2.60.0
cd "$folder"
"$folder/venv/bin/python" - <<'PY'
import logging
import signal
import time

import ray

ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
ran = []


class Deadline(Exception):
    pass


def handler_of(error):
    def handler(number, frame):
        ran.append(time.monotonic())
        raise error

    return handler


@ray.remote
def slow(seconds):
    time.sleep(seconds)
    return "done"


def attempt(wait, error):
    """Seconds until a wait of four seconds with an alarm after one ended, how it did, and how often the handler ran."""
    ran.clear()
    ray.get(slow.remote(0))
    signal.signal(signal.SIGALRM, handler_of(error))
    started = time.monotonic()
    signal.setitimer(signal.ITIMER_REAL, 1)
    try:
        found = wait()
    except (Deadline, KeyboardInterrupt, SystemError) as exc:
        found = type(exc).__name__
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    seconds = time.monotonic() - started
    print(f"{wait.__name__} with {error.__name__}: {found} after {seconds:.1f} s, handler ran {len(ran)} time")
    assert len(ran) == 1
    return found, seconds


def sleep():
    time.sleep(4)
    return "done"


def get():
    return ray.get(slow.remote(4))


def wait():
    ready, _ = ray.wait([slow.remote(4)])
    return ray.get(ready[0])


for one, error, expected, waited_on in (
    (sleep, Deadline, "Deadline", False),
    (get, Deadline, "SystemError", True),
    (wait, Deadline, "SystemError", True),
    (get, KeyboardInterrupt, "KeyboardInterrupt", False),
):
    found, seconds = attempt(one, error)
    assert found == expected, (one.__name__, found)
    assert (seconds > 3.5) == waited_on, (one.__name__, seconds)
ray.shutdown()
PY
