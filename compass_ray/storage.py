"""The one door to files: local paths, ``s3://`` objects and what is only read, behind the same few functions.

Reads are streams that go on where a connection broke, of local files, ``s3://``, ``gs://``, ``az://`` and ``http(s)://``.
Writes are local or to ``s3://``, and whole: a local file appears by rename, an S3 object by one PUT, so that nothing
half-written is ever visible. ``replace_if`` writes only over the version that its caller has read: compare-and-swap, by
a lock on disk and by ``If-Match`` on S3. Credentials and endpoints come from the environment alone
(``AWS_ACCESS_KEY_ID``, ``AWS_ENDPOINT_URL``, ...). What is retried, and what is guaranteed: ``docs/howto/storage.md``.
"""

from __future__ import annotations

import errno
import fcntl
import glob as _glob
import hashlib
import io
import os
import re
import secrets
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, BinaryIO, TypeVar, cast

from compass_ray.errors import ConfigError, ResourcesMissing
from compass_ray.remote import azure, gcs, globs, http, s3
from compass_ray.remote.reader import BUFFER_BYTES, ObjectStream
from compass_ray.remote.urls import bucket_key
from compass_ray.remote.urls import public as public  # part of this door

T = TypeVar("T")
R = TypeVar("R")

_PROTOCOLS: dict[str, ModuleType] = {"s3": s3, "gs": gcs, "az": azure, "http": http, "https": http}
_WRITABLE = {"", "s3"}
_REFUSED = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM}


@dataclass(frozen=True)
class FileStat:
    """One file as listed.

    Attributes
    ----------
    url : str
    size : int
        Bytes.
    version : str
        Changes with the content, on disk unless its writer sets the time back.
    modified : float
        When it was written, seconds since the epoch.
    changed_ns : int
        On disk, when content, name or owner were last changed, in nanoseconds: no program can set that, but copies on
        several nodes have each their own.
    """

    url: str
    size: int
    version: str
    modified: float
    changed_ns: int = 0

    @classmethod
    def local(cls, path: str, info: os.stat_result) -> FileStat:
        """Describe a file on disk as the operating system does."""
        return cls(path, info.st_size, f"{info.st_mtime_ns}", info.st_mtime, info.st_ctime_ns)


class Changed(Exception):
    """The content to be replaced is not the version that was expected; read it again before deciding anew."""


def scheme_of(url: str) -> str:
    """Read the scheme of a remote URL; nothing for a local path.

    Raises
    ------
    ConfigError
        If it is none that can be read.
    """
    scheme, found, _ = url.partition("://")
    if not found or scheme == "file":
        return ""
    if scheme not in _PROTOCOLS:
        raise ConfigError(
            f"{public(url)}: storage scheme '{scheme}://' is not supported; use a local path or s3:// (sources may be "
            "gs://, az://, http:// and https:// too)"
        )
    return scheme


def is_remote(url: str) -> bool:
    """Tell whether the URL is no local path."""
    return bool(scheme_of(url))


def has_folders(url: str) -> bool:
    """Tell whether files can be listed there; a web server has single files."""
    return _protocol(url) is not http


def check_address(url: str) -> None:
    """Fail if a URL is a web address that names no single file, or has a password in it."""
    if url.startswith(("http://", "https://")):
        http.check_url(url)


def refuse_read_only(url: str) -> None:
    """Fail if a URL is one that we only read."""
    if (scheme := scheme_of(url)) not in _WRITABLE:
        raise ConfigError(
            f"{public(url)}: '{scheme}://' can be read, not written; write to a local path or s3://, and copy it there"
        )


def _protocol(url: str) -> ModuleType | None:
    return _PROTOCOLS.get(scheme_of(url))


def _reader(url: str) -> ObjectStream:
    reader: ObjectStream = _PROTOCOLS[scheme_of(url)].ObjectReader(url)
    return reader


def join(base: str, *parts: str) -> str:
    """Join path parts below a URL or a local folder."""
    return "/".join([base.rstrip("/"), *parts])


def local_path(url: str) -> Path:
    """Turn a local URL into its path."""
    return Path(url.removeprefix("file://")).expanduser()


def absolute(url: str) -> str:
    """Make the local path of a URL absolute. So workers in other folders agree on it."""
    if not is_remote(url):
        return str(local_path(url).absolute())
    return url.rstrip("/") if has_folders(url) else url


@contextmanager
def _disk_errors(path: Path, size: int) -> Iterator[None]:
    """Map what the file system refuses; other errors of the operating system are not about resources."""
    try:
        yield
    except OSError as exc:
        if exc.errno not in _REFUSED:
            raise
        raise ResourcesMissing(
            f"write {path} ({size:,} bytes): {exc.strerror}; make room or give permission there, then run the same "
            "command again to go on"
        ) from exc


def open_input(url: str) -> BinaryIO:
    """Open a file for reading bytes; seekable, and never decompressed here.

    Raises
    ------
    FileNotFoundError
        If there is none, local or remote.
    DataError
        While it is read: a remote file has been replaced or deleted since it was opened.
    """
    if not is_remote(url):
        return local_path(url).open("rb")
    return cast(BinaryIO, io.BufferedReader(_reader(url), BUFFER_BYTES))


def read_bytes(url: str) -> bytes:
    """Read the whole file.

    Raises
    ------
    FileNotFoundError
        If there is none, local or remote.
    """
    if not is_remote(url):
        return local_path(url).read_bytes()
    with _reader(url) as stream:
        return stream.readall()


def write_bytes(url: str, data: bytes | memoryview) -> None:
    """Write the whole file or nothing: readers see the old content or the new, never a part.

    Raises
    ------
    ResourcesMissing
        If the disk is full, or the disk or the object store does not permit it.
    """
    refuse_read_only(url)
    if is_remote(url):
        s3.put(url, data)
        return
    path = local_path(url)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    with _disk_errors(path, len(data)):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def read_versioned(url: str) -> tuple[bytes, str] | None:
    """Read the whole file and the version that :func:`replace_if` compares. None if there is no file."""
    try:
        if not is_remote(url):
            data = local_path(url).read_bytes()
            return data, _content_version(data)
        with _reader(url) as stream:
            return stream.readall(), stream.version
    except FileNotFoundError:
        return None


def replace_if(url: str, data: bytes, expected: str | None) -> None:
    """Write the whole file, but only over the version that was read; one of many writers at once succeeds.

    Writers of one file must all use this function. On disk a version is a hash of the content, so content that has to
    tell apart two equal states counts its own changes.

    Parameters
    ----------
    expected : str or None
        The version from :func:`read_versioned`; None if there must not be a file.

    Raises
    ------
    Changed
        If there is another version, or none. Nothing has been written.
    """
    refuse_read_only(url)
    if is_remote(url):
        if not s3.put(url, data, {"IfNoneMatch": "*"} if expected is None else {"IfMatch": expected}):
            raise Changed(url)
        return
    path = local_path(url)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(".lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # let go of when the file is closed, or its process dies
        found = read_versioned(url)
        if (found[1] if found else None) != expected:
            raise Changed(url)
        write_bytes(url, data)


def _content_version(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def exists(url: str) -> bool:
    """Tell whether a file (not a folder) is there."""
    try:
        stat(url)
    except FileNotFoundError:
        return False
    return True


def stat(url: str) -> FileStat:
    """Read size and version of one file; FileNotFoundError if there is none."""
    if remote := _protocol(url):
        return FileStat(url, *remote.head(url))
    path = local_path(url)
    info = path.stat()
    if not path.is_file():
        raise FileNotFoundError(f"{url}: a folder, not a file")
    return FileStat.local(url, info)


def delete(url: str) -> None:
    """Remove one file if it is there."""
    refuse_read_only(url)
    if is_remote(url):
        s3.delete(url)
    else:
        local_path(url).unlink(missing_ok=True)


def delete_all(urls: Sequence[str]) -> None:
    """Remove files of one folder or bucket, where they are there; an object store needs a request per thousand."""
    for url in urls:
        refuse_read_only(url)
    if urls and is_remote(urls[0]):
        s3.delete_all(urls)
    else:
        for url in urls:
            delete(url)


def delete_tree(url: str) -> None:
    """Remove a folder with all that is in it, if it is there."""
    refuse_read_only(url)
    if is_remote(url):
        delete_all([file.url for file in list_files(join(literal(url), "**"))])
    elif (path := local_path(url)).exists():
        shutil.rmtree(path)


def in_parallel(function: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """Yield results of a function that reads files, in the items' order. What costs is the wait for each answer.

    At most twice as many results as an object store has connections are held at once.
    """
    pool = ThreadPoolExecutor(s3.CONNECTIONS)
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            if len(waiting) == 2 * s3.CONNECTIONS:
                yield waiting.popleft().result()
            waiting.append(pool.submit(function, item))
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def check_writable(folder: str) -> None:
    """Write, read and delete a file below a folder, so that what is not permitted shows before hours of work.

    Raises
    ------
    ConfigError
        If its scheme is one that we only read.
    ResourcesMissing
        That names what may not be done.
    """
    with probe(folder):
        pass


@contextmanager
def probe(folder: str) -> Iterator[str]:
    """Write a small file below a folder, and read it back. It is deleted when the block is left; errors as above."""
    url, content = join(folder, f".check-{secrets.token_hex(8)}"), secrets.token_bytes(64)
    try:
        write_bytes(url, content)
        try:
            if read_bytes(url) != content:
                raise ResourcesMissing(f"read {url}: other bytes than were written; use another store")
            yield url
        finally:
            delete(url)
    except OSError as exc:
        raise ResourcesMissing(f"write {url}: {exc}; choose an output folder that this user may write") from exc


def literal(url: str) -> str:
    """Turn a URL into a pattern that matches itself alone."""
    return _glob.escape(url)


def root_of(pattern: str) -> str:
    """Find the folder part of a path or glob that holds no wildcard."""
    head = globs.literal_start(pattern)
    return head.rsplit("/", 1)[0] if "/" in head else "."


def list_files(pattern: str) -> list[FileStat]:
    """List all files that match a path or glob, sorted by URL.

    A glob has ``*``, ``?``, ``[...]``, and ``**`` across folders.

    Raises
    ------
    ConfigError
        For a glob over ``http(s)://``.
    """
    if not is_remote(pattern):
        names = sorted(set(_glob.glob(str(local_path(pattern)), recursive=True)))
        return list(_still_there(name for name in names if not name.endswith("/")))
    if not has_folders(pattern):
        return list(_still_there([pattern]))
    matches = re.compile(globs.as_regex(bucket_key(pattern)[1]))
    return [file for file in list_start(pattern) if matches.fullmatch(bucket_key(file.url)[1])]


def list_start(pattern: str) -> list[FileStat]:
    """List all objects that begin as a pattern does.

    The empty ones that stand for folders are left out; it takes a request per thousand.
    """
    bucket, key = bucket_key(pattern)
    listed = cast(ModuleType, _protocol(pattern)).list_objects(pattern, globs.literal_start(key))
    start = f"{scheme_of(pattern)}://{bucket}/"
    found = [FileStat(start + name, *about) for name, *about in listed if not name.endswith("/")]
    if marks := {file.url for file in found if not file.size}:
        marks &= {file.url[: slash.start()] for file in found for slash in re.finditer("/", file.url)}
    return sorted((file for file in found if file.url not in marks), key=lambda file: file.url)


def _still_there(names: Iterable[str]) -> Iterator[FileStat]:
    """Yield the files that are there among some names. Another program may delete one after it has been listed."""
    for name in names:
        try:
            yield stat(name)
        except FileNotFoundError:
            continue


def arrow_filesystem(url: str) -> tuple[Any, str]:
    """Make a pyarrow filesystem and the path in it. They are for libraries that read Arrow datasets."""
    import pyarrow.fs

    refuse_read_only(url)
    if not is_remote(url):
        return pyarrow.fs.LocalFileSystem(), str(local_path(url))
    return s3.arrow_filesystem(), url.removeprefix("s3://")
