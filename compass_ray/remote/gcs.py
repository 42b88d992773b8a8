"""Objects of Google Cloud Storage, to be read. Google's client finds the credentials, in the environment alone.

smart_open opens the streams; the client asks for ranges of one generation, and again for one that fails or breaks.
``STORAGE_EMULATOR_HOST`` names another server that speaks the same API.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from compass_ray.errors import ResourcesMissing
from compass_ray.remote.reader import CONNECT_TIMEOUT_S, READ_TIMEOUT_S, RangedReader
from compass_ray.remote.urls import bucket_key, changed

RETRIED_FOR_S = 60
_RANGE_BYTES = 4 << 20
_FIRST_WAIT_S = 0.1
_LONGEST_WAIT_S = 20
_LISTED = "items(name,size,generation,updated),nextPageToken"


@lru_cache(maxsize=1)
def client() -> Any:
    """Make the client of this process. It is safe to share among threads."""
    from google.cloud import storage

    return storage.Client(project=None)  # reading needs none


class ObjectReader(RangedReader):
    """The version of an object that is there when it is opened; ``version`` is its generation.

    Raises
    ------
    FileNotFoundError
        On opening, if there is no object.
    DataError
        If the object is replaced or deleted meanwhile.
    """

    def __init__(self, url: str) -> None:
        import smart_open

        size, version, _ = head(url)
        parameters = {
            "client": client(),
            "get_blob_kwargs": {"generation": int(version), **_bounds()},
            "blob_open_kwargs": {
                "chunk_size": _RANGE_BYTES,
                "if_generation_match": int(version),  # a blob forgets its generation if an answer does not repeat it
                "raw_download": True,  # never decompressed
                **_bounds(),
            },
        }
        try:
            with errors("read", url):
                stream = smart_open.open(url, "rb", compression="disable", transport_params=parameters)
        except FileNotFoundError as exc:
            raise changed(url, "it was replaced or deleted") from exc
        super().__init__(url, size, version, stream, errors)


def head(url: str) -> tuple[int, str, float]:
    """Ask for size, version and time of an object.

    Time is in seconds since the epoch. FileNotFoundError if there is none.
    """
    bucket, key = bucket_key(url)
    with errors("read", url):
        blob = client().bucket(bucket).get_blob(key, **_bounds())
    if blob is None:
        raise FileNotFoundError(url)
    return int(blob.size), str(blob.generation), blob.updated.timestamp()


def list_objects(url: str, prefix: str) -> Iterator[tuple[str, int, str, float]]:
    """List the objects of the URL's bucket whose key begins so.

    Each comes as key, size, version and time. Cost: a request per thousand.
    """
    bucket, _ = bucket_key(url)
    with errors("list", url):
        for blob in client().list_blobs(bucket, prefix=prefix, fields=_LISTED, **_bounds()):
            yield blob.name, int(blob.size), str(blob.generation), blob.updated.timestamp()


@contextmanager
def errors(action: str, url: str) -> Iterator[None]:
    """Map errors of the store and of the way to it.

    Raises
    ------
    FileNotFoundError
        If there is no such object, or not of the generation asked for.
    DataError
        If the object is not of the generation that was to match.
    ResourcesMissing
        If the store refuses, or goes on failing.
    """
    import requests
    import urllib3.exceptions
    from google.api_core.exceptions import GoogleAPICallError, RetryError
    from google.auth.exceptions import GoogleAuthError

    bucket, _ = bucket_key(url)
    try:
        yield
    except GoogleAPICallError as exc:
        if exc.code == 412:
            raise changed(url, "it was replaced") from exc
        if exc.code != 404:
            raise ResourcesMissing(
                f"{action} {url}: the object store answered {exc.code}; check that these credentials may {action} in "
                f"bucket '{bucket}'"
            ) from exc
        if action == "list":
            raise ResourcesMissing(
                f"{action} {url}: there is no bucket '{bucket}'; create it, or correct the path"
            ) from exc
        raise FileNotFoundError(url) from exc
    except GoogleAuthError as exc:
        raise ResourcesMissing(
            f"{action} {url}: {exc}; set GOOGLE_APPLICATION_CREDENTIALS or give the machine a service account; a "
            f"public object is read without, at https://storage.googleapis.com/{bucket}/"
        ) from exc
    except (RetryError, requests.RequestException, urllib3.exceptions.HTTPError) as exc:
        last = getattr(exc, "cause", None) or exc
        raise ResourcesMissing(
            f"{action} {url}: the object store went on failing for {RETRIED_FOR_S} s ({last}); check the network, and "
            "run again when it has recovered"
        ) from exc


def _bounds() -> dict[str, Any]:
    """Bound the time that a request may take. The time for which it is asked again is bounded, too."""
    from google.cloud.storage.retry import DEFAULT_RETRY

    retry = DEFAULT_RETRY.with_delay(initial=_FIRST_WAIT_S, maximum=_LONGEST_WAIT_S).with_timeout(RETRIED_FOR_S)
    return {"timeout": (CONNECT_TIMEOUT_S, READ_TIMEOUT_S), "retry": retry}
