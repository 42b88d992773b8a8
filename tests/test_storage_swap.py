"""Compare-and-swap on disk and on S3: of many writers one wins, and the others are told."""

from __future__ import annotations

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from compass_ray import storage
from compass_ray.errors import ResourcesMissing


@pytest.fixture(params=["local", "s3"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    base = str(tmp_path / "base") if request.param == "local" else str(request.getfixturevalue("s3"))
    return f"{base}/folder/pointer.json"


def version_of(url: str) -> str:
    found = storage.read_versioned(url)
    assert found is not None
    return found[1]


def test_what_is_absent_has_no_version(url: str) -> None:
    assert storage.read_versioned(url) is None


def test_a_file_is_created_once(url: str) -> None:
    storage.replace_if(url, b"first", None)
    with pytest.raises(storage.Changed, match=r"pointer\.json"):
        storage.replace_if(url, b"second", None)
    assert storage.read_bytes(url) == b"first"


def test_the_version_that_was_read_is_replaced_and_no_other(url: str) -> None:
    storage.replace_if(url, b"first", None)
    first = version_of(url)
    storage.replace_if(url, b"second", first)
    with pytest.raises(storage.Changed):
        storage.replace_if(url, b"third", first)
    assert storage.read_versioned(url) == (b"second", version_of(url))
    assert version_of(url) != first


def test_what_has_been_deleted_has_changed(url: str) -> None:
    storage.replace_if(url, b"first", None)
    first = version_of(url)
    storage.delete(url)
    with pytest.raises(storage.Changed):
        storage.replace_if(url, b"second", first)
    assert not storage.exists(url)


def test_of_ten_writers_of_one_version_one_wins(url: str) -> None:
    storage.replace_if(url, b"start", None)
    expected = version_of(url)
    together = threading.Barrier(10)

    def attempt(writer: int) -> bool:
        together.wait(timeout=30)
        try:
            storage.replace_if(url, f"writer {writer}".encode(), expected)
        except storage.Changed:
            return False
        return True

    with ThreadPoolExecutor(10) as pool:
        won = list(pool.map(attempt, range(10)))
    assert won.count(True) == 1
    assert storage.read_bytes(url) == f"writer {won.index(True)}".encode()


def test_a_swap_leaves_nothing_visible_beside_the_file(url: str) -> None:
    storage.replace_if(url, b"first", None)
    with pytest.raises(storage.Changed):
        storage.replace_if(url, b"second", None)
    assert [Path(file.url).name for file in storage.list_files(f"{url.rpartition('/')[0]}/*")] == ["pointer.json"]


def test_a_bucket_that_does_not_exist_is_not_a_lost_race(s3: str) -> None:
    for expected in (None, '"0123"'):
        with pytest.raises(ResourcesMissing, match=r"^write s3://no-such-bucket/x: there is no bucket"):
            storage.replace_if("s3://no-such-bucket/x", b"", expected)
    with pytest.raises(ResourcesMissing, match=r"^read s3://no-such-bucket/x: "):
        storage.read_versioned("s3://no-such-bucket/x")


HOLD_THE_LOCK = """
import fcntl, sys
lock = open(sys.argv[1], "ab")
fcntl.flock(lock, fcntl.LOCK_EX)
print("held", flush=True)
input()
"""


def test_a_writer_that_was_killed_does_not_keep_the_others_out(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLD_THE_LOCK, str(tmp_path / ".lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"held\n"
        writer.kill()
    storage.replace_if(str(tmp_path / "x"), b"after", None)
    assert storage.read_bytes(str(tmp_path / "x")) == b"after"
