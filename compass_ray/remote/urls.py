"""What the protocols say alike: the parts of a URL, how it may be shown, and what is said of an object that changes."""

from __future__ import annotations

import re

from compass_ray.errors import ConfigError, DataError

_HTTP_SECRETS = re.compile(r"(https?://)(?:[^/?#]*@)?([^?#]*).*", re.IGNORECASE | re.DOTALL)
_SECRETS = re.compile(r"(?<=://)[^/?#\s]*@|\?[^\s'\"]*")


def bucket_key(url: str) -> tuple[str, str]:
    """The two parts of ``s3://bucket/key``, ``gs://bucket/key`` and ``az://container/key``."""
    scheme, _, path = url.partition("://")
    bucket, _, key = path.partition("/")
    if not bucket:
        what = "container" if scheme == "az" else "bucket"
        raise ConfigError(f"{url}: no {what}; expected {scheme}://{what}/path")
    return bucket, key


def public(url: str) -> str:
    """The URL as it may be kept and shown: a web address without user, password and query, which may be secrets."""
    return _HTTP_SECRETS.sub(r"\1\2", url)


def scrubbed(error: BaseException) -> str:
    """What a library says went wrong, without what may be secret in the URLs that it names."""
    return _SECRETS.sub("", str(error))


def changed(url: str, how: str) -> DataError:
    """The error for an object that is no longer the version that was opened."""
    return DataError(f"{public(url)}: changed while it was read ({how}); let writers finish and run again")
