"""Watching the head of a joined cluster, which everything depends on.

Ray ends a driver whose head has not answered for a minute: in mid-air, with exit code 1 and without a word. We do so
a little earlier, and say why.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
import time

import ray

from compass_ray.errors import ClusterError

PATIENCE_S = 45
"""Below the minute after which Ray ends the process (``gcs_rpc_server_reconnect_timeout_s``)."""
_POLL_S = 5
_ANSWER_S = 5

_SETTINGS = 4  # the type of the frame that either side of HTTP/2 sends first (RFC 9113, 3.4 and 6.5)
_HTTP2_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, _SETTINGS, 0, 0, 0, 0, 0])


def why_silent(address: str) -> str | None:
    """Say why no head of a cluster can be at an address. None if one may be. One without a port is left to Ray.

    Ray's services speak HTTP/2. What accepts a connection there and says nothing of the kind within five seconds is
    none of them: joining it would take Ray minutes.
    """
    place = _place(address)
    if place is None:
        return None
    try:
        with socket.create_connection(place, timeout=_ANSWER_S) as connection:
            if os.environ.get("RAY_USE_TLS") == "1":
                return None
            connection.sendall(_HTTP2_PREFACE)
            answer = connection.recv(9)
    except TimeoutError:
        return f"what listens there has not said a word within {_ANSWER_S} s"
    except OSError as exc:
        return f"nothing listens there: {exc.strerror or exc}"
    is_settings = len(answer) > 3 and answer[3] == _SETTINGS
    return None if is_settings else "what listens there is no part of Ray"


def answers(address: str) -> bool:
    """Tell whether something listens at an address. One without a port is left to Ray."""
    place = _place(address)
    return place is None or listens(*place)


def _place(address: str) -> tuple[str, int] | None:
    """Split an address into host and port. None for an address without a port."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    return (host.strip("[]"), int(port)) if colon and port.isdigit() else None


def listens(host: str, port: int) -> bool:
    """Tell whether something accepts connections there within five seconds."""
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return False
    return True


def watch_head() -> None:
    """End this process with the exit code of ClusterError if the head of the cluster it has joined is gone."""
    address = ray.get_runtime_context().gcs_address
    threading.Thread(target=_watch, args=(address,), name="watch-head", daemon=True).start()


def _watch(address: str) -> None:
    answered = time.monotonic()
    while ray.is_initialized() and ray.get_runtime_context().gcs_address == address:
        if answers(address):
            answered = time.monotonic()
        elif time.monotonic() - answered > PATIENCE_S:
            sys.stderr.write(
                f"error: {address}: the head of the Ray cluster has not answered for {PATIENCE_S} s; what is finished "
                "is kept: start the cluster again, or another, and run the same command to go on where it stopped\n"
            )
            sys.stderr.flush()
            os._exit(ClusterError.exit_code)  # the main thread waits inside Ray, which would not come back
        time.sleep(_POLL_S)
