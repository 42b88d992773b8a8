"""Which files a source has, and how they are split among read tasks."""

from __future__ import annotations

import concurrent.futures
import fnmatch
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from compass_ray import storage
from compass_ray.errors import ConfigError, DataError, EmptyInput
from compass_ray.ingest.config import DELIMITED, Dialect, FilesConfig

_BY_SUFFIX = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".csv": "csv",
    ".tsv": "tsv",
    ".md": "markdown",
}
"""A .txt file may hold a document or a document a line, which its name does not tell."""

_IN_FOLDERS = {"lines": (".txt",), "text": (".txt",), "markdown": (".md", ".markdown")}
_NOT_DATA = ("dataset_info.json", "dataset_dict.json", "state.json", "cache-*.arrow")
"""What stands beside the data in the folders of ``datasets``."""

_COMPRESSIONS = (".gz", ".bz2", ".xz", ".zst")
_IN_RANGES = frozenset({"jsonl", "lines"})
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
        return self.format in _IN_RANGES and not self.compression

    @property
    def weight(self) -> int:
        """Bytes after decompression, estimated by format alone."""
        return self.size * (_EXPANSION if self.compression or self.format == "parquet" else 1)


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


def source_files(name: str, source: FilesConfig, cache: HashCache, section: str = "sources") -> list[InputFile]:
    """The files of a source, sorted by uri, each with a hash of its content; errors as :func:`list_source`."""
    files = list_source(name, source, section)
    content = cache.content_of(files)
    return [replace(file, content=content[file.url]) for file in files]


def list_source(name: str, source: FilesConfig, section: str = "sources") -> list[InputFile]:
    """The files of a source, sorted by uri. None is read, so the version stands for the content.

    ``section`` is where the config has it, for errors.

    Raises
    ------
    EmptyInput
        If a path or glob matches nothing.
    ConfigError
        If a format cannot be told from the name, or two files differ only in the query of their addresses.
    """
    patterns = [storage.absolute(path) for path in source.paths]
    schemes = sorted({storage.scheme_of(pattern) for pattern in patterns})
    if len(schemes) > 1:
        mixed = " and ".join(f"{scheme}://" if scheme else "local paths" for scheme in schemes)
        raise ConfigError(f"{section}.{name}.path: mixes {mixed}; make a source of each")
    listed: dict[str, storage.FileStat] = {}
    roots = []
    for given, pattern in zip(source.paths, patterns, strict=True):
        matched = storage.list_files(pattern)
        roots.append(storage.root_of(pattern) if matched else pattern)
        matched = matched or _list_folder(pattern, source.format)
        if not matched:
            raise EmptyInput(
                f"{section}.{name}.path: no file matches {storage.public(given)}; check the path, the glob and the "
                "variables"
            )
        listed.update({file.url: file for file in matched})
    root = re.sub(r"^(\w+):/", r"\1://", os.path.commonpath(roots))  # of two slashes it leaves one
    uris = {url: storage.public(url).removeprefix(root).lstrip("/") for url in listed}
    if len(set(uris.values())) < len(uris):
        raise ConfigError(
            f"{section}.{name}.path: addresses that differ only in their queries, which are not kept; make a source "
            "of each"
        )
    kept = [
        file for url, file in listed.items() if not any(fnmatch.fnmatch(uris[url], glob) for glob in source.exclude)
    ]
    if not kept:
        raise EmptyInput(f"{section}.{name}.exclude: leaves none of {len(listed)} files; found {source.exclude}")
    formats = {file.url: format_of(f"{section}.{name}.format", source.format, file.url) for file in kept}
    if source.dialect_fields and not DELIMITED & {*formats.values()}:
        raise ConfigError(
            f"{section}.{name}.{source.dialect_fields[0]}: csv and tsv have one, and the source has only "
            f"{' and '.join(sorted({*formats.values()}))} files; remove it, or set format"
        )
    files = [
        InputFile(file.url, uris[file.url], file.size, file.version, formats[file.url], file.version, source.dialect)
        for file in kept
    ]
    return sorted(files, key=lambda file: file.uri)


def _list_folder(folder: str, declared: str) -> list[storage.FileStat]:
    """The files below a folder whose names tell the declared format, or any format if none is declared."""
    if not storage.has_folders(folder):
        return []
    return [
        file
        for file in storage.list_files(storage.join(folder, "**"))
        if (name := file.url.rsplit("/", 1)[1])
        and not any(fnmatch.fnmatch(name, pattern) for pattern in _NOT_DATA)
        and (suffix_of(name) in _IN_FOLDERS[declared] if declared in _IN_FOLDERS else _tells(name, declared))
    ]


def _tells(name: str, declared: str) -> bool:
    found = _BY_SUFFIX.get(suffix_of(name))
    return found == declared if declared != "auto" else found not in (None, "markdown")


def compression_of(url: str) -> str:
    """The suffix that says how a file is compressed, or nothing."""
    suffix = os.path.splitext(storage.public(url))[1].lower()
    return suffix if suffix in _COMPRESSIONS else ""


def suffix_of(url: str) -> str:
    """The suffix that says what a file is, compressed or not."""
    name = storage.public(url)
    return os.path.splitext(name[: len(name) - len(compression_of(name))])[1].lower()


def format_of(field: str, declared: str, url: str) -> str:
    """The declared format, or the one that the name of a file tells.

    Raises
    ------
    ConfigError
        If it tells none; ``field`` is where to set it.
    """
    if declared != "auto":
        return declared
    suffix = suffix_of(url)
    if suffix not in _BY_SUFFIX:
        raise ConfigError(
            f"{field}: cannot tell the format of {storage.public(url)} from its name; expected {', '.join(_BY_SUFFIX)} "
            f"({', '.join(_COMPRESSIONS)} or not), or set {field}"
            + (" to 'lines' (a document a line) or 'text' (a document a file)" if suffix == ".txt" else "")
        )
    return _BY_SUFFIX[suffix]


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
    """Content hashes of local files, kept by path, size and modification time; remote files bring a version."""

    def __init__(self, url: str) -> None:
        self._url = url
        try:
            self._known: dict[str, str] = json.loads(storage.read_bytes(url))
        except FileNotFoundError:
            self._known = {}

    def content_of(self, files: Sequence[storage.FileStat | InputFile]) -> dict[str, str]:
        """A content hash for each file, by URL."""
        keys = {file.url: f"{file.url}|{file.size}|{file.version}" for file in files}
        missing = [file for file in files if not storage.is_remote(file.url) and keys[file.url] not in self._known]
        with concurrent.futures.ThreadPoolExecutor() as pool:
            found = dict(zip((file.url for file in missing), pool.map(_hash_file, missing), strict=True))
        self._known.update({keys[url]: content for url, content in found.items()})
        if found:
            storage.write_bytes(self._url, json.dumps(self._known, indent=0, sort_keys=True).encode())
        return {
            file.url: file.version if storage.is_remote(file.url) else self._known[keys[file.url]] for file in files
        }


def _hash_file(file: storage.FileStat | InputFile) -> str:
    total = hashlib.blake2b(digest_size=16)
    with storage.open_input(file.url) as stream:
        while chunk := stream.read(1 << 20):
            total.update(chunk)
    return total.hexdigest()
