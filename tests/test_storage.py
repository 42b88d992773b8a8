"""Local files and S3 objects behind one door: whole writes, the same globs, errors that say what to check."""

from __future__ import annotations

import io
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from object_store import BUCKET, SECRETS, moto_api

from compass_ray import storage
from compass_ray.errors import ConfigError, ResourcesMissing
from compass_ray.remote import s3 as s3_protocol


@pytest.fixture(params=["local", "s3"])
def base(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "base") if request.param == "local" else str(request.getfixturevalue("s3"))


@pytest.fixture
def forbidden(s3: str, s3_endpoint: str) -> Iterator[str]:
    """The bucket with one object, after the object store has begun to check who asks."""
    storage.write_bytes(f"{s3}/there", b"x")
    moto_api(s3_endpoint, "reset-auth", b"0")
    yield s3
    moto_api(s3_endpoint, "reset-auth", b"1000000000")


# --- the same on disk and on S3 -----------------------------------------------------------------


@pytest.mark.parametrize("data", [b"", b"abc", bytes(range(256)) * 5000, memoryview(b"view")], ids=len)
def test_what_is_written_is_read(base: str, data: bytes) -> None:
    url = storage.join(base, "a b", "é.bin")
    storage.write_bytes(url, data)
    assert storage.read_bytes(url) == bytes(data)
    with storage.open_input(url) as stream:
        assert stream.read() == bytes(data)
    assert storage.stat(url).size == len(data)


def test_a_second_write_replaces_the_first(base: str) -> None:
    url = f"{base}/x"
    storage.write_bytes(url, b"first, and longer")
    before = storage.stat(url)
    storage.write_bytes(url, b"second")
    assert storage.read_bytes(url) == b"second"
    assert storage.stat(url).version != before.version
    assert [file.url for file in storage.list_files(f"{base}/*")] == [url]


def test_input_streams_are_seekable_and_never_decompressed(base: str) -> None:
    url = f"{base}/x.jsonl.gz"
    storage.write_bytes(url, b"\x1f\x8b not really gzip")
    with storage.open_input(url) as stream:
        assert stream.read(2) == b"\x1f\x8b"
        stream.seek(14)
        assert stream.readline() == b"gzip"
        stream.seek(-4, io.SEEK_END)
        assert stream.read() == b"gzip"


def test_parquet_is_read_through_a_stream(base: str) -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"a": range(1000)}), buffer)
    storage.write_bytes(f"{base}/x.parquet", buffer.getvalue())
    with storage.open_input(f"{base}/x.parquet") as stream:
        assert pq.read_table(stream)["a"].to_pylist() == list(range(1000))


def test_arrow_reads_what_was_written(base: str) -> None:
    storage.write_bytes(f"{base}/d/x.bin", b"arrow")
    filesystem, path = storage.arrow_filesystem(f"{base}/d/x.bin")
    with filesystem.open_input_file(path) as stream:
        assert stream.read() == b"arrow"


def test_what_is_absent_is_file_not_found(base: str) -> None:
    storage.write_bytes(f"{base}/present", b"")
    for read in (storage.read_bytes, storage.stat, storage.open_input):
        with pytest.raises(FileNotFoundError, match="absent"):
            read(f"{base}/absent")
    assert not storage.exists(f"{base}/absent")
    assert storage.exists(f"{base}/present")
    assert storage.list_files(f"{base}/absent") == []


def test_a_folder_is_not_a_file(base: str) -> None:
    storage.write_bytes(f"{base}/folder/file", b"x")
    assert not storage.exists(f"{base}/folder")
    assert storage.list_files(f"{base}/folder") == []


def test_delete_removes_one_file_and_is_safe_to_repeat(base: str) -> None:
    for name in ("a", "ab"):
        storage.write_bytes(f"{base}/{name}", b"x")
    storage.delete(f"{base}/a")
    storage.delete(f"{base}/a")
    assert [file.url for file in storage.list_files(f"{base}/*")] == [f"{base}/ab"]


def test_many_files_are_removed_at_once_and_what_is_absent_is_no_error(base: str) -> None:
    for name in ("a", "b", "c"):
        storage.write_bytes(f"{base}/{name}", b"x")
    storage.delete_all([f"{base}/{name}" for name in ("a", "absent", "c")])
    storage.delete_all([])
    assert [file.url for file in storage.list_files(f"{base}/*")] == [f"{base}/b"]


def test_results_in_parallel_keep_the_order_and_wait_for_their_consumer() -> None:
    started = []

    def wait(number: int) -> int:
        started.append(number)
        time.sleep(0.01 * (number % 3))
        return number

    results = storage.in_parallel(wait, range(100))
    assert next(results) == 0
    time.sleep(0.2)
    assert len(started) < 50, "what nobody has asked for yet must not pile up"
    assert list(results) == list(range(1, 100))


def test_an_error_in_parallel_is_raised_and_ends_the_rest() -> None:
    started = []

    def fail(number: int) -> int:
        started.append(number)
        time.sleep(0.01)
        raise FileNotFoundError(str(number))

    with pytest.raises(FileNotFoundError, match=r"^0$"):
        list(storage.in_parallel(fail, range(1000)))
    assert len(started) < 100


def test_an_output_that_may_be_written_is_left_as_it_was(base: str) -> None:
    storage.check_writable(f"{base}/out")
    assert storage.list_files(f"{base}/out/**") + storage.list_files(f"{base}/out/.*") == []


def test_an_output_that_may_not_be_written_is_found_out(forbidden: str, tmp_path: Path) -> None:
    with pytest.raises(ResourcesMissing, match=r"^write s3://corpus/out/\S+: the .* may write in bucket 'corpus'"):
        storage.check_writable(f"{forbidden}/out")
    (tmp_path / "file").touch()
    with pytest.raises(ResourcesMissing, match=r"^write \S+: .*File exists.*; choose an output folder"):
        storage.check_writable(str(tmp_path / "file"))


# --- globs --------------------------------------------------------------------------------------

TREE = [
    "a.jsonl", "b.jsonl", "ab.jsonl", "a.csv", "a+b (1).jsonl", "é.jsonl", "aXjsonl",
    "a/a.jsonl", "a/b.jsonl", "a/b/c.jsonl", "a/b/a.csv", "b/a/b/a.jsonl", "ab/a.jsonl", "c/x.jsonl/a",
]  # fmt: skip


def same_tree(root: Path, s3: str, names: list[str]) -> None:
    for name in names:
        storage.write_bytes(f"{root}/{name}", name.encode())
        storage.write_bytes(f"{s3}/in/{name}", name.encode())


def on_both(root: Path, s3: str, pattern: str) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """What a pattern finds on disk and on S3: names and sizes."""
    local = [(file.url.removeprefix(f"{root}/"), file.size) for file in storage.list_files(f"{root}/{pattern}")]
    remote = [(file.url.removeprefix(f"{s3}/in/"), file.size) for file in storage.list_files(f"{s3}/in/{pattern}")]
    return local, remote


@pytest.mark.parametrize(
    ("pattern", "count"),
    [
        ("*.jsonl", 5),
        ("**/*.jsonl", 10),
        ("**", 14),
        ("*", 7),
        ("a/**", 4),
        ("a/**/*", 4),
        ("**/a/*.jsonl", 2),
        ("*/*.jsonl", 3),
        ("?.jsonl", 3),
        ("[ab].jsonl", 2),
        ("[a-b]/*.jsonl", 2),
        ("a.jsonl", 1),
        ("a+b (1).jsonl", 1),
        ("a.*", 2),
        ("**/b/*", 3),
        ("none*", 0),
        ("a", 0),
    ],
)
def test_a_glob_finds_the_same_files_on_disk_and_on_s3(tmp_path: Path, s3: str, pattern: str, count: int) -> None:
    same_tree(tmp_path, s3, TREE)
    local, remote = on_both(tmp_path, s3, pattern)
    assert local == remote
    assert len(local) == count


tokens = st.sampled_from(["a", "b", "*", "?", "[ab]", ".jsonl", "."])
names = st.lists(tokens, min_size=1, max_size=4).map("".join).filter(lambda name: "**" not in name and name.strip("."))
part = st.one_of(st.just("**"), names)


@given(pattern=st.lists(part, min_size=1, max_size=4).map("/".join))
@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_glob_finds_the_same_files_on_disk_and_on_s3(tmp_path: Path, s3: str, pattern: str) -> None:
    if not (tmp_path / "a.jsonl").exists():
        same_tree(tmp_path, s3, TREE)
    local, remote = on_both(tmp_path, s3, pattern)
    assert set(local) == set(remote)


@pytest.mark.parametrize("pattern", ["**/**", "**/*/**", "**/a/**"])
def test_a_file_that_matches_in_several_ways_is_listed_once(tmp_path: Path, s3: str, pattern: str) -> None:
    same_tree(tmp_path, s3, TREE)
    local, remote = on_both(tmp_path, s3, pattern)
    assert len(local) == len(set(local))
    assert local == remote


@pytest.mark.parametrize("pattern", ["*", "**", "**/*.jsonl", "?a.jsonl", "[.]a.jsonl", ".*"])
def test_hidden_files_are_found_alike_on_disk_and_on_s3(tmp_path: Path, s3: str, pattern: str) -> None:
    same_tree(tmp_path, s3, ["a.jsonl", ".a.jsonl", ".cache/a.jsonl", "d/.ipynb/a.jsonl"])
    local, remote = on_both(tmp_path, s3, pattern)
    assert local == remote


@pytest.mark.parametrize("pattern", ["a[!b]b", "[!b]*", "[^a].x", "[^b].x"])
def test_negated_sets_mean_the_same_on_disk_and_on_s3(tmp_path: Path, s3: str, pattern: str) -> None:
    same_tree(tmp_path, s3, ["a/b", "acb", "abb", "a.x", "b.x", "^.x", "bb"])
    local, remote = on_both(tmp_path, s3, pattern)
    assert local == remote


@pytest.mark.parametrize("pattern", ["a**", "**.jsonl", "d/**b.jsonl"])
def test_two_stars_inside_a_name_stay_inside_it_on_disk_and_on_s3(tmp_path: Path, s3: str, pattern: str) -> None:
    same_tree(tmp_path, s3, ["a.jsonl", "a/b.jsonl", "d/b.jsonl", "d/e/b.jsonl"])
    local, remote = on_both(tmp_path, s3, pattern)
    assert local == remote


def test_a_literal_pattern_matches_itself_alone(base: str) -> None:
    for folder in ("run [1]*?", "run 1xy", "run [1]ab"):
        storage.write_bytes(f"{base}/{folder}/a.json", b"x")
    pattern = storage.join(storage.literal(f"{base}/run [1]*?"), "*.json")
    assert [file.url for file in storage.list_files(pattern)] == [f"{base}/run [1]*?/a.json"]


def test_the_empty_objects_that_consoles_make_for_folders_are_not_files(s3: str) -> None:
    storage.write_bytes(f"{s3}/in/", b"")
    storage.write_bytes(f"{s3}/in/sub/", b"")
    storage.write_bytes(f"{s3}/in/sub/a", b"x")
    assert [file.url for file in storage.list_files(f"{s3}/in/**")] == [f"{s3}/in/sub/a"]


def test_more_than_one_page_of_objects_is_listed_and_deleted(s3: str) -> None:
    client = boto3.client("s3")
    for number in range(1005):
        client.put_object(Bucket=BUCKET, Key=f"many/{number:04d}", Body=b"")
    listed = [file.url for file in storage.list_files(f"{s3}/many/*")]
    assert len(listed) == 1005
    storage.delete_all(listed[:-1])
    assert [file.url for file in storage.list_files(f"{s3}/many/*")] == listed[-1:]


# --- local writes are whole ---------------------------------------------------------------------


def test_a_failed_local_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    url = str(tmp_path / "x")
    storage.write_bytes(url, b"old")
    with pytest.raises(TypeError, match="bytes-like object is required"):
        storage.write_bytes(url, "text")  # type: ignore[arg-type]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"x": b"old"}


def test_a_write_that_cannot_take_its_place_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match="directory"):
        storage.write_bytes(str(tmp_path / "taken"), b"x")
    assert [path.name for path in tmp_path.iterdir()] == ["taken"]
    assert list((tmp_path / "taken").iterdir()) == []


def test_readers_of_a_file_that_is_rewritten_see_one_version_or_the_other(tmp_path: Path) -> None:
    url = str(tmp_path / "x")
    versions = [bytes([letter]) * 2_000_000 for letter in b"ab"]
    storage.write_bytes(url, versions[0])
    done = threading.Event()
    seen: set[bytes] = set()

    def watch() -> None:
        while not done.is_set():
            seen.add(storage.read_bytes(url))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        for turn in range(40):
            storage.write_bytes(url, versions[turn % 2])
    finally:
        done.set()
        watcher.join()
    assert seen
    assert seen <= set(versions)
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_a_reader_keeps_the_version_it_opened(tmp_path: Path) -> None:
    url = str(tmp_path / "x")
    storage.write_bytes(url, b"old")
    with storage.open_input(url) as stream:
        storage.write_bytes(url, b"new")
        assert stream.read() == b"old"


# --- errors of the object store -----------------------------------------------------------------


def test_what_credentials_may_not_do_is_about_resources_and_names_the_action(forbidden: str) -> None:
    url = f"{forbidden}/there"
    attempts = [
        ("read", lambda: storage.read_bytes(url)),
        ("read", lambda: storage.stat(url)),
        ("read", lambda: storage.exists(url)),
        ("list", lambda: storage.list_files(f"{forbidden}/*")),
        ("write", lambda: storage.write_bytes(url, b"y")),
        ("delete", lambda: storage.delete(url)),
    ]
    for action, attempt in attempts:
        with pytest.raises(
            ResourcesMissing,
            match=rf"^{action} s3://corpus/\S+: the object store answered (403|Inv\w+); check that these "
            rf"credentials may {action} in bucket 'corpus'",
        ):
            attempt()


def test_opening_what_credentials_may_not_read_is_about_resources(forbidden: str) -> None:
    with pytest.raises(ResourcesMissing, match=r"^read s3://corpus/there: "):
        storage.open_input(f"{forbidden}/there")


def test_a_bucket_that_does_not_exist_is_about_resources(s3: str) -> None:
    expected = r"s3://no-such-bucket/x\*?: there is no bucket 'no-such-bucket'; create it, or correct the path"
    with pytest.raises(ResourcesMissing, match=f"^list {expected}"):
        storage.list_files("s3://no-such-bucket/x*")
    with pytest.raises(ResourcesMissing, match=f"^write {expected}"):
        storage.write_bytes("s3://no-such-bucket/x", b"")


def test_missing_credentials_are_about_resources(s3: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    s3_protocol.client.cache_clear()
    expected = r"^read s3://corpus/x: the environment has no credentials; set .* AWS_NO_SIGN_REQUEST=YES for a public"
    with pytest.raises(ResourcesMissing, match=expected):
        storage.read_bytes(f"{s3}/x")


def _headers_sent(monkeypatch: pytest.MonkeyPatch, **environment: str) -> list[dict[str, str]]:
    """Of every request from now on."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    s3_protocol.client.cache_clear()
    sent: list[dict[str, str]] = []
    s3_protocol.client().meta.events.register("before-send.s3", lambda request, **_: sent.append(dict(request.headers)))
    return sent


def test_a_public_object_is_read_without_credentials(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("public", "private"):
        storage.write_bytes(f"{s3}/{key}", b"x")
    boto3.client("s3").put_object_acl(Bucket=BUCKET, Key="public", ACL="public-read")
    for name in SECRETS:
        monkeypatch.delenv(name)
    sent = _headers_sent(monkeypatch, AWS_NO_SIGN_REQUEST="YES")
    assert storage.read_bytes(f"{s3}/public") == b"x"
    with pytest.raises(ResourcesMissing, match="the object store answered 403"):
        storage.read_bytes(f"{s3}/private")
    assert not any("Authorization" in headers for headers in sent)


@pytest.mark.parametrize("attempt", [storage.read_bytes, storage.stat, lambda url: storage.list_files(f"{url}*")])
def test_whoever_is_to_pay_says_so_in_every_request(
    s3: str, monkeypatch: pytest.MonkeyPatch, attempt: Callable[[str], Any]
) -> None:
    storage.write_bytes(f"{s3}/x", b"x")
    assert not any("x-amz-request-payer" in headers for headers in _headers_sent(monkeypatch))
    sent = _headers_sent(monkeypatch, AWS_REQUEST_PAYER="requester")
    attempt(f"{s3}/x")
    assert sent
    assert all(headers["x-amz-request-payer"] == b"requester" for headers in sent)


# --- URLs ---------------------------------------------------------------------------------------


def test_schemes_that_nobody_knows_are_refused() -> None:
    assert all(storage.is_remote(f"{scheme}://b/k") for scheme in ("s3", "gs", "az", "http", "https"))
    assert not storage.is_remote("/a/b")
    assert not storage.is_remote("file:///a/b")
    with pytest.raises(
        ConfigError, match=r"^ftp://b/k: storage scheme 'ftp://' is not supported; use a local path or s3://"
    ):
        storage.is_remote("ftp://b/k")


def test_an_s3_url_without_a_bucket_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^s3:///k: no bucket; expected s3://bucket/path"):
        storage.read_bytes("s3:///k")


def test_file_urls_and_home_folders_are_local_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storage.write_bytes(f"file://{tmp_path}/x", b"x")
    assert (tmp_path / "x").read_bytes() == b"x"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert storage.read_bytes("~/x") == b"x"


def test_paths_are_joined_and_made_absolute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert storage.join("s3://b/p/", "x", "y") == "s3://b/p/x/y"
    assert storage.absolute("in/*.jsonl") == f"{tmp_path}/in/*.jsonl"
    assert storage.absolute("s3://b/p/") == "s3://b/p"


@pytest.mark.parametrize(
    ("pattern", "root"),
    [
        ("/a/b/*.jsonl", "/a/b"),
        ("/a/b*/c", "/a"),
        ("/a/b.jsonl", "/a"),
        ("s3://b/k/**/x", "s3://b/k"),
        ("x.jsonl", "."),
    ],
)
def test_the_root_of_a_glob_is_its_folder_without_wildcards(pattern: str, root: str) -> None:
    assert storage.root_of(pattern) == root
