"""A real S3 API on loopback, for the tests that need an object store."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from processes import clean_environment

from compass_ray.remote import s3

BUCKET = "corpus"
SECRETS = {"AWS_ACCESS_KEY_ID": "AKIATESTONLY", "AWS_SECRET_ACCESS_KEY": "s3cr3t-for-tests"}
_REGION = "us-east-1"


@contextmanager
def serving(log: Path) -> Iterator[str]:
    """The address of a moto server that is a process of its own, as an object store is."""
    with log.open("wb") as output:
        server = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"], stdout=output, stderr=output
        )
    try:
        yield _address(server, log)
    finally:
        server.terminate()
        server.wait(timeout=30)


def _address(server: subprocess.Popen[bytes], log: Path) -> str:
    deadline = time.monotonic() + 120
    while not (found := re.search(r"http://127\.0\.0\.1:\d+", log.read_text())):
        assert server.poll() is None, log.read_text()
        assert time.monotonic() < deadline, "no object store within two minutes"
        time.sleep(0.05)
    return found[0]


def moto_api(endpoint: str, path: str, data: bytes = b"") -> None:
    request = urllib.request.Request(  # noqa: S310 - loopback
        f"{endpoint}/moto-api/{path}", data=data, headers={"Content-Type": "text/plain"}, method="POST"
    )
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
        assert answer.status == 200


@contextmanager
def empty_bucket(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL of an empty bucket, found through the environment alone."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_DEFAULT_REGION", _REGION)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    s3.client.cache_clear()
    moto_api(endpoint, "reset")
    boto3.client("s3").create_bucket(Bucket=BUCKET)
    yield f"s3://{BUCKET}"
    s3.client.cache_clear()


class Bucket:
    """A bucket as another program sees it: its client here, and what a subprocess needs to find it."""

    def __init__(self, endpoint: str, through: str | None = None) -> None:
        keys = {name.lower(): value for name, value in SECRETS.items()}
        self._through = through or endpoint
        self._client = boto3.client("s3", endpoint_url=endpoint, region_name=_REGION, **keys)
        moto_api(endpoint, "reset")
        self._client.create_bucket(Bucket=BUCKET)

    def upload(self, path: Path, key: str) -> str:
        """Put a file there; its URL."""
        self._client.upload_file(str(path), BUCKET, key)
        return f"s3://{BUCKET}/{key}"

    def tree_bytes(self, prefix: str) -> dict[str, bytes]:
        """All objects below a prefix by relative key."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=prefix)
        keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
        assert keys, f"nothing below {prefix}"
        return {key.removeprefix(prefix): self._read(key) for key in keys}

    def _read(self, key: str) -> bytes:
        body: Any = self._client.get_object(Bucket=BUCKET, Key=key)["Body"]
        return bytes(body.read())

    def environment(self, home: Path, **variables: str) -> dict[str, str]:
        """The environment of a subprocess that has nothing but this store."""
        return clean_environment(
            home, AWS_ENDPOINT_URL=self._through, AWS_DEFAULT_REGION=_REGION, **SECRETS, **variables
        )
