"""Objects of Azure Blob Storage, to be read: ``az://container/path``. The account comes from the environment alone.

smart_open opens the streams; Azure's client asks for ranges of one ETag, and again for one that fails or breaks. Errors
come without their cause (``from None``): that may name a URL with its shared access signature.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from compass_ray.errors import ConfigError, ResourcesMissing
from compass_ray.remote.reader import CONNECT_TIMEOUT_S, READ_TIMEOUT_S, RangedReader
from compass_ray.remote.urls import bucket_key, changed, scrubbed

RETRIES = 5
RETRY_BASE_S = 2  # to the power of 1, 2, ... RETRIES: about a minute in all
_RANGE_BYTES = 4 << 20
_REFUSED = {401, 403}


@lru_cache(maxsize=1)
def client() -> Any:
    """Make the client of this process. It is safe to share among threads.

    Raises
    ------
    ConfigError
        If the environment names no account.
    """
    from azure.storage.blob import BlobServiceClient

    bounds: dict[str, Any] = {
        "connection_timeout": CONNECT_TIMEOUT_S,
        "read_timeout": READ_TIMEOUT_S,
        "initial_backoff": 0,
        "increment_base": RETRY_BASE_S,
        "random_jitter_range": RETRY_BASE_S,
        **dict.fromkeys(("retry_total", "retry_connect", "retry_read", "retry_status"), RETRIES),
    }
    connection = os.environ.get("AZURE_STORAGE_CONNECTION_STRING")
    account = os.environ.get("AZURE_STORAGE_ACCOUNT")
    if connection:
        try:
            return BlobServiceClient.from_connection_string(connection, **bounds)
        except ValueError as exc:
            raise ConfigError(
                f"AZURE_STORAGE_CONNECTION_STRING: {exc}; copy it from the account's access keys"
            ) from exc
    if not account:
        raise ConfigError(
            "az://: the environment names no account; set AZURE_STORAGE_CONNECTION_STRING, or AZURE_STORAGE_ACCOUNT "
            "and AZURE_STORAGE_KEY or AZURE_STORAGE_SAS_TOKEN"
        )
    return BlobServiceClient(f"https://{account}.blob.core.windows.net", _credential(), **bounds)


def _credential() -> Any:
    """Find a key, a shared access signature, or an identity. None is enough for public containers."""
    from azure.core.credentials import AzureSasCredential

    if key := os.environ.get("AZURE_STORAGE_KEY"):
        return key
    if token := os.environ.get("AZURE_STORAGE_SAS_TOKEN"):
        return AzureSasCredential(token)
    try:
        from azure.identity import DefaultAzureCredential
    except ImportError:
        return None
    return DefaultAzureCredential()


class ObjectReader(RangedReader):
    """The version of an object that is there when it is opened; ``version`` is its ETag.

    Raises
    ------
    FileNotFoundError
        On opening, if there is no object.
    DataError
        On reading, if the object is replaced or deleted meanwhile.
    """

    def __init__(self, url: str) -> None:
        import smart_open

        size, version, _ = head(url)
        stream = smart_open.open(
            f"azure://{'/'.join(bucket_key(url))}",
            "rb",
            compression="disable",
            transport_params={"client": _OneVersion(url, size, version), "buffer_size": _RANGE_BYTES},
        )
        super().__init__(url, size, version, stream, errors)


class _OneVersion:
    """What smart_open asks of a blob's client, about the one version alone."""

    def __init__(self, url: str, size: int, version: str) -> None:
        self._blob = _blob(url)
        self._size = size
        self._etag = f'"{version}"'

    def get_blob_properties(self) -> dict[str, int]:
        return {"size": self._size}

    def download_blob(self, **options: Any) -> Any:
        from azure.core import MatchConditions

        return self._blob.download_blob(
            etag=self._etag, match_condition=MatchConditions.IfNotModified, decompress=False, **options
        )


def head(url: str) -> tuple[int, str, float]:
    """Ask for size, version and time of an object.

    Time is in seconds since the epoch. FileNotFoundError if there is none.
    """
    with errors("read", url):
        found = _blob(url).get_blob_properties()
    return found.size, found.etag.strip('"'), found.last_modified.timestamp()


def list_objects(url: str, prefix: str) -> Iterator[tuple[str, int, str, float]]:
    """List the objects of the URL's container whose key begins so. Each comes as key, size, version and time."""
    container, _ = bucket_key(url)
    with errors("list", url):
        blobs = client().get_container_client(container).list_blobs(name_starts_with=prefix, include=["metadata"])
        for blob in blobs:
            if (blob.metadata or {}).get("hdi_isfolder") != "true":  # how hierarchical accounts mark their folders
                yield blob.name, blob.size, blob.etag.strip('"'), blob.last_modified.timestamp()


def _blob(url: str) -> Any:
    return client().get_blob_client(*bucket_key(url))


@contextmanager
def errors(action: str, url: str) -> Iterator[None]:
    """Map errors of the store and of the way to it.

    Raises
    ------
    FileNotFoundError
        If there is no such object, as on disk.
    DataError
        If the object is not the version that was asked for.
    ResourcesMissing
        If the store refuses, or does not answer as often as we ask.
    """
    from azure.core.exceptions import AzureError

    container, _ = bucket_key(url)
    try:
        yield
    except AzureError as exc:
        status = getattr(exc, "status_code", None)
        if status == 412:
            raise changed(url, "it was replaced") from None
        if status == 404 and action != "list":
            raise FileNotFoundError(url) from None
        raise ResourcesMissing(f"{action} {url}: {_refusal(action, container, status, exc)}") from None


def _refusal(action: str, container: str, status: int | None, exc: Exception) -> str:
    """Say what the store answered, and what to do about it."""
    if status == 404:
        return f"there is no container '{container}'; create it, or correct the path or the account"
    if status in _REFUSED:
        return f"the object store answered {status}; check that these credentials may {action} in '{container}'"
    if status is None:
        said = scrubbed(exc)
    elif status >= 500:
        said = f"the object store answered {status} to the last of {1 + RETRIES} attempts"
    else:
        said = f"the object store answered {status}"
    return f"{said}; check the account, the network and the credentials, and run again"
