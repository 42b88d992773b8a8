"""The files of sources: what identifies them, and how they are shared out among read tasks."""

from __future__ import annotations

import concurrent.futures
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from compass_ray import storage
from compass_ray.errors import DataError
from compass_ray.ingest.config import Dialect
from compass_ray.ingest.formats import FORMATS, compression_of

_EXPANSION = 4


@dataclass(frozen=True)
class InputFile:
    """One file of a source: where it is, what it is called inside, and what it contains."""

    url: str
    uri: str
    size: int
    version: str
    format: str
    content: str  # hash of the bytes, or the object's version
    dialect: Dialect = field(default_factory=Dialect)  # of delimited text, as far as the config says
    changed_ns: int = 0  # as in FileStat

    @property
    def place(self) -> str:
        """Where it is, to be shown."""
        return storage.public(self.url)

    @property
    def compression(self) -> str:
        """The suffix that says how it is compressed, or nothing."""
        return compression_of(self.url)

    @property
    def in_ranges(self) -> bool:
        """Whether it can be entered at any line."""
        return FORMATS[self.format].in_ranges and not self.compression

    @property
    def weight(self) -> int:
        """Bytes after decompression, estimated by format alone."""
        return self.size * (_EXPANSION if self.compression else FORMATS[self.format].expansion)


@dataclass(frozen=True)
class ReadUnit:
    """What one read task reads: a whole file, or the lines that start in a byte range."""

    source: str
    file: InputFile
    start: int = 0
    end: int | None = None

    @property
    def weight(self) -> int:
        """Bytes after decompression, estimated."""
        return self.file.weight if self.end is None else self.end - self.start


def read_units(files: Mapping[str, list[InputFile]], range_bytes: int) -> list[ReadUnit]:
    """Split all files into read tasks: byte ranges of plain line files, everything else whole."""
    units: list[ReadUnit] = []
    for source, members in files.items():
        for file in members:
            if file.in_ranges and file.size > range_bytes:
                starts = range(0, file.size, range_bytes)
                units += [ReadUnit(source, file, start, min(start + range_bytes, file.size)) for start in starts]
            else:
                units.append(ReadUnit(source, file))
    return units


def check_unchanged(file: InputFile) -> None:
    """Fail if a file is no longer the one that was fingerprinted."""
    now = storage.stat(file.url)
    if (now.size, now.version) != (file.size, file.version):
        raise DataError(
            f"{file.place}: changed while it was read (was {file.size} bytes, version {file.version}; "
            f"now {now.size} bytes, version {now.version}); let writers finish and run again"
        )


class HashCache:
    """Content hashes of local files, kept by path, size and times; remote files bring a version.

    The time of writing alone will not do: ``cp -p``, ``rsync -t`` and unpacked archives set it back.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        try:
            self._known: dict[str, str] = json.loads(storage.read_bytes(url))
        except FileNotFoundError:
            self._known = {}

    def with_content(self, files: Sequence[InputFile]) -> list[InputFile]:
        """Give each file a hash of its content."""
        missing = [file for file in files if not storage.is_remote(file.url) and _key(file) not in self._known]
        with concurrent.futures.ThreadPoolExecutor() as pool:
            self._known.update(zip(map(_key, missing), pool.map(_hash_file, missing), strict=True))
        if missing:
            storage.write_bytes(self._url, json.dumps(self._known, indent=0, sort_keys=True).encode())
        return [
            replace(file, content=file.version if storage.is_remote(file.url) else self._known[_key(file)])
            for file in files
        ]


def _key(file: InputFile) -> str:
    return f"{file.url}|{file.size}|{file.version}|{file.changed_ns}"


def _hash_file(file: InputFile) -> str:
    total = hashlib.blake2b(digest_size=16)
    with storage.open_input(file.url) as stream:
        while chunk := stream.read(1 << 20):
            total.update(chunk)
    return total.hexdigest()
