"""Seekable streams over one version of a remote object.

Client libraries retry a request until its answer begins; a connection that breaks in the middle of the body is left to
their callers. :class:`ResumingReader` goes on at the byte where it broke. Cost: one request to open, one for each seek
that leaves the buffer, one for each break. :class:`RangedReader` is for libraries that ask for an object range by range
and repeat a range that breaks.
"""

from __future__ import annotations

import io
import random
import time
from abc import abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from compass_ray.errors import ResourcesMissing
from compass_ray.remote.urls import changed

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BUFFER_BYTES = 256 << 10
ATTEMPTS = 8
CONNECT_TIMEOUT_S = 10
READ_TIMEOUT_S = 30
_BACKOFF_S = 0.05
_MAX_BACKOFF_S = 20.0


class EndedEarly(Exception):
    """An answer that is shorter than the object, though nothing seemed to be wrong with it."""


class Body(Protocol):
    """The body of an answer. It should raise where it ends before the length that was announced."""

    def readinto(self, buffer: Any, /) -> int: ...
    def close(self) -> None: ...


def pause(attempt: int) -> None:
    """Wait before the next attempt: twice as long after each, and never as long as others that failed with us."""
    time.sleep(random.random() * min(_BACKOFF_S * 2**attempt, _MAX_BACKOFF_S))  # noqa: S311 - jitter


class ObjectStream(io.RawIOBase):
    """One version of a remote object: never a part as if it were the whole, never two versions mixed.

    Parameters
    ----------
    size : int
        Of the object in bytes.
    version : str
        What changes with its content.
    """

    def __init__(self, size: int, version: str) -> None:
        super().__init__()
        self.version = version
        self._size = size
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        target = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if target < 0:
            raise ValueError(f"seek to {target}: before the start")
        self._position = target
        return target

    def readall(self) -> bytes:
        return b"".join(iter(lambda: self.read(BUFFER_BYTES) or b"", b""))


class ResumingReader(ObjectStream):
    """A body that is asked for again from the byte where it broke.

    Parameters
    ----------
    size, version
        As of :class:`ObjectStream`.
    body : Body
        The object from its first byte on.
    broken : tuple of exception types
        What a body raises when its connection breaks, stalls or ends early.
    attempts : int
        How many times in a row a read may break before its error is raised.
    """

    def __init__(self, size: int, version: str, body: Body, broken: tuple[type[Exception], ...], attempts: int) -> None:
        super().__init__(size, version)
        self._body: Body | None = body
        self._broken: tuple[type[Exception], ...] = (*broken, EndedEarly)
        self._attempts = attempts

    @abstractmethod
    def fetch(self, start: int) -> Body:
        """Fetch the body from a byte on, of the version that was opened. Any other must be refused."""

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        before = self._position
        if super().seek(offset, whence) != before:
            self._drop()
        return self._position

    def readinto(self, buffer: WriteableBuffer) -> int:
        for attempt in range(1, self._attempts + 1):
            if self._body is None:
                if self._position >= self._size:
                    return 0
                self._body = self.fetch(self._position)
            try:
                count = self._body.readinto(buffer)
                if not count and self._position < self._size:
                    raise EndedEarly(f"the answer ended at byte {self._position:,} of {self._size:,}")
            except self._broken:
                self._drop()
                if attempt == self._attempts:
                    raise
                pause(attempt)
                continue
            self._position += count
            return count
        raise AssertionError("unreachable: the last attempt returns or raises")

    def close(self) -> None:
        self._drop()
        super().close()

    def _drop(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            body.close()


class RangedReader(ObjectStream):
    """A stream of smart_open over a store whose client asks for ranges of one version, and again if that fails.

    Parameters
    ----------
    url : str
        For messages.
    size, version
        As of :class:`ObjectStream`.
    stream : file object
        Seekable, of that version alone.
    errors : callable
        ``errors(action, url)`` maps what the client raises, as ``with`` block.
    """

    def __init__(
        self,
        url: str,
        size: int,
        version: str,
        stream: BinaryIO,
        errors: Callable[[str, str], AbstractContextManager[None]],
    ) -> None:
        super().__init__(size, version)
        self._url = url
        self._stream = stream
        self._errors = errors

    def readinto(self, buffer: WriteableBuffer) -> int:
        if self._position >= self._size:
            return 0
        try:
            with self._errors("read", self._url):
                if self._stream.tell() != self._position:
                    self._stream.seek(self._position)
                count: int = self._stream.readinto(buffer)  # type: ignore[attr-defined]
        except FileNotFoundError as exc:
            raise changed(self._url, "it was replaced or deleted") from exc
        if not count:
            raise ResourcesMissing(
                f"read {self._url}: the object store sent nothing from byte {self._position:,} of {self._size:,} on; "
                "run again when it has recovered"
            )
        self._position += count
        return count

    def close(self) -> None:
        self._stream.close()
        super().close()
