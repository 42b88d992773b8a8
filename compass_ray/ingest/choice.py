"""The files of a source while they are chosen: those to read, and those that are named and not read, with reasons."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

from compass_ray import storage
from compass_ray.errors import ConfigError
from compass_ray.ingest import splits
from compass_ray.ingest.paths import name_below
from compass_ray.storage import FileStat

_SHOWN = 3


@dataclass(frozen=True)
class LeftOut:
    """Files that a source names and that are not read for one reason, with the names of the first of them."""

    reason: str
    files: int
    bytes: int
    names: tuple[str, ...]

    def __str__(self) -> str:
        more = ", ..." if self.files > len(self.names) else ""
        return f"{self.reason} ({splits.amount(self.files, self.bytes)}: {', '.join(self.names)}{more})"


@dataclass
class Choice:
    """Files by URL.

    Attributes
    ----------
    files : dict
        To be read.
    split : dict
        The split of each that is or was to be read; None if it is of none.
    spelled : set
        Those that are named one by one, and so read whatever the rest of their folder is.
    left : dict
        Those not to be read, and why.
    notes : list of str
        What else a user should know.
    """

    files: dict[str, FileStat] = field(default_factory=dict)
    split: dict[str, str | None] = field(default_factory=dict)
    spelled: set[str] = field(default_factory=set)
    left: dict[str, tuple[FileStat, str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def leave(self, url: str, reason: str) -> None:
        """Take a file out of those to be read."""
        self.left[url] = self.files.pop(url), reason

    def keep_for_training(self, where: str, folder: str, urls: Sequence[str]) -> None:
        """Leave the other splits of a folder out, where it has any.

        Raises
        ------
        ConfigError
            If it is not plain which they are.
        """
        try:
            names = [name_below(storage.public(folder), url) for url in urls]
            flags = splits.for_training(names, self._splits(urls), [self.files[url].size for url in urls])
        except splits.Unclear as exc:
            raise ConfigError(
                f"{where}.split: what of {storage.public(folder)} to read is not plain: it has {self._counted(urls)}; "
                "name a split or several, or 'all'"
            ) from exc
        self._keep(urls, flags)

    def keep_wanted(self, where: str, wanted: Sequence[str]) -> None:
        """Leave all out but some splits.

        Raises
        ------
        ConfigError
            If no file is of one of them.
        """
        urls = list(self.files)
        flags, absent = splits.asked_for(self._splits(urls), wanted)
        if absent:
            raise ConfigError(f"{where}.split: no file is of split '{absent[0]}'; found {self._counted(urls)}")
        self.spelled.clear()
        self._keep(urls, flags)

    def note_mixed(self, where: str) -> None:
        """Say so if several splits are read as one, of files that are not named one by one."""
        urls = [url for url in self.files if url not in self.spelled]
        if splits.are_mixed(self._splits(urls)):
            self.notes.append(f"read as one: {self._counted(urls)}; {where}.split chooses")

    def leave_aliases(self, root: str) -> None:
        """Read a file on disk once that is there by several names, through links or in upper and lower case.

        Links to one file elsewhere are several files: so the hub's cache keeps files of equal content.
        """
        names: dict[tuple[int, int], list[str]] = {}
        for url in self.files:
            if not storage.is_remote(url):
                about = os.stat(url)  # noqa: PTH116 a Path for each of many files costs more
                names.setdefault((about.st_dev, about.st_ino), []).append(url)
        start = os.path.realpath(root) if root else ""
        for same in filter(_are_several, names.values()):
            own = [url for url in same if os.path.realpath(url) == f"{start}{url.removeprefix(root)}"]
            once = {url.casefold(): url for url in reversed(own)}.values()
            for url in same if own else ():
                if url not in once:
                    self.leave(url, "another name of a file that is read")

    def left_out(self, root: str) -> tuple[LeftOut, ...]:
        """List what is not read, by reason, most bytes first. Names are told below a root."""
        groups: dict[str, list[FileStat]] = {}
        for url, (file, reason) in sorted(self.left.items()):
            if url not in self.files:
                groups.setdefault(reason, []).append(file)
        found = [
            LeftOut(
                reason,
                len(files),
                sum(file.size for file in files),
                tuple(name_below(root, file.url) for file in files[:_SHOWN]),
            )
            for reason, files in groups.items()
        ]
        return tuple(sorted(found, key=lambda one: (-one.bytes, one.reason)))

    def _keep(self, urls: Sequence[str], flags: Iterable[bool]) -> None:
        for url, kept in zip(urls, flags, strict=True):
            if not kept and url not in self.spelled:
                split = self.split[url]
                self.leave(url, f"split {split}" if split else "no split")

    def _splits(self, urls: Collection[str]) -> list[str | None]:
        return [self.split[url] for url in urls]

    def _counted(self, urls: Collection[str]) -> str:
        return splits.counted(self._splits(urls), [self.files[url].size for url in urls])


def _are_several(names: list[str]) -> bool:
    return len(names) > 1
