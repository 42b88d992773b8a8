"""Objects of S3 and of stores that speak it. Credentials and the endpoint come from the environment alone.

So does who asks and who pays, by the names that GDAL gave them: ``AWS_NO_SIGN_REQUEST=YES`` for public buckets, without
credentials, and ``AWS_REQUEST_PAYER=requester`` for those whose readers pay.

botocore's ``standard`` mode retries each request with exponential backoff until its answer begins; ``reader`` goes on
where a body breaks off. Timeouts and attempts are bounded, so a store that is gone is an error within minutes.
A write is one PUT with its length and checksum: the store makes an object of all of it or of nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from compass_ray.errors import ResourcesMissing
from compass_ray.remote.reader import (
    ATTEMPTS,
    CONNECT_TIMEOUT_S,
    READ_TIMEOUT_S,
    Body,
    EndedEarly,
    ResumingReader,
    pause,
)
from compass_ray.remote.urls import bucket_key, changed

CONNECTIONS = 16
_DELETED_AT_ONCE = 1000  # the most that S3 takes
_ABSENT = {"404", "NoSuchKey", "NotFound"}
_CONDITION_FAILED = {"PreconditionFailed", "412", "ConditionalRequestConflict", "409"}


@lru_cache(maxsize=1)
def client() -> Any:
    """Make the client of this process. It is safe to share among threads."""
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    retries: dict[str, Any] = {} if "AWS_RETRY_MODE" in os.environ else {"mode": "standard"}
    if "AWS_MAX_ATTEMPTS" not in os.environ:
        retries["total_max_attempts"] = ATTEMPTS
    made = boto3.client(
        "s3",
        config=Config(
            signature_version=UNSIGNED if _anonymous() else None,
            retries=retries,
            connect_timeout=CONNECT_TIMEOUT_S,
            read_timeout=READ_TIMEOUT_S,
            max_pool_connections=CONNECTIONS,
        ),
    )
    if os.environ.get("AWS_REQUEST_PAYER"):
        made.meta.events.register("before-call.s3", _agree_to_pay)
    return made


def _anonymous() -> bool:
    """Tell whether requests are not signed."""
    return os.environ.get("AWS_NO_SIGN_REQUEST", "").casefold() in ("yes", "true", "on", "1")


def _agree_to_pay(params: dict[str, Any], **_: Any) -> None:
    params["headers"]["x-amz-request-payer"] = os.environ["AWS_REQUEST_PAYER"]


def arrow_filesystem() -> Any:
    """Open the same store for Arrow, with the same bounds. Arrow has a client of its own."""
    import pyarrow.fs

    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    return pyarrow.fs.S3FileSystem(
        connect_timeout=CONNECT_TIMEOUT_S,
        request_timeout=READ_TIMEOUT_S,
        retry_strategy=pyarrow.fs.AwsStandardS3RetryStrategy(max_attempts=ATTEMPTS),
        anonymous=_anonymous(),
        **({"endpoint_override": endpoint} if endpoint else {}),
    )


class ObjectReader(ResumingReader):
    """The version of an object that is there when it is opened; ``version`` is its ETag.

    Raises
    ------
    FileNotFoundError
        On opening, if there is no object.
    DataError
        On reading, if the object is replaced or deleted meanwhile.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._bucket, self._key = bucket_key(url)
        with errors("read", url):
            answer = _get(Bucket=self._bucket, Key=self._key)
        super().__init__(int(answer["ContentLength"]), str(answer["ETag"]), answer["Body"], _broken(), _attempts())

    def fetch(self, start: int) -> Body:
        from botocore.exceptions import ClientError

        try:
            with errors("read", self._url):
                try:
                    answer = _get(Bucket=self._bucket, Key=self._key, Range=f"bytes={start}-", IfMatch=self.version)
                except ClientError as exc:
                    if _code(exc) in _CONDITION_FAILED:
                        raise changed(self._url, "it was replaced") from exc
                    raise
        except FileNotFoundError as exc:
            raise changed(self._url, "it was deleted") from exc
        if not answer.get("ContentRange", "").startswith(f"bytes {start}-"):
            raise ResourcesMissing(
                f"read {self._url}: asked for the bytes from {start} on, the object store sent "
                f"{answer.get('ContentRange', 'the whole object')}; a store must support Range"
            )
        body: Body = answer["Body"]
        return body

    def readinto(self, buffer: Any) -> int:
        with errors("read", self._url):
            return super().readinto(buffer)


def _get(**asked: str) -> Any:
    """Ask for an object, again where the body of a refusal breaks off: that alone botocore leaves to its caller."""
    from urllib3.exceptions import HTTPError

    for attempt in range(1, _attempts()):
        try:
            return client().get_object(**asked)
        except HTTPError:
            pause(attempt)
    return client().get_object(**asked)


def put(url: str, data: bytes | memoryview, condition: dict[str, str] | None = None) -> bool:
    """Write a whole object.

    Parameters
    ----------
    condition : dict, optional
        ``{"IfMatch": version}`` or ``{"IfNoneMatch": "*"}``.

    Returns
    -------
    bool
        False if the condition does not hold, and nothing was written.
    """
    from botocore.exceptions import ClientError

    bucket, key = bucket_key(url)
    try:
        with errors("write", url):
            try:
                client().put_object(Bucket=bucket, Key=key, Body=bytes(data), **(condition or {}))
            except ClientError as exc:
                if not condition or _code(exc) not in _CONDITION_FAILED:
                    raise
                # An attempt whose answer was lost may have succeeded, and its own retry found it there.
                return bool(exc.response["ResponseMetadata"].get("RetryAttempts")) and _holds(url, bytes(data))
    except FileNotFoundError:  # S3 answers If-Match on an absent object so
        return False
    return True


def _holds(url: str, data: bytes) -> bool:
    try:
        with ObjectReader(url) as stream:
            return stream.readall() == data
    except FileNotFoundError:
        return False


def head(url: str) -> tuple[int, str, float]:
    """Ask for size, version and time of an object.

    Time is in seconds since the epoch. FileNotFoundError if there is none.
    """
    bucket, key = bucket_key(url)
    with errors("read", url):
        answer = client().head_object(Bucket=bucket, Key=key)
    return int(answer["ContentLength"]), str(answer["ETag"]), answer["LastModified"].timestamp()


def list_objects(url: str, prefix: str) -> Iterator[tuple[str, int, str, float]]:
    """List the objects of the URL's bucket whose key begins so.

    Each comes as key, size, version and time. Cost: a request per thousand.
    """
    bucket, _ = bucket_key(url)
    with errors("list", url):
        for page in client().get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
            for item in page.get("Contents", []):
                yield item["Key"], int(item["Size"]), str(item["ETag"]), item["LastModified"].timestamp()


def delete(url: str) -> None:
    """Delete an object if it is there."""
    bucket, key = bucket_key(url)
    with errors("delete", url):
        client().delete_object(Bucket=bucket, Key=key)


def delete_all(urls: Sequence[str]) -> None:
    """Delete objects of one bucket; one request per thousand."""
    for start in range(0, len(urls), _DELETED_AT_ONCE):
        batch = urls[start : start + _DELETED_AT_ONCE]
        bucket, _ = bucket_key(batch[0])
        objects = [{"Key": bucket_key(url)[1]} for url in batch]
        with errors("delete", batch[0]):
            answer = client().delete_objects(Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
        for left in answer.get("Errors", []):  # alone, so that it is retried, or says why not
            delete(f"s3://{bucket}/{left['Key']}")


@contextmanager
def errors(action: str, url: str) -> Iterator[None]:
    """Map errors of the store and of the way to it.

    Raises
    ------
    FileNotFoundError
        If there is no such object, as on disk.
    ResourcesMissing
        If the store refuses, or does not answer as often as we ask.
    """
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

    try:
        yield
    except ClientError as exc:
        if _code(exc) in _ABSENT:
            raise FileNotFoundError(url) from exc
        raise ResourcesMissing(f"{action} {url}: {_refusal(action, url, exc)}") from exc
    except NoCredentialsError as exc:
        raise ResourcesMissing(
            f"{action} {url}: the environment has no credentials; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "AWS_PROFILE or the machine's role, or AWS_NO_SIGN_REQUEST=YES for a public bucket"
        ) from exc
    except (BotoCoreError, *_broken()) as exc:
        tried = f" ({_attempts()} attempts)" if isinstance(exc, _broken()) else ""
        raise ResourcesMissing(
            f"{action} {url}: {exc}{tried}; check AWS_ENDPOINT_URL, the network and the credentials in the "
            "environment, and run again"
        ) from exc


def _refusal(action: str, url: str, exc: Any) -> str:
    """Say what the store answered, and what to do about it."""
    code = _code(exc)
    bucket, _ = bucket_key(url)
    retried = exc.response["ResponseMetadata"].get("RetryAttempts", 0)
    if code == "NoSuchBucket":
        return f"there is no bucket '{bucket}'; create it, or correct the path or AWS_ENDPOINT_URL"
    if retried:
        return (
            f"the object store answered {code} to the last of {retried + 1} attempts; run again when it has recovered"
        )
    absent = " (and list it: else S3 answers so for what is absent, too)" if action == "read" else ""
    return f"the object store answered {code}; check that these credentials may {action} in bucket '{bucket}'{absent}"


def _broken() -> tuple[type[Exception], ...]:
    """List the errors of what breaks, stalls or ends early. They are worth another attempt."""
    import urllib3.exceptions
    from botocore.exceptions import ConnectionError, HTTPClientError, IncompleteReadError

    return ConnectionError, HTTPClientError, IncompleteReadError, urllib3.exceptions.HTTPError, EndedEarly


def _attempts() -> int:
    return int(client().meta.config.retries["total_max_attempts"])


def _code(exc: Any) -> str:
    return str(exc.response.get("Error", {}).get("Code", ""))
