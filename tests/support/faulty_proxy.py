"""An HTTP proxy on loopback that lets faults happen by rule, between a client and the real S3 API."""

from __future__ import annotations

import http.client
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

_ANSWERS = {
    "slow_down": (503, "SlowDown"),
    "unavailable": (503, "ServiceUnavailable"),
    "internal_error": (500, "InternalError"),
    "denied": (403, "AccessDenied"),
}
_HOP_BY_HOP = {"connection", "content-length", "transfer-encoding", "keep-alive"}
_LINGER_0 = struct.pack("ii", 1, 0)  # closing then sends a reset

Fault = Literal[
    "slow_down", "unavailable", "internal_error", "denied", "not_deleted", "reset", "truncate", "stall", "lost_answer"
]  # fmt: skip


@dataclass
class Rule:
    """Which requests fail, and how: every n-th that matches, as often as told.

    ``reset`` breaks the connection in the middle of the body, of the request if that has one, else of the answer.
    ``truncate`` ends the answer's body in the middle, ``stall`` pauses there. ``lost_answer`` does what was asked and
    breaks the connection. ``not_deleted`` says of the first key of a batch that it could not be deleted,
    and deletes none.
    """

    fault: Fault
    method: str = ".*"
    path: str = ".*"
    every: int = 1
    times: int | None = None
    pause_s: float = 0.0
    injected: int = 0
    _seen: int = field(default=0, repr=False)

    def strikes(self, method: str, path: str) -> bool:
        if not re.fullmatch(self.method, method) or not re.search(self.path, path) or self.injected == self.times:
            return False
        self._seen += 1
        if self._seen % self.every:
            return False
        self.injected += 1
        return True


class FaultyProxy:
    """A proxy in threads of this process; ``rules`` may be changed at any time, ``requests`` is what has come by."""

    def __init__(self, upstream: str) -> None:
        self.rules: list[Rule] = []
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self.most_at_once = 0
        self._open = 0
        self._lock = threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self._server.proxy = self
        self._server.upstream = str(urlsplit(upstream).netloc)
        self.address = f"http://127.0.0.1:{self._server.server_port}"

    def faults(self, *rules: Rule) -> None:
        """From now on these rules alone; what came by so far is forgotten."""
        with self._lock:
            self.rules, self.requests, self.most_at_once = list(rules), [], 0

    @contextmanager
    def seen(self, method: str, path: str, headers: dict[str, str]) -> Iterator[Rule | None]:
        """The rule for a request that is now being served."""
        with self._lock:
            self.requests.append((method, path, headers))
            self._open += 1
            self.most_at_once = max(self.most_at_once, self._open)
            rule = next((rule for rule in self.rules if rule.strikes(method, path)), None)
        try:
            yield rule
        finally:
            with self._lock:
                self._open -= 1

    @contextmanager
    def running(self) -> Iterator[FaultyProxy]:
        thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield self
        finally:
            self._server.shutdown()
            thread.join()
            self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    proxy: FaultyProxy
    upstream: str

    def shutdown_request(self, request: Any) -> None:
        self.close_request(request)  # without the orderly shutdown that comes before it, which a reset does not have

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone away is no error of the proxy."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _handle(self) -> None:
        with self.server.proxy.seen(self.command, unquote(self.path), dict(self.headers.items())) as rule:
            self._serve(rule)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _handle  # noqa: N815 - what the base class looks for

    def _serve(self, rule: Rule | None) -> None:
        length = int(self.headers.get("Content-Length", 0))
        if rule and rule.fault == "reset" and length:
            self._forward_half(length)
            self._reset()
            return
        body = self.rfile.read(length)
        if rule and rule.fault in _ANSWERS:
            status, code = _ANSWERS[rule.fault]
            self._answer(status, f"<Error><Code>{code}</Code><Message>by rule</Message></Error>")
            return
        if rule and rule.fault == "not_deleted":
            key = body.split(b"<Key>")[1].split(b"</Key>")[0].decode()
            self._answer(200, f"<DeleteResult><Error><Key>{key}</Key><Code>InternalError</Code></Error></DeleteResult>")
            return
        upstream = self._connect()
        self._send_request(upstream, body, length)
        answer = upstream.getresponse()
        data = answer.read()
        upstream.close()
        if rule and rule.fault == "lost_answer":
            self._reset()
            return
        announced = int(answer.headers.get("Content-Length", 0)) if self.command == "HEAD" else len(data)
        self._send_head(answer.status, answer.getheaders(), announced)
        self._send_body(data, rule)

    def log_message(self, *args: Any) -> None:
        """The test says what it expects."""

    def _answer(self, status: int, xml: str) -> None:
        self._send_head(status, [("Content-Type", "application/xml")], len(xml))
        self._send_body(xml.encode(), None)

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.server.upstream, timeout=60)

    def _send_request(self, upstream: http.client.HTTPConnection, body: bytes, announced: int) -> None:
        upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():
            if name.lower() not in {*_HOP_BY_HOP, "expect"}:
                upstream.putheader(name, value)
        upstream.putheader("Content-Length", str(announced))
        upstream.endheaders(body)

    def _forward_half(self, length: int) -> None:
        """What a store sees of a connection that breaks in the middle of a request."""
        half = self.rfile.read(length // 2)
        upstream = self._connect()
        self._send_request(upstream, half, length)
        upstream.close()

    def _send_head(self, status: int, headers: list[tuple[str, str]], length: int) -> None:
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in _HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(length))
        self.end_headers()

    def _send_body(self, data: bytes, rule: Rule | None) -> None:
        if self.command == "HEAD":
            return
        half = len(data) // 2 if rule else len(data)
        self.wfile.write(data[:half])
        if rule is None:
            return
        time.sleep(max(rule.pause_s, 0.05))  # the client reads the first half before it meets the fault
        if rule.fault == "reset":
            self._reset()
        elif rule.fault == "truncate":
            self.close_connection = True
        else:
            self.wfile.write(data[half:])

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_0)
        self.close_connection = True
