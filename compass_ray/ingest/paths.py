"""What a path of a source names: one file, all that is below a folder, or what a glob matches.

A path that is there as it is spelled is taken so, wildcards and all: ``usage[1].jsonl`` is that file before it is a
glob. Cost in an object store: one request for a file, else one per thousand objects below what holds no wildcard.
"""

from __future__ import annotations

import errno
import glob
import os
import re
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from compass_ray import storage
from compass_ray.errors import ResourcesMissing
from compass_ray.remote import globs
from compass_ray.storage import FileStat


@dataclass(frozen=True)
class Named:
    """The files that a path names.

    Attributes
    ----------
    root : str
        The folder that they are told apart below: the one that is named, or what of a path holds no wildcard.
    files : list of FileStat
    kind : {"file", "folder", "glob"}
        What was named.
    pattern : str
        The glob below the root.
    hidden : list of FileStat
        Files that were not named, because they or a folder on the way begin with ``.`` or ``_``.
    broken : list of FileStat
        Links that lead nowhere, of no size.
    """

    root: str
    files: list[FileStat] = field(default_factory=list)
    kind: Literal["file", "folder", "glob"] = "file"
    pattern: str = ""
    hidden: list[FileStat] = field(default_factory=list)
    broken: list[FileStat] = field(default_factory=list)

    def name_of(self, file: FileStat) -> str:
        """Tell the path of a file below the root."""
        return name_below(self.root, file.url)


def name_below(root: str, url: str) -> str:
    """Tell the path of a file below a folder. It is without what may be secret in its URL."""
    return storage.public(url).removeprefix(root).removeprefix("/")


def find(path: str) -> Named:
    """Find what a path names. No files if that is nothing.

    Raises
    ------
    ConfigError
        For a glob over ``http(s)://``, or another scheme.
    ResourcesMissing
        If a folder may not be listed.
    """
    if not storage.is_remote(path):
        return _find_local(storage.absolute(path))
    if not storage.has_folders(path):
        return Named(_parent(storage.public(path)), storage.list_files(path))
    return _find_objects(path)


def is_hidden(name: str) -> bool:
    """Tell whether a name is one that programs keep for themselves.

    ``.git`` and ``_temporary`` are, but not ``_lang=sw``.

    >>> [name for name in (".git", "_SUCCESS", "_lang=sw", "sw") if is_hidden(name)]
    ['.git', '_SUCCESS']
    """
    return name.startswith(".") or (name.startswith("_") and "=" not in name)


def _find_objects(path: str) -> Named:
    if globs.literal_start(path) == path:
        return _object_or_folder(path)
    path = path.rstrip("/")
    listed = storage.list_start(path)
    root, pattern = globs.literally(path, lambda start: any(_is_below(file.url, start) for file in listed))
    if not pattern:
        exact = [file for file in listed if file.url == root and file.size]
        below = [file for file in listed if file.url.startswith(f"{root}/")]
        return Named(_parent(root), exact) if exact or not below else _visible(Named(root, below, "folder"))
    matches = re.compile(globs.as_regex(pattern))
    start = f"{root}/"
    files = [file for file in listed if file.url.startswith(start) and matches.fullmatch(file.url[len(start) :])]
    return _visible(Named(root, files, "glob", pattern))


def _object_or_folder(path: str) -> Named:
    """Find an object that holds something, else what is below it. If there is nothing, find an empty object."""
    exact = []
    if not path.endswith("/"):
        try:
            exact = [storage.stat(path)]
        except FileNotFoundError:
            exact = []
    folder = path.removesuffix("/")
    below = [] if exact and exact[0].size else storage.list_start(f"{folder}/")
    return _visible(Named(folder, below, "folder")) if below else Named(_parent(folder), exact)


def _is_below(url: str, start: str) -> bool:
    return url == start or url.startswith(f"{start}/")


def _find_local(path: str) -> Named:
    root, pattern = globs.literally(path, os.path.lexists)
    if not pattern:
        if Path(root or "/").is_dir():
            return _visible(_tree(root))
        return _described(_parent(root), [root])
    names = {f"{root}/{name}" for name in glob.glob(pattern, root_dir=root or "/", recursive=True)}
    described = _described(root, sorted(name for name in names if not name.endswith("/")))
    return _visible(replace(described, kind="glob", pattern=pattern))


def _described(root: str, names: Sequence[str]) -> Named:
    """Find the files among some names."""
    found = Named(root)
    for name in names:
        if Path(name).is_symlink() and not Path(name).exists():
            found.broken.append(_broken(name))
            continue
        try:
            found.files.append(storage.stat(name))
        except FileNotFoundError:  # a folder, or a file that another program has deleted since
            continue
    return found


def _tree(root: str) -> Named:
    found = Named(root, kind="folder")
    _walk(root, (), found)
    found.files.sort(key=lambda file: file.url)
    return found


def _walk(folder: str, above: tuple[tuple[int, int], ...], found: Named) -> None:
    """Collect the files below a folder. Links are followed, but not into a folder that they are in."""
    about = Path(folder).stat()
    here = (about.st_dev, about.st_ino)
    if here in above:
        return
    try:
        with os.scandir(folder) as listed:
            entries = list(listed)
    except PermissionError as exc:
        if above and is_hidden(Path(folder).name):
            return
        raise ResourcesMissing(f"list {folder}: {exc.strerror}; give permission, or name its files by a glob") from exc
    for entry in entries:
        try:
            if entry.is_dir():
                _walk(entry.path, (*above, here), found)
            elif stat.S_ISREG((info := entry.stat()).st_mode):
                found.files.append(FileStat.local(entry.path, info))
        except OSError as exc:
            if exc.errno not in (errno.ENOENT, errno.ELOOP):
                raise
            if entry.is_symlink():  # else another program has deleted it since
                found.broken.append(_broken(entry.path))


def _broken(path: str) -> FileStat:
    return FileStat(path, 0, "", 0.0)


def _visible(named: Named) -> Named:
    """Set aside what is hidden below the root and not spelled so in the pattern."""
    spelled = sum(map(is_hidden, named.pattern.split("/")))

    def hides(file: FileStat) -> bool:
        return sum(map(is_hidden, named.name_of(file).split("/"))) > spelled

    return replace(
        named,
        files=[file for file in named.files if not hides(file)],
        hidden=[file for file in named.files if hides(file)],
        broken=[file for file in named.broken if not hides(file)],
    )


def _parent(url: str) -> str:
    return url.rsplit("/", 1)[0] if "/" in url else "."
