"""Content-addressed stage outputs: identity, manifest-last commit, resume, corruption."""

from __future__ import annotations

import io
import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray.artifacts import Artifact, artifact, canonical_json, digest, open_artifact, restore, to_parquet
from compass_ray.errors import ArtifactCorrupt, ArtifactMissing

TABLE = pa.table({"doc": ["a", None, "ç", "一二"], "n": [1, 2, None, 4], "v": [[1.0], [], None, [2.0, 3.0]]})


def committed(output: Path, identity: dict[str, object] | None = None) -> Artifact:
    made = artifact(str(output), "embed", identity or {"model": "hashing"})
    made.commit(
        [made.write("00001", TABLE.slice(2)), made.write("00000", TABLE.slice(0, 2), {"groups": [["pool", 2]]})]
    )
    return made


def test_the_fingerprint_names_the_folder_and_depends_on_every_identity_field() -> None:
    made = [
        artifact("out", stage, identity)
        for stage in ("embed", "ingest")
        for identity in ({"model": "a"}, {"model": "b"}, {"model": "a", "dim": 1}, {"model": "a", "dim": None})
    ]
    assert len({one.fingerprint for one in made}) == len(made)
    assert made[0].url == f"out/cache/embed-{made[0].fingerprint}"


def test_the_fingerprint_does_not_depend_on_the_order_of_fields_or_the_output_folder() -> None:
    one = artifact("out", "embed", {"model": "a", "config": {"x": 1, "y": 2}})
    other = artifact("/elsewhere/", "embed", {"config": {"y": 2, "x": 1}, "model": "a"})
    assert one.fingerprint == other.fingerprint


def test_a_schema_version_enters_the_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    before = artifact("out", "embed", {}).fingerprint
    monkeypatch.setattr("compass_ray.records.SCHEMA_VERSION", 999)
    assert artifact("out", "embed", {}).fingerprint != before


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    made = committed(tmp_path)
    assert made.read("00000").equals(TABLE.slice(0, 2))
    assert made.read("00001", ["n"]).equals(TABLE.slice(2).select(["n"]))


def test_columns_are_read_without_the_rest_of_the_file(tmp_path: Path) -> None:
    made = artifact(str(tmp_path), "embed", {})
    texts = pa.array([digest(f"{number}".encode(), 64) * 4 for number in range(5_000)])
    made.commit([made.write("00000", pa.table({"doc": texts, "n": pa.array(range(5_000))}))])
    read: list[int] = []

    class Counted(io.FileIO):
        def readinto(self, buffer: Any) -> int | None:
            read.append(super().readinto(buffer) or 0)
            return read[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("compass_ray.storage.open_input", lambda url: io.BufferedReader(Counted(url), 4096))
        found = made.read_columns("00000", ["n"])
    assert found.equals(pa.table({"n": pa.array(range(5_000))}))
    assert 0 < sum(read) < made.manifest().bytes / 3


def test_columns_are_read_from_an_object_store_too(s3: str) -> None:
    made = artifact(s3, "embed", {})
    made.commit([made.write("00000", TABLE)])
    assert made.read_columns("00000", ["n"]).equals(TABLE.select(["n"]))


def test_columns_of_what_is_missing_or_no_table_are_refused(tmp_path: Path) -> None:
    made = committed(tmp_path)
    with pytest.raises(ArtifactMissing, match="lists no file '00009'"):
        made.read_columns("00009", ["n"])
    (Path(made.url) / "00000.parquet").write_bytes(b"no table")
    with pytest.raises(ArtifactCorrupt, match=r"00000\.parquet: .*; delete .* and run again"):
        made.read_columns("00000", ["n"])
    (Path(made.url) / "00001.parquet").unlink()
    with pytest.raises(ArtifactCorrupt, match=r"00001\.parquet: listed in the manifest but missing"):
        made.read_columns("00001", ["n"])


def test_the_manifest_lists_the_files_in_key_order_with_rows_bytes_hash_and_summary(tmp_path: Path) -> None:
    made = committed(tmp_path)
    manifest = made.manifest()
    assert list(manifest.receipts) == ["00000", "00001"]
    assert manifest.rows == 4
    on_disk = (Path(made.url) / "00000.parquet").read_bytes()
    receipt = manifest.receipts["00000"]
    assert (receipt.rows, receipt.bytes, receipt.hash) == (2, len(on_disk), digest(on_disk))
    assert receipt.summary == {"groups": [["pool", 2]]}
    assert manifest.bytes == sum(file.stat().st_size for file in Path(made.url).glob("*.parquet"))


def test_without_its_manifest_an_artifact_does_not_exist(tmp_path: Path) -> None:
    made = artifact(str(tmp_path), "embed", {})
    made.write("00000", TABLE)
    assert not made.exists()
    with pytest.raises(ArtifactMissing, match=r"no manifest\.json, so this stage has not finished; run it again"):
        made.read("00000")
    with pytest.raises(ArtifactMissing, match="has not finished"):
        open_artifact(made.url)
    made.commit(made.finished().values())
    assert made.exists()


def test_an_interrupted_run_leaves_receipts_and_a_commit_clears_them(tmp_path: Path) -> None:
    made = artifact(str(tmp_path), "embed", {})
    written = {key: made.write(key, TABLE, {"bad": 0}) for key in ("00000", "00007")}
    again = artifact(str(tmp_path), "embed", {})
    assert again.finished() == written
    again.commit(written.values())
    assert again.finished() == {}
    assert sorted(path.name for path in Path(made.url).glob("*.*")) == [
        "00000.parquet",
        "00007.parquet",
        "manifest.json",
    ]


def test_receipts_are_found_below_a_folder_whose_name_looks_like_a_glob(tmp_path: Path) -> None:
    made = artifact(str(tmp_path / "runs[1]"), "embed", {})
    written = made.write("00000", TABLE)
    assert made.finished() == {"00000": written}


def test_writing_the_same_file_twice_changes_no_byte(tmp_path: Path) -> None:
    made = artifact(str(tmp_path), "embed", {})
    first = made.write("00000", TABLE)
    before = (Path(made.url) / "00000.parquet").read_bytes()
    assert made.write("00000", TABLE) == first
    assert (Path(made.url) / "00000.parquet").read_bytes() == before
    assert not list(Path(made.url).rglob("*.partial"))


def test_two_runs_commit_the_same_manifest_bytes(tmp_path: Path) -> None:
    one, other = committed(tmp_path / "a"), committed(tmp_path / "b")
    manifests = [(Path(made.url) / "manifest.json").read_bytes() for made in (one, other)]
    assert manifests[0] == manifests[1]


def test_a_file_changed_on_disk_is_refused_with_both_hashes(tmp_path: Path) -> None:
    made = committed(tmp_path)
    file = Path(made.url) / "00000.parquet"
    original = file.read_bytes()
    file.write_bytes(original[:-1])
    with pytest.raises(ArtifactCorrupt) as caught:
        made.read("00000")
    expected, found = digest(original), digest(original[:-1])
    assert str(caught.value) == (
        f"{file}: expected {len(original)} bytes with hash {expected}, found {len(original) - 1} bytes with hash "
        f"{found}; delete {made.url} and run again"
    )


def test_a_file_of_equal_size_with_one_flipped_bit_is_refused(tmp_path: Path) -> None:
    made = committed(tmp_path)
    file = Path(made.url) / "00001.parquet"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    with pytest.raises(ArtifactCorrupt, match=r"00001\.parquet: expected \d+ bytes with hash"):
        made.read("00001")


def test_a_listed_file_that_is_gone_is_corruption(tmp_path: Path) -> None:
    made = committed(tmp_path)
    (Path(made.url) / "00001.parquet").unlink()
    with pytest.raises(ArtifactCorrupt, match=r"00001\.parquet: listed in the manifest but missing; delete .*embed-"):
        made.read("00001")


def test_a_key_that_the_manifest_does_not_list_is_missing_even_if_a_file_lies_there(tmp_path: Path) -> None:
    made = committed(tmp_path)
    shutil.copy(Path(made.url) / "00001.parquet", Path(made.url) / "00002.parquet")
    with pytest.raises(ArtifactMissing, match="the manifest lists no file '00002'"):
        made.read("00002")


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b'{"files": [{"key": "0"}]}', b"\xff", b'{"files": 1}'])
def test_a_broken_manifest_is_corruption_and_says_what_to_do(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(
        ArtifactCorrupt, match=r"manifest\.json: not a manifest \(.*\); delete the folder and run again"
    ):
        open_artifact(str(tmp_path))


def test_an_artifact_opened_by_url_is_the_one_that_was_made(tmp_path: Path) -> None:
    made = committed(tmp_path, {"encoder": {"model": "hashing", "dtype": "float32"}})
    found = open_artifact(made.url)
    assert (found.stage, found.fingerprint) == ("embed", made.fingerprint)
    assert found.identity["encoder"] == {"model": "hashing", "dtype": "float32"}
    assert found.read("00000").equals(made.read("00000"))


def test_the_manifests_identity_gives_its_own_fingerprint_again(tmp_path: Path) -> None:
    made = committed(tmp_path, {"seed": 3})
    body = json.loads((Path(made.url) / "manifest.json").read_bytes())
    identity = {key: value for key, value in body["identity"].items() if key not in {"schema_version", "stage"}}
    assert artifact(str(tmp_path), body["stage"], identity) == made


def test_a_handle_survives_pickle(tmp_path: Path) -> None:
    made = committed(tmp_path)
    copy = pickle.loads(pickle.dumps(made))  # noqa: S301 our own bytes
    assert copy == made
    assert copy.read("00001").equals(made.read("00001"))


def kept(made: Artifact) -> tuple[bytes, dict[str, bytes]]:
    return Path(made.url, "manifest.json").read_bytes(), {key: made.read_bytes(key) for key in ("00000", "00001")}


def test_an_artifact_that_was_kept_elsewhere_comes_back_as_it_was(tmp_path: Path) -> None:
    made = committed(tmp_path / "one")
    back = restore(str(tmp_path / "other"), *kept(made))
    assert (back.name, back.fingerprint) == (made.name, made.fingerprint)
    assert back.manifest() == made.manifest()
    assert back.read("00000").equals(TABLE.slice(0, 2))
    assert restore(str(tmp_path / "other"), *kept(made)) == back


def test_what_is_not_what_its_manifest_lists_does_not_come_back(tmp_path: Path) -> None:
    manifest, files = kept(committed(tmp_path / "one"))
    body = json.loads(manifest)
    other = str(tmp_path / "other")
    with pytest.raises(ArtifactCorrupt, match=r"not what its manifest lists \(00001\); make it again"):
        restore(other, manifest, {**files, "00001": b"x"})
    with pytest.raises(ArtifactCorrupt, match=r"\(00000\)"):
        restore(other, manifest, {"00001": files["00001"]})
    with pytest.raises(ArtifactCorrupt, match=r"\(its identity\)"):
        restore(other, json.dumps(body | {"identity": {"model": "another"}}).encode(), files)
    with pytest.raises(ArtifactCorrupt, match=r"\(\.\./out\)"):
        restore(other, json.dumps(body | {"stage": "../out"}).encode(), files)
    with pytest.raises(ArtifactCorrupt, match="no manifest that can be read"):
        restore(other, b"{}", files)
    assert not Path(other).exists()


def test_an_artifact_that_was_deleted_and_made_again_answers_with_its_new_manifest(tmp_path: Path) -> None:
    """The message of ArtifactCorrupt asks for this, a notebook does it in one process, and a GPU gives other bytes."""
    made = committed(tmp_path)
    assert made.manifest().rows == 4
    shutil.rmtree(made.url)
    assert not made.exists()
    receipt = made.write("00000", TABLE)
    assert made.commit([receipt]).receipts == {"00000": receipt}
    assert made.read("00000").equals(TABLE)


ROWS = st.lists(
    st.tuples(st.one_of(st.none(), st.text(max_size=5)), st.one_of(st.none(), st.integers(-9, 9))), max_size=20
)


@given(rows=ROWS, data=st.data())
def test_parquet_bytes_do_not_depend_on_how_the_table_was_chunked(
    rows: list[tuple[str | None, int | None]], data: st.DataObject
) -> None:
    schema = pa.schema([("text", pa.string()), ("n", pa.int64()), ("list", pa.list_(pa.string()))])
    whole = pa.table(
        {
            "text": [t for t, _ in rows],
            "n": [n for _, n in rows],
            "list": [None if t is None else [t, t] for t, _ in rows],
        },
        schema=schema,
    )
    cuts = sorted(data.draw(st.lists(st.integers(0, len(rows)), max_size=4)))
    pieces = [whole.slice(start, stop - start) for start, stop in zip([0, *cuts], [*cuts, len(rows)], strict=True)]
    chunked = pa.concat_tables(pieces)
    assert to_parquet(chunked) == to_parquet(whole)
    assert pq.read_table(pa.BufferReader(to_parquet(chunked))).equals(whole)


def test_rows_beyond_one_row_group_come_back_in_order() -> None:
    table = pa.table({"n": pa.array(range(70_000))})
    assert pq.read_table(pa.BufferReader(to_parquet(table))).equals(table)


def test_equal_values_have_equal_json_whatever_their_order() -> None:
    assert canonical_json({"b": [1, 2], "a": {"y": 1, "x": "ü"}}) == canonical_json(
        {"a": {"x": "ü", "y": 1}, "b": [1, 2]}
    )
    assert "ü" in canonical_json({"x": "ü"})


def test_json_that_other_readers_would_refuse_is_refused() -> None:
    with pytest.raises(ValueError, match="Out of range float values are not JSON compliant"):
        canonical_json({"x": float("nan")})


@pytest.mark.skipif(sys.platform != "linux", reason="counts the threads in /proc")
def test_reading_parquet_leaves_no_thread_behind_that_could_abort_the_interpreter_as_it_ends() -> None:
    script = """
import os
import pyarrow as pa
from compass_ray.artifacts import from_parquet, to_parquet
data = to_parquet(pa.table({"n": range(100_000), "text": [str(n) for n in range(100_000)]}))
before = len(os.listdir("/proc/self/task"))
rows = from_parquet(data, ["text"]).num_rows
print(rows, len(os.listdir("/proc/self/task")) - before)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.split() == ["100000", "0"]
