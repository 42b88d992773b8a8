"""The one door to files: local paths and ``s3://`` objects behind the same few functions.

Reads are smart-open streams. Writes are whole objects: a local file appears by rename, an S3
object by one PUT, so that nothing half-written is ever visible. ``replace_if`` writes only over the
version that its caller has read: compare-and-swap, by a lock on disk and by ``If-Match`` on S3.
Credentials and endpoints come from the environment alone (``AWS_ACCESS_KEY_ID``,
``AWS_ENDPOINT_URL``, ...).
"""

from __future__ import annotations

import fcntl
import glob as _glob
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, cast

from compass_ray.errors import ConfigError, ResourcesMissing

_CLASS_SPECIAL = re.compile(r"([\\\[\]^&~|])")
_ESCAPED = r"\\\1"
_VISIBLE = r"(?!\.)[^/]"
_WILDCARD = re.compile(r"[*?\[]")
_CONDITION_FAILED = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"}


@dataclass(frozen=True)
class FileStat:
    """One file as listed: its URL, size in bytes, a version that changes with its content, and when it was written."""

    url: str
    size: int
    version: str
    modified: float  # seconds since the epoch


class Changed(Exception):
    """The content to be replaced is not the version that was expected; read it again before deciding anew."""


def is_remote(url: str) -> bool:
    """Whether the URL names an object store."""
    scheme, found, _ = url.partition("://")
    if not found or scheme == "file":
        return False
    if scheme != "s3":
        raise ConfigError(f"{url}: storage scheme '{scheme}://' is not supported; use a local path or s3://")
    return True


def join(base: str, *parts: str) -> str:
    """Join path parts below a URL or a local folder."""
    return "/".join([base.rstrip("/"), *parts])


def local_path(url: str) -> Path:
    """The path of a local URL."""
    return Path(url.removeprefix("file://")).expanduser()


def absolute(url: str) -> str:
    """The URL with a local path made absolute, so that workers in other folders agree on it."""
    return url.rstrip("/") if is_remote(url) else str(local_path(url).absolute())


@lru_cache(maxsize=1)
def _s3() -> Any:
    import boto3
    from botocore.config import Config

    return boto3.client("s3", config=Config(retries={"max_attempts": 8, "mode": "standard"}))


def _bucket_key(url: str) -> tuple[str, str]:
    bucket, _, key = url.removeprefix("s3://").partition("/")
    if not bucket:
        raise ConfigError(f"{url}: no bucket; expected s3://bucket/path")
    return bucket, key


@contextmanager
def _storage_errors(action: str, url: str) -> Iterator[None]:
    """Map boto errors: absent objects are FileNotFoundError as on disk, the rest is about resources."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (ClientError, OSError) as error:
        exc = error if isinstance(error, ClientError) else error.__cause__  # smart-open wraps the store's answer
        if not isinstance(exc, ClientError):
            raise
        code = str(exc.response.get("Error", {}).get("Code", ""))
        if code in {"404", "NoSuchKey", "NotFound"}:
            raise FileNotFoundError(url) from exc
        raise ResourcesMissing(
            f"{action} {url}: the object store answered {code or exc}; check that the bucket exists "
            f"and that these credentials may {action} there"
        ) from exc
    except BotoCoreError as exc:
        raise ResourcesMissing(
            f"{action} {url}: {exc}; check AWS_ENDPOINT_URL, the network and the credentials in the environment"
        ) from exc


def open_input(url: str) -> BinaryIO:
    """Open a file for reading bytes; seekable, and never decompressed here."""
    if not is_remote(url):
        return local_path(url).open("rb")
    import smart_open

    with _storage_errors("read", url):
        return cast(
            BinaryIO,
            smart_open.open(url, "rb", compression="disable", transport_params={"client": _s3()}),
        )


def read_bytes(url: str) -> bytes:
    """The whole file.

    Raises
    ------
    FileNotFoundError
        If there is none, local or remote.
    """
    if not is_remote(url):
        return local_path(url).read_bytes()
    bucket, key = _bucket_key(url)
    with _storage_errors("read", url):
        return cast(bytes, _s3().get_object(Bucket=bucket, Key=key)["Body"].read())


def write_bytes(url: str, data: bytes | memoryview) -> None:
    """Write the whole file or nothing: readers see the old content or the new, never a part."""
    if is_remote(url):
        bucket, key = _bucket_key(url)
        with _storage_errors("write", url):
            _s3().put_object(Bucket=bucket, Key=key, Body=bytes(data))
        return
    path = local_path(url)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        with partial.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read_versioned(url: str) -> tuple[bytes, str] | None:
    """The whole file and the version that :func:`replace_if` compares; None if there is no file."""
    try:
        if not is_remote(url):
            data = local_path(url).read_bytes()
            return data, _content_version(data)
        bucket, key = _bucket_key(url)
        with _storage_errors("read", url):
            answer = _s3().get_object(Bucket=bucket, Key=key)
            return cast(bytes, answer["Body"].read()), str(answer["ETag"])
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
    if is_remote(url):
        _put_if(url, data, expected)
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


def _put_if(url: str, data: bytes, expected: str | None) -> None:
    from botocore.exceptions import ClientError

    bucket, key = _bucket_key(url)
    condition = {"IfNoneMatch": "*"} if expected is None else {"IfMatch": expected}
    try:
        with _storage_errors("write", url):
            try:
                _s3().put_object(Bucket=bucket, Key=key, Body=data, **condition)
            except ClientError as exc:
                if exc.response["Error"]["Code"] not in _CONDITION_FAILED:
                    raise
                if exc.response["ResponseMetadata"].get("RetryAttempts") and _holds(url, data):
                    return  # an attempt whose answer was lost had succeeded, and its own retry found it there
                raise Changed(url) from exc
    except FileNotFoundError as exc:  # S3 answers If-Match on an absent object so
        raise Changed(url) from exc


def _holds(url: str, data: bytes) -> bool:
    found = read_versioned(url)
    return found is not None and found[0] == data


def exists(url: str) -> bool:
    """Whether a file (not a folder) is there."""
    try:
        stat(url)
    except FileNotFoundError:
        return False
    return True


def stat(url: str) -> FileStat:
    """Size and version of one file; FileNotFoundError if there is none."""
    if is_remote(url):
        bucket, key = _bucket_key(url)
        with _storage_errors("read", url):
            head = _s3().head_object(Bucket=bucket, Key=key)
        return FileStat(url, int(head["ContentLength"]), str(head["ETag"]), head["LastModified"].timestamp())
    path = local_path(url)
    info = path.stat()
    if not path.is_file():
        raise FileNotFoundError(f"{url}: a folder, not a file")
    return FileStat(url, info.st_size, f"{info.st_mtime_ns}", info.st_mtime)


def delete(url: str) -> None:
    """Remove one file if it is there."""
    if is_remote(url):
        bucket, key = _bucket_key(url)
        with _storage_errors("delete", url):
            _s3().delete_object(Bucket=bucket, Key=key)
    else:
        local_path(url).unlink(missing_ok=True)


def delete_tree(url: str) -> None:
    """Remove a folder with all that is in it, if it is there."""
    if is_remote(url):
        for file in list_files(join(literal(url), "**")):
            delete(file.url)
    elif (path := local_path(url)).exists():
        shutil.rmtree(path)


def literal(url: str) -> str:
    """The URL as a pattern that matches itself alone."""
    return _glob.escape(url)


def root_of(pattern: str) -> str:
    """The folder part of a path or glob that holds no wildcard."""
    head = pattern[: match.start()] if (match := _WILDCARD.search(pattern)) else pattern
    return head.rsplit("/", 1)[0] if "/" in head else "."


def list_files(pattern: str) -> list[FileStat]:
    """All files that match a path or glob (``*``, ``?``, ``[...]``, and ``**`` across folders), sorted by URL."""
    if not is_remote(pattern):
        names = sorted(set(_glob.glob(str(local_path(pattern)), recursive=True)))
        return [stat(name) for name in names if Path(name).is_file() and not name.endswith("/")]
    bucket, key_pattern = _bucket_key(pattern)
    wildcard = _WILDCARD.search(key_pattern)
    prefix = key_pattern[: wildcard.start()] if wildcard else key_pattern
    matches = re.compile(_glob_regex(key_pattern))
    found = []
    with _storage_errors("list", pattern):
        for page in _s3().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for item in page.get("Contents", []):
                if not item["Key"].endswith("/") and matches.fullmatch(item["Key"]):
                    url, written = f"s3://{bucket}/{item['Key']}", item["LastModified"].timestamp()
                    found.append(FileStat(url, int(item["Size"]), str(item["ETag"]), written))
    return sorted(found, key=lambda file: file.url)


def _glob_regex(pattern: str) -> str:
    """A glob over object keys as a regular expression, with the meaning that ``glob`` gives it on disk.

    Wildcards stay inside one name, but for a ``**`` that is a whole name; they do not match hidden names.
    """
    *folders, last = pattern.split("/")
    parents = "".join(f"(?:{_VISIBLE}+/)*" if name == "**" else _name_regex(name) + "/" for name in folders)
    return parents + (f"(?:{_VISIBLE}+/)*{_VISIBLE}+" if last == "**" else _name_regex(last))


def _name_regex(name: str) -> str:
    parts = [r"(?!\.)"] if name.startswith(("*", "?", "[")) else []
    for piece in re.findall(r"\*+|\?|\[!?\]?[^\]]*\]|.", name, re.DOTALL):
        if piece[0] == "*":
            parts.append("[^/]*")
        elif piece == "?":
            parts.append("[^/]")
        elif piece[0] == "[" and len(piece) > 2:
            negated = piece[1] == "!"
            members = _CLASS_SPECIAL.sub(_ESCAPED, piece[1 + negated : -1])
            parts.append(f"[{'^/' if negated else ''}{members}]")
        else:
            parts.append(re.escape(piece))
    return "".join(parts)


def arrow_filesystem(url: str) -> tuple[Any, str]:
    """A pyarrow filesystem and the path in it, for libraries that read Arrow datasets."""
    import pyarrow.fs

    if not is_remote(url):
        return pyarrow.fs.LocalFileSystem(), str(local_path(url))
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    options = {"endpoint_override": endpoint} if endpoint else {}
    return pyarrow.fs.S3FileSystem(**options), url.removeprefix("s3://")
