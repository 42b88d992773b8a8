r"""Files -> decompressed bytes -> lines, in pieces of bounded size.

Lines are split on ``b"\n"`` alone: ``str.splitlines`` would cut JSON strings that hold U+2028 or U+0085. What a
decompressor says of bad data becomes :class:`Unreadable`; what the operating system or the object store says stays the
error it is, because a failing disk is not a bad file.
"""

from __future__ import annotations

import codecs
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, BinaryIO, cast

from compass_ray import storage
from compass_ray.ingest.files import InputFile
from compass_ray.ingest.readers.batch import CHUNK_BYTES, RAW_BYTES, Fault, Limits, Unreadable, line_too_long
from compass_ray.ingest.readers.decoders import DECODERS

_PIECE_BYTES = 64 << 10
_OTHER_ENCODINGS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE)


@contextmanager
def open_decoded(file: InputFile, limits: Limits) -> Iterator[BinaryIO]:
    """Open the bytes of a file, decompressed by its name. Only plain files are seekable."""
    with storage.open_input(file.url) as stream:
        decoded = decompressed(stream, file, limits)
        try:
            yield decoded
        except Unreadable as exc:
            exc.lost_bytes = file.size - _used_bytes(exc.at, stream, decoded)
            raise


def _used_bytes(at: int | None, stream: BinaryIO, decoded: BinaryIO) -> int:
    """Tell how much of a file was read, on disk. ``at`` is after decompression."""
    if at is None:
        return stream.tell()
    if isinstance(decoded, _Decoded):
        return stream.tell() * at // max(1, decoded.count)
    return at


def decompressed(stream: BinaryIO, file: InputFile, limits: Limits) -> BinaryIO:
    """Decompress the stream of a file by the file's name."""
    return cast(BinaryIO, _Decoded(stream, file.compression, limits.file_bytes)) if file.compression else stream


class _Decoded(io.RawIOBase):
    """A decompressor that ends with :class:`Unreadable` at damage and at a ceiling."""

    def __init__(self, stream: BinaryIO, compression: str, ceiling: int) -> None:
        self._name, decoder = DECODERS[compression]
        self._ceiling = ceiling
        self.count = 0  # of bytes handed on
        self._damage: Unreadable | None = None
        with self._faults():
            self._decoder = decoder(stream)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not len(buffer):
            return 0
        if self._damage is not None:
            raise self._damage
        try:
            with self._faults():
                data = self._decoder.read1(min(len(buffer), _PIECE_BYTES))
        except Unreadable as exc:
            self._damage = exc
            raise
        self.count += len(data)
        if self.count > self._ceiling:
            raise Unreadable(
                "too_large",
                f"decompresses to more than {self._ceiling:,} bytes; raise ingest.max_file_bytes to read it",
            )
        buffer[: len(data)] = data
        return len(data)

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """Translate what decompressors raise; each has its own way to say the same two things."""
        try:
            yield
        except EOFError as exc:
            raise Unreadable("truncated_file", f"compressed data end too early: {exc}") from exc
        except (gzip.BadGzipFile, zlib.error, lzma.LZMAError) as exc:
            raise Unreadable("corrupt_file", f"not {self._name} data: {exc}") from exc
        except OSError as exc:
            if exc.errno is not None:
                raise
            if "Truncated" in str(exc):
                raise Unreadable("truncated_file", f"compressed data end too early: {exc}") from exc
            raise Unreadable("corrupt_file", f"not {self._name} data: {exc}") from exc


class Prefixed(io.RawIOBase):
    """A stream after bytes that were taken from it."""

    def __init__(self, prefix: bytes, stream: BinaryIO) -> None:
        self._prefix = memoryview(prefix)
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        piece = self._prefix[: len(buffer)]
        self._prefix = self._prefix[len(piece) :]
        data = piece or self._stream.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def peek(stream: BinaryIO, size: int) -> tuple[bytes, BinaryIO]:
    """Read the first bytes of a stream that nothing was read from. With them comes a stream that still has them."""
    head = next(chunks(stream, size), b"")
    if stream.seekable():
        stream.seek(0)
        return head, stream
    return head, cast(BinaryIO, Prefixed(head, stream))


def chunks(stream: BinaryIO, size: int) -> Iterator[bytes]:
    """Yield a stream in pieces of ``size`` bytes. At damage, what was read before it comes, and then the error."""
    held: list[bytes] = []
    have = 0
    try:
        while piece := stream.read(size - have):
            held.append(piece)
            have += len(piece)
            if have >= size:
                yield b"".join(held)
                held, have = [], 0
    except Unreadable:
        if held:
            yield b"".join(held)
        raise
    if held:
        yield b"".join(held)


@dataclass
class Lines:
    """Lines that follow one another, without their ends."""

    offset: int  # of the first line, in decompressed bytes
    lines: list[bytes] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)


def read_lines(stream: BinaryIO, start: int, end: int | None, limits: Limits) -> Iterator[Lines]:
    """Read all lines that start in ``[start, end)``.

    The last may run past ``end``. A line longer than ``limits.row_bytes`` is a fault and is passed over without being
    held. A byte order mark of UTF-8 is not content; one of another encoding makes the file unreadable.
    """
    if start:
        stream.seek(0)
        if stream.read(4).startswith(_OTHER_ENCODINGS):
            return  # the first range says so
        stream.seek(start - 1)
    passing = start > 0  # over the rest of a line that another range holds, or that is too long
    offset = max(0, start - 1)  # of data[0]
    data = b""
    size = CHUNK_BYTES if end is None else min(CHUNK_BYTES, end - start + _PIECE_BYTES)  # little beyond a short range
    try:
        for chunk in chunks(stream, size):
            if offset == 0 and not data and not passing:
                check_encoding(chunk)
            if passing:
                first = chunk.find(b"\n") + 1
                if not first:
                    offset += len(chunk)
                    continue
                offset, data, passing = offset + first, chunk[first:], False
            else:
                data += chunk
            stop = data.find(b"\n", max(0, end - offset - 1)) + 1 if end is not None else 0
            cut = stop or data.rfind(b"\n") + 1
            if cut and (end is None or offset < end):
                yield _checked(Lines(offset, data[: cut - 1].split(b"\n")), limits)
            if stop or (end is not None and offset + cut >= end):
                return
            offset, data = offset + cut, data[cut:]
            if len(data) > limits.row_bytes:
                yield Lines(offset, faults=[_too_long(offset, data, limits)])
                offset, data, passing = offset + len(data), b"", True
    except Unreadable as exc:
        exc.at = offset
        raise
    if data and (end is None or offset < end):
        yield Lines(offset, [data])


def _checked(block: Lines, limits: Limits) -> Lines:
    """Make faults of lines of a block that are too long. They become blank, so that offsets stay right."""
    offset = block.offset
    if max(map(len, block.lines)) <= limits.row_bytes:
        return block
    for index, line in enumerate(block.lines):
        if len(line) > limits.row_bytes:
            block.faults.append(_too_long(offset, line, limits))
            block.lines[index] = b" " * len(line)
        offset += len(line) + 1
    return block


def check_encoding(head: bytes) -> None:
    """Refuse what begins with the byte order mark of another encoding than UTF-8."""
    if head.startswith(_OTHER_ENCODINGS):
        raise Unreadable(
            "undecodable_bytes", "begins with the byte order mark of UTF-16 or UTF-32; convert it to UTF-8", at=0
        )


def _too_long(offset: int, data: bytes, limits: Limits) -> Fault:
    return Fault(offset, "row_too_large", line_too_long(limits.row_bytes), data[:RAW_BYTES])
