"""Which formats there are, and what the name of a file tells: its format, and how it is compressed."""

from __future__ import annotations

import os
import re
from collections.abc import Collection
from dataclasses import dataclass

from compass_ray import storage
from compass_ray.errors import ConfigError


@dataclass(frozen=True)
class FileFormat:
    """How files of one format are known and read.

    Attributes
    ----------
    reader : str
        A module, and the function in it that yields batches of rows.
    suffixes : sequence of str
        Which end the names of such files. None for text: a ``.txt`` file may hold a document or a document a line.
    in_ranges : bool
        Whether a file may be entered at any line; rows are then numbered by the byte at which they begin.
    one_row : bool
        Whether a file is one document.
    delimited : bool
        Whether files have a dialect and perhaps a header.
    packed_inside : bool
        Whether files are compressed inside, if at all, and have a footer that is lost if they are compressed whole.
    data_in_folders : bool
        Whether such files in a folder are data, though no format is declared.
    expansion : int
        Bytes that one of the file becomes, about.
    """

    reader: str
    suffixes: tuple[str, ...] = ()
    in_ranges: bool = False
    one_row: bool = False
    delimited: bool = False
    packed_inside: bool = False
    data_in_folders: bool = True
    expansion: int = 1


_HERE = "compass_ray.ingest.readers"

FORMATS: dict[str, FileFormat] = {
    "jsonl": FileFormat(f"{_HERE}.jsonl:read_jsonl", (".jsonl", ".ndjson", ".jsonlines", ".jl"), in_ranges=True),
    "json": FileFormat(f"{_HERE}.json_array:read_json", (".json",)),
    "parquet": FileFormat(f"{_HERE}.parquet:read_parquet", (".parquet", ".pq"), packed_inside=True, expansion=4),
    "arrow": FileFormat(f"{_HERE}.arrow:read_arrow", (".arrow", ".feather"), packed_inside=True),
    "csv": FileFormat(f"{_HERE}.delimited:read_delimited", (".csv",), delimited=True),
    "tsv": FileFormat(f"{_HERE}.delimited:read_delimited", (".tsv",), delimited=True),
    "lines": FileFormat(f"{_HERE}.text:read_lines_of_text", in_ranges=True),
    "text": FileFormat(f"{_HERE}.text:read_file_of_text", one_row=True),
    "markdown": FileFormat(f"{_HERE}.text:read_markdown", (".md", ".markdown"), one_row=True, data_in_folders=False),
}
"""What ``format`` may say beside ``auto``. A further format is a row here and the reader that the row names."""


COMPRESSIONS = (".gz", ".gzip", ".bz2", ".xz", ".zst", ".zstd", ".lz4")
_PART = re.compile(r"part[-_]|\d+_\d+$", re.IGNORECASE)
"""How Hadoop, Hive and Spark begin the names of their output, which may have no suffix."""

_ADVICE = {
    ".txt": "set {field} to 'lines' (a document a line of a .txt file) or 'text' (a document a file)",
    ".md": "set {field} to 'markdown' to read .md files",
    ".tar": "unpack archives (such as the shards of a webdataset)",
    ".avro": "write Avro and ORC as Parquet",
}
_LIKE = {".md": (".markdown",), ".tar": (".tgz", ".zip", ".7z", ".rar"), ".avro": (".orc",)}


def is_delimited(name: str) -> bool:
    """Tell whether files of a format have a dialect; those of ``auto`` may."""
    return name == "auto" or FORMATS[name].delimited


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
    found = _by_suffix().get(suffix_of(url))
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
    return f"{', '.join(_by_suffix())} ({', '.join(COMPRESSIONS)} or not)"


def in_folder(name: str, declared: str) -> bool:
    """Tell whether a file of a folder is data.

    It is if its name tells the declared format, or any if none is declared. Markdown stands beside data of all kinds,
    so it is data only where it is declared. Where a format is, the parts that Hadoop and Spark write without a suffix
    have it.
    """
    suffix = suffix_of(name)
    if declared != "auto" and not FORMATS[declared].suffixes:
        return suffix == ".txt" or _is_part(name, suffix)
    found = _by_suffix().get(suffix)
    if declared == "auto":
        return found is not None and FORMATS[found].data_in_folders and _readable(found, name)
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
    if others := sorted(suffixes & {one for one, name in _by_suffix().items() if FORMATS[name].data_in_folders}):
        found.append(f"name the files by a glob (**/*{others[0]}) or correct {field}")
    return found


def _by_suffix() -> dict[str, str]:
    return {suffix: name for name, kind in FORMATS.items() for suffix in kind.suffixes}


def _is_text(url: str) -> bool:
    return suffix_of(url) == ".txt"


def _is_part(name: str, suffix: str) -> bool:
    return not suffix and _PART.match(name.rsplit("/", 1)[-1]) is not None


def _readable(name: str, url: str) -> bool:
    return not FORMATS[name].packed_inside or not compression_of(url)
