"""How the delimited files of a source are read: what was told from each, to be said of a run."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from compass_ray.ingest.config import DELIMITED, Limits
from compass_ray.ingest.files import InputFile
from compass_ray.ingest.readers import Unreadable
from compass_ray.ingest.readers.delimited import layout_of

_AT_ONCE = 16


def layouts(files: Sequence[InputFile], columns: Sequence[str]) -> dict[str, list[str]]:
    """The uris of delimited files, in order, by their layout in words.

    Files of other formats are passed over, and those that cannot be read, which are rejects of the run. Cost: each is
    opened, and its first 4 MiB are read.
    """
    delimited = [file for file in files if file.format in DELIMITED]
    found: dict[str, list[str]] = {}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        told = pool.map(lambda file: _layout(file, columns), delimited)
        for file, layout in zip(delimited, told, strict=True):
            if layout is not None:
                found.setdefault(layout, []).append(file.uri)
    return found


def _layout(file: InputFile, columns: Sequence[str]) -> str | None:
    try:
        return str(layout_of(file, columns, Limits()))
    except Unreadable:
        return None
