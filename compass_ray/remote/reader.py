"""A seekable stream over a remote object that goes on at the byte where its connection broke.

Client libraries retry a request until its answer begins; a connection that breaks in the middle of the body is left to
their callers. Cost: one request to open, one for each seek that leaves the buffer, one for each break.
"""

from __future__ import annotations

import io
import random
import time
from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

BUFFER_BYTES = 256 << 10
_BACKOFF_S = 0.05
_MAX_BACKOFF_S = 20.0


class Body(Protocol):
    """The body of an answer. It must raise where it ends before the length that was announced."""

    def readinto(self, buffer: Any, /) -> int: ...
    def close(self) -> None: ...


class ResumingReader(io.RawIOBase):
    """One version of a remote object: never a part as if it were the whole, never two versions mixed.

    Parameters
    ----------
    size : int
        Of the object in bytes.
    body : Body
        The object from its first byte on.
    broken : tuple of exception types
        What a body raises when its connection breaks, stalls or ends early.
    attempts : int
        How many times in a row a read may break before its error is raised.
    """

    def __init__(self, size: int, body: Body, broken: tuple[type[Exception], ...], attempts: int) -> None:
        super().__init__()
        self._size = size
        self._body: Body | None = body
        self._broken = broken
        self._attempts = attempts
        self._position = 0

    @abstractmethod
    def fetch(self, start: int) -> Body:
        """The body from a byte on, of the version that was opened; any other must be refused."""

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        target = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if target < 0:
            raise ValueError(f"seek to {target}: before the start")
        if target != self._position:
            self._drop()
            self._position = target
        return target

    def readinto(self, buffer: WriteableBuffer) -> int:
        for attempt in range(1, self._attempts + 1):
            if self._body is None:
                if self._position >= self._size:
                    return 0
                self._body = self.fetch(self._position)
            try:
                count = self._body.readinto(buffer)
            except self._broken:
                self._drop()
                if attempt == self._attempts:
                    raise
                time.sleep(random.random() * min(_BACKOFF_S * 2**attempt, _MAX_BACKOFF_S))  # noqa: S311 - jitter
                continue
            self._position += count
            return count
        raise AssertionError("unreachable: the last attempt returns or raises")

    def readall(self) -> bytes:
        return b"".join(iter(lambda: self.read(BUFFER_BYTES) or b"", b""))

    def close(self) -> None:
        self._drop()
        super().close()

    def _drop(self) -> None:
        body, self._body = self._body, None
        if body is not None:
            body.close()
