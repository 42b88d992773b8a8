"""Sources that would read what their own run writes: refused, lest a run takes the cache of the one before for data."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import product

from compass_ray import storage
from compass_ray.errors import ConfigError
from compass_ray.remote import globs

_DEPTH = 5
_WRITTEN = ["ingest-0/0.parquet", "selection/README.md", "selection/sw/train-00000-of-00001.parquet"] + [
    "/".join(["x"] * depth) + suffix
    for depth, suffix in product(range(1, _DEPTH + 1), (".json", ".parquet", ".md", ".safetensors"))
]
"""Names such as those that runs write below their folders, to be compared with globs."""


def refuse_written(field: str, paths: Iterable[str], written: Sequence[str]) -> None:
    """Refuse paths that reach into folders that the run writes: by their place, or as globs.

    A path below the output is fine if it is none of them, such as the selection of another run.

    Parameters
    ----------
    field : str
        Where the config has the paths.
    paths : iterable of str
        Files, folders or globs.
    written : sequence of str
        Folders.

    Raises
    ------
    ConfigError
    """
    for path in paths:
        for folder in written:
            if any(_reaches(root, pattern, _real(folder)) for root, pattern in _readings(path)):
                raise _refusal(field, path, folder)


def refuse_linked(field: str, folders: Iterable[str], written: Sequence[str]) -> None:
    """Refuse folders on disk, in which files of a source were found, that links have led to where the run writes.

    Raises
    ------
    ConfigError
    """
    for path in folders:
        for folder in written:
            if _within(os.path.realpath(path), _real(folder)):
                raise _refusal(field, path, folder)


def _refusal(field: str, path: str, folder: str) -> ConfigError:
    return ConfigError(
        f"{field}: {storage.public(path)} takes in {folder}, which runs of this config write, so that the next would "
        "read it as data; move the output elsewhere, or name the data by a glob that leaves it out"
    )


def _readings(path: str) -> Iterator[tuple[str, str]]:
    """Yield the folder or file that a path begins with.

    With it comes the glob below it. Both readings come where it may be no glob.
    """
    if not storage.is_remote(path):
        root, pattern = globs.literally(storage.absolute(path), os.path.lexists)
        yield os.path.realpath(root), pattern
        return
    path = path.rstrip("/")
    yield path, ""
    if globs.literal_start(path) != path:
        yield globs.literally(path, lambda _: False)


def _reaches(root: str, pattern: str, folder: str) -> bool:
    if _within(root, folder):
        return True
    if not _within(folder, root):
        return False
    matches = re.compile(globs.as_regex(pattern))
    below = folder.removeprefix(root).strip("/")
    return not pattern or any(matches.fullmatch(f"{below}/{name}") for name in _WRITTEN)


def _within(inner: str, outer: str) -> bool:
    return inner == outer or inner.startswith(outer.rstrip("/") + "/")


def _real(folder: str) -> str:
    absolute = storage.absolute(folder)
    return absolute if storage.is_remote(folder) else os.path.realpath(absolute)
