"""What the protocols say alike: the parts of a URL, how it may be shown, and what is said of an object that changes."""

from __future__ import annotations

import re

from compass_ray.errors import ConfigError, DataError

_HTTP_SECRETS = re.compile(r"(https?://)(?:[^/?#]*@)?([^?#]*).*", re.IGNORECASE | re.DOTALL)
_SECRETS = re.compile(r"(?<=://)[^/?#\s]*@|\?[^\s'\"]*")


def bucket_key(url: str) -> tuple[str, str]:
    """Split ``s3://bucket/key``, ``gs://bucket/key`` and ``az://container/key`` into their two parts."""
    scheme, _, path = url.partition("://")
    bucket, _, key = path.partition("/")
    if not bucket:
        what = "container" if scheme == "az" else "bucket"
        raise ConfigError(f"{url}: no {what}; expected {scheme}://{what}/path")
    return bucket, key


def public(url: str) -> str:
    """Write the URL as it may be kept and shown.

    A web address is without user, password and query, which may be secrets.
    """
    return _HTTP_SECRETS.sub(r"\1\2", url)


def scrubbed(error: BaseException) -> str:
    """Remove what may be secret from what a library says went wrong. It is in the URLs that the library names."""
    return _SECRETS.sub("", str(error))


def changed(url: str, how: str) -> DataError:
    """Make the error for an object that is no longer the version opened."""
    return DataError(f"{public(url)}: changed while it was read ({how}); let writers finish and run again")
