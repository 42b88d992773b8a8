"""A store that fails now and then is worth another attempt; one that goes on failing is an error, never wrong bytes."""

from __future__ import annotations

import gzip
import io
import re
from collections.abc import Callable, Iterator
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from faulty_proxy import Fault, FaultyProxy, Rule
from object_store import BUCKET, empty_bucket

from compass_ray import storage
from compass_ray.artifacts import Artifact
from compass_ray.errors import DataError, ResourcesMissing
from compass_ray.ingest.files import InputFile, ReadUnit
from compass_ray.ingest.readers import read
from compass_ray.remote import s3

DATA = bytes(range(256)) * 16_384  # 4 MiB, sixteen buffers


@pytest.fixture(scope="module")
def proxy(s3_endpoint: str) -> Iterator[FaultyProxy]:
    with FaultyProxy(s3_endpoint).running() as running:
        yield running


@pytest.fixture
def bucket(proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty bucket behind the proxy."""
    proxy.faults()
    with empty_bucket(proxy.address, monkeypatch) as url:
        yield url
    proxy.faults()


@pytest.fixture
def two_attempts(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    s3.client.cache_clear()


def ranges(proxy: FaultyProxy) -> list[int]:
    """Where GETs went on that followed a broken one; they must ask for the version that was opened."""
    resumed = [headers for method, _, headers in proxy.requests if method == "GET" and "Range" in headers]
    assert all(headers.get("If-Match") for headers in resumed)
    return [int(re.fullmatch(r"bytes=(\d+)-", headers["Range"])[1]) for headers in resumed]  # type: ignore[index]


# --- faults that pass ---------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["slow_down", "unavailable", "internal_error", "lost_answer"])
def test_every_operation_outlives_a_fault_that_passes(bucket: str, proxy: FaultyProxy, fault: Fault) -> None:
    rules = [Rule(fault, method, times=1) for method in ("GET", "PUT", "HEAD", "DELETE", "POST")]
    proxy.faults(*rules)
    storage.write_bytes(f"{bucket}/a", DATA)
    assert storage.read_bytes(f"{bucket}/a") == DATA
    assert storage.stat(f"{bucket}/a").size == len(DATA)
    storage.delete(f"{bucket}/a")
    storage.delete_all([f"{bucket}/a"])
    assert [rule.injected for rule in rules] == [1] * len(rules)
    proxy.faults(Rule(fault, "GET", times=1))
    assert storage.list_files(f"{bucket}/*") == []


def test_an_answer_that_there_is_no_object_is_asked_for_again_if_it_breaks_off(bucket: str, proxy: FaultyProxy) -> None:
    rule = Rule("reset", "GET", times=2)
    proxy.faults(rule)
    with pytest.raises(FileNotFoundError):
        storage.read_bytes(f"{bucket}/absent")
    assert rule.injected == 2


@pytest.mark.parametrize("fault", ["reset", "truncate"])
def test_a_body_that_breaks_is_resumed_at_the_byte_where_it_broke(
    bucket: str, proxy: FaultyProxy, fault: Fault
) -> None:
    storage.write_bytes(f"{bucket}/a", DATA)
    proxy.faults(Rule(fault, "GET", times=3))
    assert storage.read_bytes(f"{bucket}/a") == DATA
    starts = ranges(proxy)
    assert len(starts) == 3
    assert 0 < starts[0] < starts[1] < starts[2] < len(DATA)


@pytest.mark.usefixtures("two_attempts")
def test_a_connection_that_breaks_again_and_again_gets_there_as_long_as_bytes_come(
    bucket: str, proxy: FaultyProxy
) -> None:
    storage.write_bytes(f"{bucket}/a", DATA)
    proxy.faults(Rule("truncate", "GET", times=4))  # each answer brings half of what is left
    with storage.open_input(f"{bucket}/a") as stream:
        assert b"".join(iter(lambda: stream.read(100_000), b"")) == DATA
    assert len(ranges(proxy)) == 4


def test_a_stream_that_seeks_reads_the_same_bytes_over_broken_connections(bucket: str, proxy: FaultyProxy) -> None:
    storage.write_bytes(f"{bucket}/a", DATA)
    proxy.faults(Rule("reset", "GET", every=2))
    with storage.open_input(f"{bucket}/a") as stream:
        for start in (3_000_000, 17, 4_194_303, 0, 2_000_001):
            assert stream.seek(start) == start
            assert stream.read(300_000) == DATA[start : start + 300_000]
        assert stream.seek(-5, io.SEEK_END) == len(DATA) - 5
        assert stream.read() == DATA[-5:]
        assert stream.read() == b""
        with pytest.raises(ValueError, match="before the start"):
            stream.seek(-1)
    assert proxy.rules[0].injected >= 3


def test_an_answer_that_is_slow_is_waited_for_and_one_that_stalls_is_asked_for_again(
    bucket: str, proxy: FaultyProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.write_bytes(f"{bucket}/a", DATA)
    monkeypatch.setattr(s3, "READ_TIMEOUT_S", 1)
    s3.client.cache_clear()
    proxy.faults(Rule("stall", "GET", times=1, pause_s=0.5))
    assert storage.read_bytes(f"{bucket}/a") == DATA
    assert ranges(proxy) == []
    proxy.faults(Rule("stall", "GET", times=1, pause_s=5))
    assert storage.read_bytes(f"{bucket}/a") == DATA
    assert len(ranges(proxy)) == 1


def test_a_key_that_a_batch_could_not_delete_is_deleted_alone(bucket: str, proxy: FaultyProxy) -> None:
    storage.write_bytes(f"{bucket}/a", b"x")
    proxy.faults(Rule("not_deleted", "POST", times=1))
    storage.delete_all([f"{bucket}/a"])
    assert not storage.exists(f"{bucket}/a")
    assert [method for method, _, _ in proxy.requests] == ["POST", "DELETE", "HEAD"]


# --- faults that do not -------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["slow_down", "internal_error", "lost_answer"])
@pytest.mark.usefixtures("two_attempts")
def test_a_store_that_goes_on_failing_is_an_error_that_says_how_often_it_was_asked(
    bucket: str, proxy: FaultyProxy, fault: Fault
) -> None:
    proxy.faults(Rule(fault))
    attempts: dict[str, Callable[[], Any]] = {
        "read": lambda: storage.read_bytes(f"{bucket}/a"),
        "write": lambda: storage.write_bytes(f"{bucket}/a", b"x"),
        "list": lambda: storage.list_files(f"{bucket}/a*"),
        "delete": lambda: storage.delete(f"{bucket}/a"),
    }
    for action, attempt in attempts.items():
        with pytest.raises(
            ResourcesMissing, match=rf"^{action} s3://corpus/a\*?: .*2 attempts.*; .*run again"
        ) as caught:
            attempt()
        assert caught.value.exit_code == 4
    assert len(proxy.requests) == 2 * len(attempts)


@pytest.mark.parametrize("fault", ["reset", "truncate"])
@pytest.mark.usefixtures("two_attempts")
def test_a_body_that_never_comes_whole_is_an_error_and_never_a_part_of_it(
    bucket: str, proxy: FaultyProxy, fault: Fault
) -> None:
    storage.write_bytes(f"{bucket}/a", b"short")
    proxy.faults(Rule(fault, "GET"))
    for reading in (storage.read_bytes, storage.read_versioned, lambda url: storage.open_input(url).read()):
        with pytest.raises(ResourcesMissing, match=r"^read s3://corpus/a: .*\(2 attempts\)"):
            reading(f"{bucket}/a")


def test_what_is_not_permitted_is_not_asked_for_again(bucket: str, proxy: FaultyProxy) -> None:
    proxy.faults(Rule("denied", "PUT"))
    with pytest.raises(ResourcesMissing, match=r"answered AccessDenied; check that .* may write in bucket 'corpus'"):
        storage.write_bytes(f"{bucket}/a", b"x")
    assert len(proxy.requests) == 1


def test_a_store_that_is_not_there_is_an_error_within_seconds(bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    s3.client.cache_clear()
    with pytest.raises(
        ResourcesMissing, match=r"^list s3://corpus/\*: .*127\.0\.0\.1:9.*\(8 attempts\); check AWS_END"
    ):
        storage.list_files(f"{bucket}/*")


# --- one version --------------------------------------------------------------------------------


@pytest.mark.parametrize(("change", "how"), [("replace", "it was replaced"), ("delete", "it was deleted")])
def test_an_object_that_changes_while_it_is_read_is_never_mixed_with_its_successor(
    bucket: str, proxy: FaultyProxy, change: str, how: str
) -> None:
    url = f"{bucket}/a"
    storage.write_bytes(url, DATA)
    proxy.faults(Rule("reset", "GET", times=1, pause_s=1.0))
    with storage.open_input(url) as stream:
        assert stream.read(10) == DATA[:10]
        storage.write_bytes(url, DATA[::-1]) if change == "replace" else storage.delete(url)
        with pytest.raises(DataError, match=rf"^s3://corpus/a: changed while it was read \({how}\); let writers"):
            stream.read()


# --- writes -------------------------------------------------------------------------------------


@pytest.mark.usefixtures("two_attempts")
def test_a_write_that_breaks_off_leaves_the_old_object_and_no_part_of_the_new(bucket: str, proxy: FaultyProxy) -> None:
    storage.write_bytes(f"{bucket}/old", b"old")
    proxy.faults(Rule("reset", "PUT"))
    for name in ("old", "new"):
        with pytest.raises(ResourcesMissing, match=rf"^write s3://corpus/{name}: .*\(2 attempts\)"):
            storage.write_bytes(f"{bucket}/{name}", DATA)
    assert [file.url for file in storage.list_files(f"{bucket}/*")] == [f"{bucket}/old"]
    assert storage.read_bytes(f"{bucket}/old") == b"old"
    assert "Uploads" not in boto3.client("s3").list_multipart_uploads(Bucket=BUCKET)


def test_a_write_that_breaks_off_once_is_made_whole(bucket: str, proxy: FaultyProxy) -> None:
    proxy.faults(Rule("reset", "PUT", times=2))
    storage.write_bytes(f"{bucket}/a", DATA)
    assert storage.read_bytes(f"{bucket}/a") == DATA


def test_a_swap_that_was_done_before_its_answer_was_lost_is_a_success(bucket: str, proxy: FaultyProxy) -> None:
    proxy.faults(Rule("lost_answer", "PUT", times=1))
    storage.replace_if(f"{bucket}/x", b"mine", None)
    assert storage.read_bytes(f"{bucket}/x") == b"mine"


def test_a_swap_that_somebody_else_has_won_while_its_answer_was_lost_is_lost(bucket: str, proxy: FaultyProxy) -> None:
    storage.write_bytes(f"{bucket}/x", b"theirs")
    proxy.faults(Rule("unavailable", "PUT", times=1))
    with pytest.raises(storage.Changed):
        storage.replace_if(f"{bucket}/x", b"mine", None)
    assert storage.read_bytes(f"{bucket}/x") == b"theirs"


# --- data files ---------------------------------------------------------------------------------


def parquet() -> bytes:
    sink = io.BytesIO()
    rows = [f"row {number} " * 20 for number in range(20_000)]
    pq.write_table(pa.table({"text": rows}), sink, compression="none", use_dictionary=False, row_group_size=5_000)
    return sink.getvalue()


def jsonl() -> bytes:
    return b"".join(b'{"text":"row %d %s"}\n' % (number, b"x" * 100) for number in range(20_000))


FILES: dict[str, Callable[[], bytes]] = {
    "a.jsonl": jsonl,
    "a.jsonl.gz": lambda: gzip.compress(jsonl(), 0),
    "a.csv": lambda: b"text\n" + b"".join(b"row %d %s\n" % (number, b"x" * 100) for number in range(20_000)),
    "a.parquet": parquet,
}


def put_file(bucket: str, name: str) -> ReadUnit:
    url = f"{bucket}/{name}"
    storage.write_bytes(url, FILES[name]())
    stat = storage.stat(url)
    return ReadUnit("s", InputFile(url, name, stat.size, stat.version, name.split(".")[1], "c"))


@pytest.mark.parametrize("name", FILES)
def test_a_data_file_is_read_row_by_row_over_broken_connections(bucket: str, proxy: FaultyProxy, name: str) -> None:
    unit = put_file(bucket, name)
    proxy.faults(Rule("truncate", "GET", every=2, times=2), Rule("reset", "GET", every=3, times=2))
    batches = list(read(unit, ["text"]))
    assert sum(len(batch.rows) for batch in batches) == 20_000
    assert [fault for batch in batches for fault in batch.faults] == []
    texts = [text for batch in batches if batch.columns for text in batch.values("text")]
    assert [int(text.split()[1]) for text in texts] == list(range(20_000))


@pytest.mark.parametrize("passing", [0, 1], ids=["from the start", "in the middle"])
@pytest.mark.parametrize("name", FILES)
@pytest.mark.usefixtures("two_attempts")
def test_a_store_that_fails_is_not_a_bad_file(bucket: str, proxy: FaultyProxy, name: str, passing: int) -> None:
    unit = put_file(bucket, name)
    proxy.faults(*[Rule("reset", "GET", times=1)] * passing, Rule("internal_error", "GET"))
    with pytest.raises(ResourcesMissing, match=rf"^read s3://corpus/{name}: .*InternalError .*2 attempts"):
        list(read(unit, ["text"]))


# --- artifacts ----------------------------------------------------------------------------------


def test_receipts_are_read_side_by_side_and_deleted_at_once(bucket: str, proxy: FaultyProxy) -> None:
    artifact = Artifact(f"{bucket}/cache/stage-1", "stage", {"version": 1})
    for number in range(40):
        artifact.write_bytes(f"{number:05d}", b"x" * number)
    proxy.faults(Rule("stall", "GET", pause_s=0.2, path="json"))
    finished = artifact.finished()
    assert [finished[f"{number:05d}"].bytes for number in range(40)] == list(range(40))
    assert proxy.most_at_once > 4
    proxy.faults()
    artifact.commit(finished.values())
    assert sorted(method for method, _, _ in proxy.requests) == ["GET", "POST", "PUT"]
    assert storage.list_files(f"{artifact.url}/_progress/*") == []
