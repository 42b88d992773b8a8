"""What the name of a file tells: its format, and how it is compressed."""

from __future__ import annotations

import os
import re
from collections.abc import Collection

from compass_ray import storage
from compass_ray.errors import ConfigError

_BY_SUFFIX = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".jsonlines": "jsonl",
    ".jl": "jsonl",
    ".json": "json",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
    ".csv": "csv",
    ".tsv": "tsv",
    ".md": "markdown",
    ".markdown": "markdown",
}
"""A .txt file may hold a document or a document a line, which its name does not tell."""

_TEXTS = frozenset({"lines", "text"})
COMPRESSIONS = (".gz", ".gzip", ".bz2", ".xz", ".zst", ".zstd", ".lz4")
_PACKED_INSIDE = frozenset({"parquet", "arrow"})
_PART = re.compile(r"part[-_]|\d+_\d+$", re.IGNORECASE)
"""How Hadoop, Hive and Spark begin the names of their output, which may have no suffix."""

_ADVICE = {
    ".txt": "set {field} to 'lines' (a document a line of a .txt file) or 'text' (a document a file)",
    ".md": "set {field} to 'markdown' to read .md files",
    ".tar": "unpack archives (such as the shards of a webdataset)",
    ".avro": "write Avro and ORC as Parquet",
}
_LIKE = {".md": (".markdown",), ".tar": (".tgz", ".zip", ".7z", ".rar"), ".avro": (".orc",)}


def compression_of(url: str) -> str:
    """Find the suffix that says how a file is compressed, or nothing."""
    suffix = os.path.splitext(storage.public(url))[1].lower()
    return suffix if suffix in COMPRESSIONS else ""


def suffix_of(url: str) -> str:
    """Find the suffix that says what a file is, compressed or not."""
    name = storage.public(url)
    return os.path.splitext(name[: len(name) - len(compression_of(name))])[1].lower()


def format_of(field: str, declared: str, url: str) -> str:
    """Tell the format of a file, as declared or by its name.

    Raises
    ------
    ConfigError
        If it tells none; ``field`` is where to set it.
    """
    if declared != "auto":
        return declared
    found = _BY_SUFFIX.get(suffix_of(url))
    if found is None:
        raise ConfigError(
            f"{field}: cannot tell the format of {storage.public(url)} from its name; expected {expected()}, or set "
            f"{field}" + (" to 'lines' (a document a line) or 'text' (a document a file)" if _is_text(url) else "")
        )
    if not _readable(found, url):
        raise ConfigError(
            f"{field}: {storage.public(url)} is compressed as a whole, so that its footer is not to be found; "
            f"decompress it (files of format {found} are compressed inside)"
        )
    return found


def expected() -> str:
    """List the suffixes that tell a format, for errors."""
    return f"{', '.join(_BY_SUFFIX)} ({', '.join(COMPRESSIONS)} or not)"


def in_folder(name: str, declared: str) -> bool:
    """Tell whether a file of a folder is data.

    It is if its name tells the declared format, or any if none is declared. Markdown stands beside data of all kinds,
    so it is data only where it is declared. Where a format is, the parts that Hadoop and Spark write without a suffix
    have it.
    """
    suffix = suffix_of(name)
    if declared in _TEXTS:
        return suffix == ".txt" or _is_part(name, suffix)
    found = _BY_SUFFIX.get(suffix)
    if declared == "auto":
        return found not in (None, "markdown") and _readable(found, name)
    return (found == declared and _readable(declared, name)) or _is_part(name, suffix)


def kind_of(name: str) -> str:
    """Find all of the name that tells what a file is. To be shown: ``.jsonl.gz``, ``.tar``, or nothing."""
    return suffix_of(name) + compression_of(name)


def advice(names: Collection[str], field: str) -> list[str]:
    """Say what to do about files of a folder that are not read. Each piece of advice comes once."""
    suffixes = {suffix_of(name) for name in names}
    found = [
        text.format(field=field) for suffix, text in _ADVICE.items() if suffixes & {suffix, *_LIKE.get(suffix, ())}
    ]
    if any(_is_part(name, suffix_of(name)) for name in names):
        found.append(f"set {field} to what the files without a suffix are")
    if others := sorted(suffixes & _BY_SUFFIX.keys() - {".md", ".markdown"}):
        found.append(f"name the files by a glob (**/*{others[0]}) or correct {field}")
    return found


def _is_text(url: str) -> bool:
    return suffix_of(url) == ".txt"


def _is_part(name: str, suffix: str) -> bool:
    return not suffix and _PART.match(name.rsplit("/", 1)[-1]) is not None


def _readable(kind: str | None, url: str) -> bool:
    return kind not in _PACKED_INSIDE or not compression_of(url)
