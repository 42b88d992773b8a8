"""A web server, the JSON API of Cloud Storage and the REST API of Blob Storage on loopback, as far as reading goes."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar
from urllib.parse import parse_qs, quote, unquote, urlsplit
from xml.sax.saxutils import escape

BUCKET = "corpus"
ACCOUNT_KEY = "c2VjcmV0LWZvci10ZXN0cw=="
PAGE = 2  # names a page of a listing


@dataclass
class Stored:
    """One file as the server has it."""

    data: bytes
    number: int  # of the write that made it

    @property
    def modified(self) -> float:
        return 1.7e9 + self.number


@dataclass
class Store:
    """The files of a server by name, its faults, and what it has been asked.

    Faults strike GETs of bodies: ``statuses`` are answered in turn; each of ``cuts`` ends a body after so many bytes;
    ``cut_always`` does so for all. ``without`` names headers that are not sent. ``longest`` is of a range.
    """

    files: dict[str, Stored] = field(default_factory=dict)
    statuses: list[int] = field(default_factory=list)
    cuts: list[int] = field(default_factory=list)
    cut_always: int | None = None
    without: set[str] = field(default_factory=set)
    longest: int | None = None
    ignores_ranges: bool = False
    after_next: Callable[[], None] | None = None
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    address: str = ""
    written: int = 0

    def put(self, name: str, data: bytes) -> None:
        self.written += 1
        self.files[name] = Stored(data, self.written)


class Handler(BaseHTTPRequestHandler):
    """A plain web server; the object stores differ in names, versions and listings."""

    protocol_version = "HTTP/1.1"
    store: ClassVar[Store]

    def do_GET(self) -> None:
        self.store.requests.append((self.command, self.path, dict(self.headers.items())))
        if self.store.statuses:
            self.refuse(self.store.statuses.pop(0))
        else:
            self.answer(urlsplit(self.path).path, {k: v[0] for k, v in parse_qs(urlsplit(self.path).query).items()})

    do_HEAD = do_GET  # noqa: N815 - what the base class looks for

    def answer(self, path: str, query: dict[str, str]) -> None:
        if (stored := self.store.files.get(unquote(path).lstrip("/"))) is None:
            self.refuse(404)
        else:
            self.send_file(stored, {"ETag": f'"v{stored.number}"'})

    def send_file(self, stored: Stored, headers: dict[str, str]) -> None:
        data, status, extra = stored.data, 200, {"Last-Modified": formatdate(stored.modified, usegmt=True)}
        wanted = self.headers.get("Range") or self.headers.get("x-ms-range")
        if wanted and not self.store.ignores_ranges:
            first, last = re.fullmatch(r"bytes=(\d+)-(\d*)", wanted).groups()  # type: ignore[union-attr]
            start, end = int(first), min(int(last or len(data)) + 1, len(data))
            end = min(end, start + self.store.longest) if self.store.longest else end
            if start >= len(data):
                self.refuse(416)
                return
            extra["Content-Range"] = f"bytes {start}-{end - 1}/{len(data)}"
            data, status = data[start:end], 206
        self.send(status, data, {**headers, **extra})

    def send(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        """The answer, whose body may break off."""
        self.send_response(status)
        for name, value in {"Content-Length": str(len(data)), **headers}.items():
            if name not in self.store.without:
                self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        cut = self.store.cut_always
        if self.store.cuts:
            cut = self.store.cuts.pop(0)
        if cut is not None or "Content-Length" in self.store.without:
            self.close_connection = True
        self.wfile.write(data[:cut])
        if self.store.after_next:
            self.store.after_next, act = None, self.store.after_next
            act()

    def refuse(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """The test says what it expects."""


class GoogleHandler(Handler):
    """Listing in pages, metadata, and media of one generation, which is not repeated with them as Google does."""

    def do_GET(self) -> None:
        if urlsplit(self.path).path == f"/storage/v1/b/{BUCKET}":
            self.send_json({"name": BUCKET})  # what the client asks beside everything else, at a time of its own
        else:
            super().do_GET()

    def answer(self, path: str, query: dict[str, str]) -> None:
        match = re.fullmatch(r"(/download)?/storage/v1/b/([^/]+)/o(?:/(.*))?", path)
        if match is None or match[2] != BUCKET:
            self.refuse(404)
        elif match[3] is None:
            self.send_json(self.listing(query))
        else:
            name = unquote(match[3])
            stored = self.store.files.get(name)
            if stored is None or query.get("generation", str(stored.number)) != str(stored.number):
                self.refuse(404)
            elif query.get("ifGenerationMatch", str(stored.number)) != str(stored.number):
                self.refuse(412)
            elif query.get("alt") == "media":
                self.send_file(stored, {})
            else:
                self.send_json(self.described(name))

    def described(self, name: str) -> dict[str, str]:
        stored = self.store.files[name]
        updated = time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(stored.modified))
        return {"name": name, "size": str(len(stored.data)), "generation": str(stored.number), "updated": updated}

    def listing(self, query: dict[str, str]) -> dict[str, Any]:
        names = sorted(name for name in self.store.files if name.startswith(query.get("prefix", "")))
        start = int(query.get("pageToken", 0))
        more = {"nextPageToken": str(start + PAGE)} if start + PAGE < len(names) else {}
        return {"items": [self.described(name) for name in names[start : start + PAGE]], **more}

    def send_json(self, content: dict[str, Any]) -> None:
        data = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


class AzureHandler(Handler):
    """Listing in pages, properties, and ranges with ``If-Match``; ETags have quotes in headers alone."""

    def answer(self, path: str, query: dict[str, str]) -> None:
        _, container, name = (*unquote(path).lstrip("/").split("/", 2), "", "")[:3]
        stored = self.store.files.get(name)
        if container != BUCKET:
            self.refuse(404)
        elif query.get("comp") == "list":
            self.list(query)
        elif stored is None:
            self.refuse(404)
        elif self.headers.get("If-Match", f'"0x{stored.number}"') != f'"0x{stored.number}"':
            self.refuse(412)
        else:
            self.send_file(stored, {"ETag": f'"0x{stored.number}"', "x-ms-blob-type": "BlockBlob"})

    def list(self, query: dict[str, str]) -> None:
        names = sorted(name for name in self.store.files if name.startswith(query.get("prefix", "")))
        start = int(query.get("marker", 0))
        blobs = "".join(self.described(name) for name in names[start : start + PAGE])
        marker = start + PAGE if start + PAGE < len(names) else ""
        data = (
            f'<?xml version="1.0" encoding="utf-8"?><EnumerationResults ContainerName="{BUCKET}">'
            f"<Prefix>{escape(query.get('prefix', ''))}</Prefix>"
            f"<Blobs>{blobs}</Blobs><NextMarker>{marker}</NextMarker></EnumerationResults>"
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def described(self, name: str) -> str:
        stored = self.store.files[name]
        folder = "<hdi_isfolder>true</hdi_isfolder>" if name.endswith("folder") else ""
        return (
            f"<Blob><Name>{escape(name)}</Name><Properties><Etag>0x{stored.number}</Etag>"
            f"<Last-Modified>{formatdate(stored.modified, usegmt=True)}</Last-Modified>"
            f"<Content-Length>{len(stored.data)}</Content-Length><BlobType>BlockBlob</BlobType></Properties>"
            f"<Metadata>{folder}</Metadata></Blob>"
        )


HANDLERS: dict[str, type[Handler]] = {"http": Handler, "gs": GoogleHandler, "az": AzureHandler}


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone away is no error of the server."""


@contextmanager
def serving(scheme: str) -> Iterator[Store]:
    """A server of the scheme's protocol in threads of this process."""
    store = Store()
    handler = type("Bound", (HANDLERS[scheme],), {"store": store})
    server = _Server(("127.0.0.1", 0), handler)
    store.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield store
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def url_of(scheme: str, store: Store, name: str) -> str:
    return f"{store.address}/{quote(name)}" if scheme == "http" else f"{scheme}://{BUCKET}/{name}"
