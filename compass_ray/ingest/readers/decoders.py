"""Decompressors that lose nothing: neither what stands before damage nor, in silence, what stands behind a stream."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from functools import partial
from typing import Any, BinaryIO

import pyarrow as pa

_PIECE_BYTES = 64 << 10


class _Streams:
    """Compressed streams one after another, and nothing else but legal padding.

    What is behind the first stream and cannot be read, the standard library takes for garbage and is silent; and zeros
    behind it, if they are few, for a stream that breaks off.
    """

    def __init__(self, stream: BinaryIO, new: Callable[[], Any], padding: int = 0) -> None:
        self._stream, self._new, self._padding = stream, new, padding
        self._decoder = new()
        self._held = b""

    def read1(self, size: int) -> bytes:
        while True:
            if self._decoder.eof:
                self._held = self._behind(self._decoder.unused_data)
                if not self._held:
                    return b""
                self._decoder = self._new()
            if self._decoder.needs_input and not self._held:
                self._held = self._stream.read(_PIECE_BYTES)
                if not self._held:
                    raise EOFError("there is no end-of-stream marker")
            piece, self._held = self._held, b""
            if data := self._decoder.decompress(piece, size):
                return bytes(data)

    def _behind(self, held: bytes) -> bytes:
        """Read what comes behind a stream and its padding."""
        held = held or self._stream.read(_PIECE_BYTES)
        zeros = 0
        while self._padding and held.startswith(b"\0"):
            bare = held.lstrip(b"\0")
            zeros += len(held) - len(bare)
            held = bare or self._stream.read(_PIECE_BYTES)
        if zeros and zeros % self._padding:
            raise lzma.LZMAError(f"{zeros} zeros behind a stream; padding is a multiple of {self._padding}")
        return held


class _ByArrow:
    """A codec of Arrow's, which drops all that one read has decoded if that read fails: then it is read by bytes."""

    def __init__(self, stream: BinaryIO, codec: str) -> None:
        self._stream, self._codec = stream, codec
        self._given = 0
        self._by_bytes = False
        self._start()

    def read1(self, size: int) -> bytes:
        try:
            data: bytes = self._decoder.read(1 if self._by_bytes else size)
        except OSError as exc:
            if exc.errno is not None or self._by_bytes:
                raise
            self._read_again()
            return self.read1(size)
        self._given += len(data)
        return data

    def _start(self) -> None:
        self._decoder = pa.CompressedInputStream(pa.PythonFile(self._stream, mode="r"), self._codec)

    def _read_again(self) -> None:
        """Decode all that was given once more, and from there on byte by byte."""
        self._failed = self._decoder  # would close the stream if it were collected
        self._stream.seek(0)
        self._start()
        passed = 0
        while passed < self._given:
            passed += len(self._decoder.read(min(_PIECE_BYTES, self._given - passed)))
        self._by_bytes = True


DECODERS: dict[str, tuple[str, Callable[[BinaryIO], Any]]] = {
    ".gz": ("gzip", gzip.open),
    ".gzip": ("gzip", gzip.open),
    ".bz2": ("bzip2", partial(_Streams, new=bz2.BZ2Decompressor)),
    ".xz": ("xz", partial(_Streams, new=lzma.LZMADecompressor, padding=4)),
    ".zst": ("Zstandard", partial(_ByArrow, codec="zstd")),
    ".zstd": ("Zstandard", partial(_ByArrow, codec="zstd")),
    ".lz4": ("LZ4", partial(_ByArrow, codec="lz4")),
}
"""By suffix: what it is called, and a stream over a compressed one, of which ``read1`` is used."""
