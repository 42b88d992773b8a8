"""Single files of web servers, opened by smart_open. Passwords come from ``~/.netrc``; a signed URL holds its own.

Requests are tried again here and not by urllib3, whose warnings name the URL with its query. The errors of requests
name it too, so ours come without them (``from None``). A version is what the headers of an answer say: every answer is
held against the first, since servers may pass over ``If-Match``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from email.utils import mktime_tz, parsedate_tz
from functools import lru_cache
from typing import Any

from compass_ray.errors import ConfigError, ResourcesMissing
from compass_ray.remote.reader import (
    ATTEMPTS,
    BUFFER_BYTES,
    CONNECT_TIMEOUT_S,
    READ_TIMEOUT_S,
    Body,
    EndedEarly,
    ResumingReader,
    pause,
)
from compass_ray.remote.urls import changed, public, scrubbed

_USER = re.compile(r"\w+://[^/?#]*@")
_WILDCARD = re.compile(r"[*\[]")
_ABSENT = {404, 410}
_REFUSED = {401, 403, 407}
_PASSING = {408, 429, 500, 502, 503, 504}


@lru_cache(maxsize=1)
def session() -> Any:
    """Make the session that holds the connections of this process."""
    import requests

    return requests.Session()


class ObjectReader(ResumingReader):
    """The version of a file that is there when it is opened; ``version`` is as of :func:`head`.

    Raises
    ------
    FileNotFoundError
        On opening, if there is no file.
    ResourcesMissing
        If the server refuses, fails, or does not say what a reader must know.
    DataError
        On reading, if the file is replaced or deleted meanwhile.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        answer = _opened(url)
        size, version, _ = _described(url, answer)
        super().__init__(size, version, answer, _broken(), ATTEMPTS)

    def fetch(self, start: int) -> Body:
        try:
            answer = _opened(self._url, start)
        except FileNotFoundError as exc:
            raise changed(self._url, "it was deleted") from exc
        headers = answer.response.headers
        whole = f"bytes 0-/{headers.get('Content-Length', '')}"
        span, _, total = headers.get("Content-Range", whole).partition("/")
        size = int(total) if total.isdecimal() else self._size
        if (size, _version(headers, size)) != (self._size, self.version):
            answer.close()
            raise changed(self._url, "it was replaced")
        if not span.startswith(f"bytes {start}-"):
            answer.close()
            raise ResourcesMissing(
                f"read {public(self._url)}: asked for the bytes from {start} on, the server sent {span}; a server must "
                "support Range, so download the file and give its path"
            )
        body: Body = answer
        return body

    def readinto(self, buffer: Any) -> int:
        with errors("read", self._url):
            return super().readinto(buffer)


def head(url: str) -> tuple[int, str, float]:
    """Ask for size, version and time of a file.

    Time is in seconds since the epoch. FileNotFoundError if there is none. The version is the ETag if that is a strong
    one, else all that the server says of the file. Asked for by GET, whose body is left: what signed URLs permit, and
    what all servers answer in the same way.
    """
    with closing(_opened(url)) as answer:
        return _described(url, answer)


def check_url(url: str) -> None:
    """Refuse what does not name one file, or has a password in it.

    Raises
    ------
    ConfigError
        Without the password.
    """
    if _USER.match(url):
        raise ConfigError(
            f"{public(url)}: holds a user or a password, which would be kept and shown; put them into ~/.netrc"
        )
    if _WILDCARD.search("".join(public(url).split("/", 3)[3:])):
        raise ConfigError(f"{public(url)}: a web server lists no files, so there are no globs; list the files")


def _opened(url: str, start: int = 0) -> Any:
    """Open smart_open's stream of the bytes from ``start`` on. It is of whatever version is there."""
    import requests
    import smart_open

    check_url(url)
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    parameters = {
        "session": session(),
        "headers": headers,
        "timeout": (CONNECT_TIMEOUT_S, READ_TIMEOUT_S),
        "buffer_size": BUFFER_BYTES,
    }
    with errors("read", url):
        for attempt in range(1, ATTEMPTS + 1):
            try:
                return smart_open.open(url, "rb", compression="disable", transport_params=parameters)
            except requests.RequestException as exc:
                if attempt == ATTEMPTS or not _passes(exc):
                    raise
            pause(attempt)
    raise AssertionError("unreachable: the last attempt returns or raises")


def _described(url: str, answer: Any) -> tuple[int, str, float]:
    """Read what :func:`head` says from an answer. The request was for the whole file."""
    headers = answer.response.headers
    length = headers.get("Content-Length", "")
    version = _version(headers, length)
    if not length.isdecimal() or not version:
        answer.close()
        absent = "how long the file is (Content-Length)" if version else "its version (ETag or Last-Modified)"
        raise ResourcesMissing(
            f"read {public(url)}: the server does not say {absent}, so that a file cut short or replaced could not be "
            "told; download the file and give its path"
        )
    modified = parsedate_tz(headers.get("Last-Modified", ""))
    return int(length), version, float(mktime_tz(modified)) if modified else 0.0


def _version(headers: Mapping[str, str], size: int | str) -> str:
    """Read the version of a file. Nothing if the server says nothing of it."""
    etag = headers.get("ETag", "")
    if etag and not etag.startswith("W/"):
        return etag
    said = [value for value in (etag, headers.get("Last-Modified", "")) if value]
    return " ".join([*said, str(size)]) if said else ""


@contextmanager
def errors(action: str, url: str) -> Iterator[None]:
    """Map errors of the server and of the way to it.

    Raises
    ------
    FileNotFoundError
        If there is no such file, as on disk.
    ResourcesMissing
        If the server refuses, or does not answer as often as we ask.
    """
    import requests

    place = public(url)
    try:
        yield
    except requests.HTTPError as exc:
        status = exc.response.status_code
        if status in _ABSENT:
            raise FileNotFoundError(place) from None
        if status == 416:
            raise changed(url, "it is shorter now") from None
        raise ResourcesMissing(f"{action} {place}: the server answered {status}{_advice(status)}") from None
    except (requests.RequestException, *_broken()) as exc:
        tried = f" ({ATTEMPTS} attempts)" if isinstance(exc, _broken()) else ""
        raise ResourcesMissing(
            f"{action} {place}: {scrubbed(exc)}{tried}; check the address and the network, and run again"
        ) from None


def _advice(status: int) -> str:
    if status in _PASSING:
        return f" to the last of {ATTEMPTS} attempts; run again when it has recovered"
    if status in _REFUSED:
        return "; check that the address is right and has not expired; a password is taken from ~/.netrc"
    return "; check the address"


def _passes(exc: Any) -> bool:
    """Tell whether another attempt may succeed."""
    import requests

    return exc.response.status_code in _PASSING if isinstance(exc, requests.HTTPError) else isinstance(exc, _broken())


def _broken() -> tuple[type[Exception], ...]:
    """List the errors of what breaks, stalls or ends early. They are worth another attempt."""
    import requests
    import urllib3.exceptions

    of_requests = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
    return *of_requests, urllib3.exceptions.HTTPError, EndedEarly
