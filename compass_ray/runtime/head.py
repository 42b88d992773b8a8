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


def answers(address: str) -> bool:
    """Whether something listens at an address; one without a port is left to Ray."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    return not colon or not port.isdigit() or listens(host.strip("[]"), int(port))


def listens(host: str, port: int) -> bool:
    """Whether something accepts connections there within five seconds."""
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
