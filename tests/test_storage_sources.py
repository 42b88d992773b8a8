"""Sources on gs://, az:// and the web: the same bytes, globs and errors as elsewhere, and no secret in any of them."""

from __future__ import annotations

import io
import logging
import traceback
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from remote_stores import ACCOUNT_KEY, BUCKET, PAGE, Store, serving, url_of

from compass_ray import storage
from compass_ray.config import load_config
from compass_ray.errors import ConfigError, DataError, EmptyInput, ResourcesMissing
from compass_ray.ingest.config import SourceConfig
from compass_ray.ingest.files import HashCache, ReadUnit, check_unchanged
from compass_ray.ingest.listing import Listing, list_source
from compass_ray.ingest.readers import read
from compass_ray.remote import azure, gcs, http

DATA = bytes(range(256)) * 4096  # 1 MiB, four buffers
SIGNATURE = "sig=s3cr3t"


@pytest.fixture(params=["http", "gs", "az"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def store(scheme: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A server of the scheme, found through the environment alone, that clients do not wait for long."""
    with serving(scheme) as running:
        for name in ("AZURE_STORAGE_ACCOUNT", "AZURE_STORAGE_KEY", "HTTP_PROXY", "http_proxy"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", running.address)
        monkeypatch.setenv(
            "AZURE_STORAGE_CONNECTION_STRING",
            f"AccountName=test;AccountKey={ACCOUNT_KEY};BlobEndpoint={running.address}/test",
        )
        monkeypatch.setattr(http, "ATTEMPTS", 3)
        monkeypatch.setattr(gcs, "RETRIED_FOR_S", 1)
        monkeypatch.setattr(azure, "RETRIES", 2)
        monkeypatch.setattr(azure, "RETRY_BASE_S", 0)
        forget()
        yield running
    forget()


def forget() -> None:
    for remembered in (http.session, gcs.client, azure.client):
        remembered.cache_clear()


@pytest.fixture
def url(scheme: str, store: Store) -> str:
    """A file of four buffers."""
    store.put("in/a.bin", DATA)
    return url_of(scheme, store, "in/a.bin")


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    monkeypatch.setattr(http, "ATTEMPTS", 3)
    with serving("http") as running:
        yield running
    forget()


# --- the same everywhere ------------------------------------------------------------------------


def test_a_file_is_read_whole_and_from_any_byte(url: str) -> None:
    assert storage.read_bytes(url) == DATA
    with storage.open_input(url) as stream:
        for start in (700_000, 17, 1_048_575, 0):
            assert stream.seek(start) == start
            assert stream.read(100_000) == DATA[start : start + 100_000]
        assert stream.seek(-5, io.SEEK_END) == len(DATA) - 5
        assert stream.read() == DATA[-5:]
        assert stream.read() == b""
        with pytest.raises(ValueError, match="before the start"):
            stream.seek(-1)


def test_empty_files_and_odd_names_are_read(scheme: str, store: Store) -> None:
    for name, data in {"empty": b"", "a b/é+1 (2).jsonl.gz": b"\x1f\x8b not really gzip"}.items():
        store.put(name, data)
        assert storage.read_bytes(url_of(scheme, store, name)) == data
        with storage.open_input(url_of(scheme, store, name)) as stream:
            assert stream.read() == data


def test_a_version_changes_with_the_file_and_is_listed_as_it_is_told(url: str, scheme: str, store: Store) -> None:
    before = storage.stat(url)
    assert before.size == len(DATA)
    assert before.modified == 1.7e9 + 1
    assert storage.list_files(url) == [before]
    assert storage.read_versioned(url) == (DATA, before.version)
    store.put("in/a.bin", DATA[::-1])
    assert storage.stat(url).version != before.version


def test_what_is_absent_is_file_not_found_and_no_match(scheme: str, store: Store) -> None:
    absent = url_of(scheme, store, "absent.jsonl")
    for reading in (storage.read_bytes, storage.stat, storage.open_input):
        with pytest.raises(FileNotFoundError, match="absent"):
            reading(absent)
    assert not storage.exists(absent)
    assert storage.list_files(absent) == []
    with pytest.raises(EmptyInput, match=r"^sources\.s\.path: no file matches \S+absent\.jsonl; check the path"):
        list_source("s", SourceConfig(role="pool", path=absent, lang="sw"))


@pytest.mark.parametrize("pattern", ["*.jsonl", "**/*.jsonl", "**", "a/**", "?.jsonl", "[!b]*", "**/a/*", "none*"])
@pytest.mark.parametrize("scheme", ["gs", "az"], indirect=True)
def test_a_glob_finds_the_same_files_as_on_disk(scheme: str, store: Store, tmp_path: Path, pattern: str) -> None:
    for name in ("a.jsonl", "b.jsonl", "ab.jsonl", ".hidden.jsonl", "a/a.jsonl", "a/b/c.jsonl", "a/x.csv", "b/a/d"):
        storage.write_bytes(f"{tmp_path}/{name}", b"x")
        store.put(f"in/{name}", b"x")
    root = f"{scheme}://{BUCKET}/in"
    found = [file.url.removeprefix(f"{root}/") for file in storage.list_files(f"{root}/{pattern}")]
    assert found == [file.url.removeprefix(f"{tmp_path}/") for file in storage.list_files(f"{tmp_path}/{pattern}")]


@pytest.mark.parametrize("scheme", ["az"], indirect=True)
def test_the_entries_that_hierarchical_accounts_have_for_folders_are_not_files(store: Store) -> None:
    store.put("in/folder", b"")
    store.put("in/folder/a", b"x")
    assert [file.url for file in storage.list_files(f"az://{BUCKET}/in/**")] == [f"az://{BUCKET}/in/folder/a"]


# --- ingest -------------------------------------------------------------------------------------


def parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"text": [f"row {number}" for number in range(2000)]}), sink, row_group_size=500)
    return sink.getvalue()


FILES = {"a.jsonl": b"".join(b'{"text":"row %d"}\n' % number for number in range(2000)), "a.parquet": parquet()}


@pytest.mark.parametrize("name", FILES)
def test_a_source_is_listed_and_read_row_by_row(scheme: str, store: Store, tmp_path: Path, name: str) -> None:
    store.put(f"in/{name}", FILES[name])
    source = SourceConfig(role="pool", path=url_of(scheme, store, f"in/{name}"), lang="sw")
    [file] = HashCache(f"{tmp_path}/hashes").with_content(list_source("s", source).files)
    assert (file.uri, file.format, file.content) == (name, name.split(".")[1], storage.stat(file.url).version)
    batches = list(read(ReadUnit("s", file), ["text"]))
    assert [text for batch in batches for text in batch.values("text")] == [f"row {number}" for number in range(2000)]
    check_unchanged(file)
    store.put(f"in/{name}", FILES[name])
    with pytest.raises(DataError, match="changed while it was read"):
        check_unchanged(file)


def uris(path: str, **given: object) -> list[str]:
    return [file.uri for file in listing(path, **given).files]


def listing(path: str, **given: object) -> Listing:
    return list_source("s", SourceConfig.model_validate({"role": "pool", "path": path, "lang": "sw", **given}))


@pytest.mark.parametrize("scheme", ["gs", "az"], indirect=True)
def test_a_folder_of_objects_is_read_as_one_on_disk(scheme: str, store: Store, tmp_path: Path) -> None:
    for name in (
        "data/train-0.jsonl", "data/test-0.jsonl", "data/_SUCCESS", "data/_temporary/0/train-1.jsonl", "a.tar",
        "saved/data-0.arrow", "saved/data-1.arrow", "saved/x/train.jsonl", "README.md",
    ):  # fmt: skip
        storage.write_bytes(f"{tmp_path}/in/{name}", b"{}\n")
        store.put(f"in/{name}", b"{}\n")
    state = b'{"_data_files": [{"filename": "data-1.arrow"}], "_split": "train"}'
    store.put("in/saved/state.json", state)
    storage.write_bytes(f"{tmp_path}/in/saved/state.json", state)
    there, here = listing(f"{scheme}://{BUCKET}/in"), listing(f"{tmp_path}/in")
    assert [file.uri for file in there.files] == ["data/train-0.jsonl", "saved/data-1.arrow", "saved/x/train.jsonl"]
    assert [file.uri for file in here.files] == [file.uri for file in there.files]
    assert there.left_out == here.left_out
    assert {one.reason: one.files for one in there.left_out} == {
        "split test": 1, "hidden": 2, ".tar": 1, "not in saved/state.json": 1, "about the data": 2,
    }  # fmt: skip


@pytest.mark.parametrize("scheme", ["gs", "az"], indirect=True)
def test_keys_that_no_disk_knows_are_read_under_names_of_their_own(scheme: str, store: Store) -> None:
    for name in ("data//x.jsonl", "data/x.jsonl", "data/y//z.jsonl", "data/y/", "data/y", "other"):
        store.put(f"in/{name}", b"" if name.endswith("y") or name.endswith("/") else b"{}\n")
    root = f"{scheme}://{BUCKET}/in"
    assert uris(f"{root}/data") == uris(f"{root}/data/") == ["/x.jsonl", "x.jsonl", "y//z.jsonl"]
    assert uris(f"{root}/data//x.jsonl") == ["x.jsonl"]
    assert uris(f"{root}/data//") == ["x.jsonl"]
    assert uris(f"{root}/data/**/*.jsonl") == ["/x.jsonl", "x.jsonl", "y//z.jsonl"]
    assert uris(f"{root}/data/y") == ["/z.jsonl"]


@pytest.mark.parametrize("scheme", ["gs", "az"], indirect=True)
def test_an_empty_object_beside_a_prefix_is_not_taken_for_the_folder(scheme: str, store: Store) -> None:
    store.put("in/data", b"")
    store.put("in/data/a.jsonl", b"{}\n")
    store.put("in/empty.jsonl", b"")
    root = f"{scheme}://{BUCKET}/in"
    assert uris(f"{root}/data") == ["a.jsonl"]
    assert uris(root) == ["data/a.jsonl", "empty.jsonl"]
    assert uris(f"{root}/*") == uris(f"{root}/empty.jsonl") == ["empty.jsonl"]


@pytest.mark.parametrize("scheme", ["gs", "az"], indirect=True)
def test_a_key_that_is_there_is_taken_as_it_is_spelled(scheme: str, store: Store) -> None:
    for name in ("usage[1].jsonl", "usage1.jsonl", "d[1]/a.jsonl", "d1/b.jsonl"):
        store.put(f"in/{name}", b"{}\n")
    root = f"{scheme}://{BUCKET}/in"
    assert uris(f"{root}/usage[1].jsonl") == ["usage[1].jsonl"]
    assert uris(f"{root}/d[1]") == uris(f"{root}/d[1]/*.jsonl") == ["a.jsonl"]
    assert uris(f"{root}/usage[12].jsonl") == ["usage1.jsonl"]


@pytest.mark.parametrize("scheme", ["gs", "az"], indirect=True)
def test_listing_costs_no_request_per_file(scheme: str, store: Store) -> None:
    for number in range(7):
        store.put(f"in/{number}.jsonl", b"{}\n")
    root = f"{scheme}://{BUCKET}/in"
    pages = -(-7 // PAGE)
    for path, most in ((f"{root}/3.jsonl", 1), (root, 1 + pages + 1), (f"{root}/*.jsonl", pages + 1)):
        store.requests.clear()
        assert uris(path)
        assert len(store.requests) <= most


# --- faults -------------------------------------------------------------------------------------


def test_faults_that_pass_are_outlived(url: str, store: Store) -> None:
    store.statuses = [503, 503]
    assert storage.read_bytes(url) == DATA
    store.statuses = [503, 500]
    assert storage.stat(url).size == len(DATA)


def test_a_body_that_breaks_is_resumed(url: str, store: Store) -> None:
    store.cuts = [300_000]
    assert storage.read_bytes(url) == DATA


def test_a_body_that_never_comes_whole_is_an_error_and_never_a_part_of_it(url: str, store: Store) -> None:
    store.put("in/a.bin", b"short")
    store.cut_always = 0
    with storage.open_input(url) as stream, pytest.raises(ResourcesMissing, match=r"^read \S+in/a\.bin: "):
        stream.read()


def test_a_server_that_goes_on_failing_is_an_error_that_says_so(url: str, store: Store) -> None:
    store.statuses = [503] * 1000
    with pytest.raises(ResourcesMissing, match=r"^read \S+in/a\.bin: the (object store|server) .*503.*run again"):
        storage.read_bytes(url)


def test_what_is_refused_is_not_asked_for_again(url: str, store: Store) -> None:
    store.statuses = [403]
    with pytest.raises(ResourcesMissing, match=r"^read \S+in/a\.bin: the (object store|server) answered 403; check"):
        storage.read_bytes(url)
    assert len(store.requests) == 1


@pytest.mark.parametrize("change", ["replaced", "deleted"])
def test_a_file_that_changes_while_it_is_read_is_never_mixed_with_its_successor(
    url: str, store: Store, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    monkeypatch.setattr(gcs, "_RANGE_BYTES", 1 << 18)
    monkeypatch.setattr(azure, "_RANGE_BYTES", 1 << 18)
    with storage.open_input(url) as stream:
        assert stream.read(10) == DATA[:10]
        store.put("in/a.bin", DATA[::-1]) if change == "replaced" else store.files.clear()
        with pytest.raises(DataError, match=r"^\S+in/a\.bin: changed while it was read \(it was .*; let writers"):
            stream.seek(800_000)
            stream.read()


@pytest.mark.parametrize("scheme", ["gs", "az"], indirect=True)
def test_a_bucket_that_does_not_exist_is_about_resources(scheme: str, store: Store) -> None:
    with pytest.raises(ResourcesMissing, match=rf"^list {scheme}://no-such/x\*: there is no \w+ 'no-such'; create it"):
        storage.list_files(f"{scheme}://no-such/x*")
    with pytest.raises(ConfigError, match=rf"^{scheme}:///k: no \w+; expected {scheme}://\w+/path"):
        storage.read_bytes(f"{scheme}:///k")


def test_an_environment_without_an_account_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_ACCOUNT"):
        monkeypatch.delenv(name, raising=False)
    forget()
    with pytest.raises(ConfigError, match="no account; set AZURE_STORAGE_CONNECTION_STRING"):
        storage.read_bytes("az://c/a")
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", f"AccountKey={ACCOUNT_KEY};x")
    with pytest.raises(ConfigError, match=r"^AZURE_STORAGE_CONNECTION_STRING: ") as caught:
        storage.read_bytes("az://c/a")
    assert ACCOUNT_KEY not in str(caught.value)


# --- the web ------------------------------------------------------------------------------------


def test_a_server_that_sends_less_than_a_range_is_asked_for_the_rest(web: Store) -> None:
    web.put("a", DATA)
    web.longest, web.cuts = 100_000, [300_000]
    assert storage.read_bytes(f"{web.address}/a") == DATA


def test_a_server_without_ranges_is_read_from_the_start_alone(web: Store) -> None:
    web.put("a", DATA)
    web.ignores_ranges = True
    assert storage.read_bytes(f"{web.address}/a") == DATA
    with storage.open_input(f"{web.address}/a") as stream:
        stream.seek(500_000)
        with pytest.raises(ResourcesMissing, match="must support Range, so download the file and give its path"):
            stream.read(1)


@pytest.mark.parametrize(
    ("without", "absent"), [({"Content-Length"}, "how long the file is"), ({"ETag", "Last-Modified"}, "its version")]
)
def test_a_server_that_does_not_say_what_a_reader_must_know_is_refused(
    web: Store, without: set[str], absent: str
) -> None:
    web.put("a", DATA)
    web.without = without
    for reading in (storage.stat, storage.read_bytes):
        with pytest.raises(ResourcesMissing, match=f"does not say {absent}.*download the file and give its path"):
            reading(f"{web.address}/a")


def test_a_server_without_an_etag_is_read_by_time_and_size(web: Store) -> None:
    web.put("a", DATA)
    web.without, web.cuts = {"ETag"}, [300_000]
    assert storage.read_bytes(f"{web.address}/a") == DATA
    assert storage.stat(f"{web.address}/a").version.endswith(" GMT 1048576")


def test_a_glob_on_the_web_is_refused(web: Store) -> None:
    with pytest.raises(ConfigError, match=r"/\*\.jsonl: a web server lists no files, so there are no globs; list the"):
        storage.list_files(f"{web.address}/*.jsonl")


def test_a_query_opens_the_file_and_is_neither_kept_nor_shown(
    web: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    web.put("in/a.jsonl", FILES["a.jsonl"])
    source = SourceConfig(role="pool", path=f"{web.address}/in/a.jsonl?{SIGNATURE}", lang="sw")
    [file] = HashCache(f"{tmp_path}/hashes").with_content(list_source("s", source).files)
    assert (file.uri, file.format, file.place) == ("a.jsonl", "jsonl", f"{web.address}/in/a.jsonl")
    assert sum(len(batch.rows) for batch in read(ReadUnit("s", file), ["text"])) == 2000
    assert all(SIGNATURE in path for _, path, _ in web.requests)
    failures = [(web, [403]), (web, [503] * 3), (web, [404]), (None, [])]
    for server, statuses in failures:
        url = file.url if server else f"http://127.0.0.1:9/a.jsonl?{SIGNATURE}"
        web.statuses = list(statuses)
        with pytest.raises((ResourcesMissing, FileNotFoundError)) as caught:
            storage.read_bytes(url)
        assert "s3cr3t" not in "".join(traceback.format_exception(caught.value))
    assert "s3cr3t" not in caplog.text


def test_addresses_that_differ_only_in_their_queries_are_refused_together(web: Store, tmp_path: Path) -> None:
    web.put("a.jsonl", b"{}")
    source = SourceConfig(role="pool", path=[f"{web.address}/a.jsonl?id=1", f"{web.address}/a.jsonl?id=2"], lang="sw")
    with pytest.raises(ConfigError, match=r"^sources\.s\.path: addresses that differ only in their queries"):
        list_source("s", source)


# --- configs ------------------------------------------------------------------------------------


def config(path: str, **fields: object) -> dict[str, object]:
    source = {"role": "pool", "path": path, "lang": "sw"}
    usage = {"role": "usage", "path": "t.jsonl", "lang": "sw"}
    return {"output": "out", "sources": {"web": source, "usage": usage}, "sample": {"budget": 1}, **fields}


def test_a_password_in_an_address_is_refused_before_any_work_and_not_shown() -> None:
    address = "https://me:s3cr3t@host/a.jsonl"
    for reading in (storage.read_bytes, storage.list_files, lambda url: load_config(config(url))):
        with pytest.raises(
            ConfigError, match=r"https://host/a\.jsonl: holds a user or a password.*~/\.netrc"
        ) as caught:
            reading(address)
        assert "s3cr3t" not in "".join(traceback.format_exception(caught.value))


def test_what_a_run_keeps_of_its_config_has_no_query() -> None:
    kept = load_config(config(f"https://host/a.jsonl?{SIGNATURE}")).unexpanded
    assert kept["sources"]["web"]["path"] == "https://host/a.jsonl"


@pytest.mark.parametrize("url", ["gs://b/out", "az://c/out", "https://host/out", "http://host/out"])
def test_what_is_only_read_is_refused_as_an_output_before_any_work(url: str) -> None:
    expected = rf"{url}.*: '\w+://' can be read, not written; write to a local path or s3://"
    with pytest.raises(ConfigError, match=f"output: .*{expected}"):
        load_config(config("a.jsonl", output=url))
    with pytest.raises(ConfigError, match=f"registry.path: .*{expected}"):
        load_config(config("a.jsonl", registry={"path": url}))
    for write in (
        lambda: storage.write_bytes(f"{url}/x", b""),
        lambda: storage.replace_if(f"{url}/x", b"", None),
        lambda: storage.delete(f"{url}/x"),
        lambda: storage.delete_all([f"{url}/x"]),
        lambda: storage.delete_tree(url),
        lambda: storage.check_writable(url),
        lambda: storage.arrow_filesystem(url),
    ):
        with pytest.raises(ConfigError, match=expected):
            write()
