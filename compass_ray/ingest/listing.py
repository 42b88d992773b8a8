"""Which files a source has: what its paths name, without what is hidden, stale, of another split or no data.

Whatever is named and not read is counted with its reason, for people to see. Nothing is read but the files that say
which of the others hold.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import takewhile

from compass_ray import storage
from compass_ray.errors import ConfigError, DataError, EmptyInput
from compass_ray.ingest.choice import Choice, LeftOut
from compass_ray.ingest.config import FilesConfig
from compass_ray.ingest.files import InputFile
from compass_ray.ingest.folders import ABOUT, Folder, read_folder, read_matches
from compass_ray.ingest.formats import advice, expected, format_of, is_delimited
from compass_ray.ingest.overlap import refuse_linked, refuse_written
from compass_ray.ingest.paths import Named, find, name_below

_POINTER = b"version https://git-lfs.github.com/spec/"
_POINTER_BYTES = range(100, 1024)  # as its specification has them
_PLAIN_TEXT = frozenset({"text", "lines", "markdown"})


@dataclass(frozen=True)
class Listing:
    """The files of a source by uri, those that it names and that are not read, and what else a user should know."""

    files: list[InputFile]
    left_out: tuple[LeftOut, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def said(self) -> list[str]:
        """Lines for people; none if all that is named is read as a matter of course."""
        left = [f"not read: {', '.join(map(str, self.left_out))}"] if self.left_out else []
        return [*left, *self.notes]


def list_source(name: str, source: FilesConfig, section: str = "sources", written: Sequence[str] = ()) -> Listing:
    """List the files of a source. None is hashed, so the version stands for the content.

    Parameters
    ----------
    section : str
        Where the config has the source, for errors.
    written : sequence of str
        Folders that the run itself writes.

    Raises
    ------
    EmptyInput
        If a path matches nothing, or no file is left.
    ConfigError
        If a format cannot be told from a name, or a split has to be named; if two files differ only in the query of
        their addresses; if files lie where the run writes.
    DataError
        If a folder is not whole: what says which of its files hold names some that are not there, or a file is only a
        pointer to one in Git LFS.
    """
    where = f"{section}.{name}"
    named = _named(where, source.paths, written)
    root = _common([each.root for each in named])
    uris = {file.url: name_below(root, file.url) for each in named for file in each.files}
    if len(set(uris.values())) < len(uris):
        raise ConfigError(
            f"{where}.path: addresses that differ only in their queries, which are not kept; make a source of each"
        )
    choice = _choose(where, source, named, _excluded(where, source, uris))
    choice.leave_aliases(root)
    left_out = choice.left_out(root)
    if not choice.files:
        raise EmptyInput(f"{where}: no file is left to read; not read: {', '.join(map(str, left_out))}")
    folders = {url.rpartition("/")[0] for url in choice.files if not storage.is_remote(url)}
    refuse_linked(f"{where}.path", sorted(folders), written)
    formats = {url: format_of(f"{where}.format", source.format, url) for url in choice.files}
    _refuse_useless_dialect(where, source, {*formats.values()})
    files = [
        InputFile(url, uris[url], file.size, file.version, formats[url], file.version, source.dialect, file.changed_ns)
        for url, file in choice.files.items()
    ]
    _refuse_pointers(files)
    return Listing(sorted(files, key=lambda file: file.uri), left_out, tuple(choice.notes))


def _refuse_useless_dialect(where: str, source: FilesConfig, formats: set[str]) -> None:
    if source.dialect_fields and not any(map(is_delimited, formats)):
        raise ConfigError(
            f"{where}.{source.dialect_fields[0]}: csv and tsv have one, and the source has only "
            f"{' and '.join(sorted(formats))} files; remove it, or set format"
        )


def _named(where: str, paths: Sequence[str], written: Sequence[str]) -> list[Named]:
    """Find what each path names: at least one file."""
    schemes = sorted({storage.scheme_of(path) for path in paths})
    if len(schemes) > 1:
        mixed = " and ".join(f"{scheme}://" if scheme else "local paths" for scheme in schemes)
        raise ConfigError(f"{where}.path: mixes {mixed}; make a source of each")
    refuse_written(f"{where}.path", paths, written)
    named = [find(path) for path in paths]
    for path, each in zip(paths, named, strict=True):
        if not each.files:
            found = [f"{len(each.hidden):,} hidden"] if each.hidden else []
            found += [f"a link to nothing ({each.broken[0].url})"] if each.broken else []
            raise EmptyInput(
                f"{where}.path: no file matches {storage.public(path)}"
                + (f", only {' and '.join(found)}" if found else "")
                + "; check the path, the glob and the variables"
            )
    return named


def _common(roots: Sequence[str]) -> str:
    """Find the folder that holds all roots. Empty names count: object stores have them."""
    levels = zip(*(root.split("/") for root in roots), strict=False)
    return "/".join(names[0] for names in takewhile(lambda names: len(set(names)) == 1, levels))


def _excluded(where: str, source: FilesConfig, uris: dict[str, str]) -> set[str]:
    excluded = {url for url, uri in uris.items() if any(fnmatch.fnmatch(uri, glob) for glob in source.exclude)}
    if uris.keys() == excluded:
        raise EmptyInput(f"{where}.exclude: leaves none of {len(uris)} files; found {source.exclude}")
    return excluded


def _choose(where: str, source: FilesConfig, named: Sequence[Named], excluded: Collection[str]) -> Choice:
    """Choose the files to read of all that is named."""
    choice = Choice()
    wanted = source.wanted_splits
    for each in named:
        urls = _look(where, each, source.format, excluded, choice)
        if each.kind == "folder" and wanted is None:
            choice.keep_for_training(where, each.root, urls)
    if wanted:
        choice.keep_wanted(where, wanted)
    elif source.split is None:
        choice.note_mixed(where)
    return choice


def _look(where: str, named: Named, declared: str, excluded: Collection[str], choice: Choice) -> list[str]:
    """Add what a path names to the choice; the URLs of what of it is data."""
    files = {named.name_of(file): file for file in named.files}
    if named.kind == "folder":
        hidden = [named.name_of(file) for file in named.hidden]
        found = read_folder(files, hidden, declared, f"{where}.path")
        if not found.splits:
            raise _no_data(where, named, found, declared)
    else:
        found = read_matches(files, named.pattern)
    choice.notes += [f"{storage.public(named.root)}: {note}" for note in found.notes]
    data = {files[name].url: name for name in found.splits if files[name].url not in excluded}
    choice.files |= {url: files[name] for url, name in data.items()}
    choice.split |= {url: found.splits[name] for url, name in data.items()}
    choice.spelled |= set(data) if named.kind == "file" else set()
    left = [(files[name], reason) for name, reason in found.left.items()]
    left += [(file, "hidden") for file in named.hidden] + [(file, "a link to nothing") for file in named.broken]
    choice.left |= {file.url: (file, reason) for file, reason in left if file.url not in excluded}
    return list(data)


def _no_data(where: str, named: Named, found: Folder, declared: str) -> ConfigError | EmptyInput:
    """Make the error for a folder of which no file is data."""
    field = f"{where}.format"
    left = Choice(left={file.url: (file, found.left[named.name_of(file)]) for file in named.files}).left_out(named.root)
    todo = advice([name for name, reason in found.left.items() if reason != ABOUT], field)
    error = ConfigError if any(field in text for text in todo) else EmptyInput
    return error(
        f"{where}.path: no data below {storage.public(named.root)}: expected "
        + (f"names that end in {expected()}" if declared == "auto" else f"files whose names tell the format {declared}")
        + f", found {', '.join(map(str, left))}"
        + "".join(f"; {text}" for text in todo)
    )


def _refuse_pointers(files: Sequence[InputFile]) -> None:
    """Refuse files on disk whose content is elsewhere: a clone without Git LFS has a few lines in place of each."""
    for file in files:
        if file.size in _POINTER_BYTES and file.format not in _PLAIN_TEXT and not storage.is_remote(file.url):
            with storage.open_input(file.url) as stream:
                if stream.read(len(_POINTER)) == _POINTER:
                    raise DataError(
                        f"{file.place}: a pointer to a file in Git LFS, not its data; run git lfs pull in its folder"
                    )
