"""Which files a source has, what identifies them, and how they are shared out."""

from __future__ import annotations

import gzip
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compass_ray.errors import ConfigError, DataError, EmptyInput
from compass_ray.ingest import files
from compass_ray.ingest.config import IngestConfig, SourceConfig
from compass_ray.ingest.datasource import bundled
from compass_ray.ingest.files import HashCache, InputFile, ReadUnit, check_unchanged, read_units
from compass_ray.ingest.listing import list_source
from compass_ray.ingest.stage import IngestPlan, plan, read_unit


def tree(folder: Path, *names: str) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f'{{"text": "{name}"}}\n')
    return folder


def found(tmp_path: Path, path: str | list[str], **given: Any) -> list[InputFile]:
    source = SourceConfig(role="pool", path=path, lang="en", **given)
    return HashCache(f"{tmp_path}/cache/inputs.json").with_content(list_source("src", source).files)


# --- listing ------------------------------------------------------------------------------------


def test_globs_find_files_across_folders_sorted_by_their_path_below_the_root(tmp_path: Path) -> None:
    root = tree(tmp_path / "in", "b.jsonl", "a/z.jsonl", "a/b/c.jsonl", "a/b/c.txt")
    assert [file.uri for file in found(tmp_path, f"{root}/**/*.jsonl")] == ["a/b/c.jsonl", "a/z.jsonl", "b.jsonl"]
    assert [file.uri for file in found(tmp_path, f"{root}/*.jsonl")] == ["b.jsonl"]
    assert [file.uri for file in found(tmp_path, f"{root}/[ab].jsonl")] == ["b.jsonl"]
    assert [file.uri for file in found(tmp_path, f"{root}/a/?.jsonl")] == ["z.jsonl"]


def test_a_single_file_is_called_by_its_name(tmp_path: Path) -> None:
    root = tree(tmp_path, "in/b.jsonl")
    [file] = found(tmp_path, f"{root}/in/b.jsonl")
    assert (file.uri, file.url, file.format) == ("b.jsonl", f"{root}/in/b.jsonl", "jsonl")
    assert file.size == len((root / "in/b.jsonl").read_bytes())


def test_several_paths_share_a_root_and_give_each_file_once(tmp_path: Path) -> None:
    root = tree(tmp_path / "in", "x/a.jsonl", "x/b.jsonl", "y/a.jsonl")
    files = found(tmp_path, [f"{root}/x/*.jsonl", f"{root}/y/a.jsonl", f"{root}/x/a.jsonl"])
    assert [file.uri for file in files] == ["x/a.jsonl", "x/b.jsonl", "y/a.jsonl"]


def test_a_relative_path_is_made_absolute_for_workers_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree(tmp_path, "in/a.jsonl")
    monkeypatch.chdir(tmp_path)
    [file] = found(tmp_path, "in/*.jsonl")
    assert (file.url, file.uri) == (f"{tmp_path}/in/a.jsonl", "a.jsonl")


def test_exclude_is_matched_against_the_path_below_the_root(tmp_path: Path) -> None:
    root = tree(tmp_path / "in", "a/x.jsonl", "a/y.jsonl", "b/x.jsonl")
    assert [file.uri for file in found(tmp_path, f"{root}/**/*.jsonl", exclude=["*/y.jsonl"])] == [
        "a/x.jsonl",
        "b/x.jsonl",
    ]
    assert [file.uri for file in found(tmp_path, f"{root}/**/*.jsonl", exclude=["a/*"])] == ["b/x.jsonl"]
    assert len(found(tmp_path, f"{root}/**/*.jsonl", exclude=["in/*", "y.jsonl"])) == 3


def test_nothing_found_is_an_error_that_names_the_source_and_the_glob(tmp_path: Path) -> None:
    root = tree(tmp_path, "a.jsonl")
    with pytest.raises(
        EmptyInput, match=r"^sources\.src\.path: no file matches .*/\*\.csv; check the path, the glob and"
    ):
        found(tmp_path, [f"{root}/*.jsonl", f"{root}/*.csv"])


def test_a_folder_stands_for_the_data_files_below_it(tmp_path: Path) -> None:
    names = ["b.jsonl.zst", "x/a.parquet", "x/y/c.csv", "README.md", "notes.txt", "x/.hidden.csv", "LICENSE"]
    root = tree(tmp_path / "in", *names, "x/state.json", "x/dataset_info.json", "x/cache-12.arrow", "x/data-0.arrow")
    (root / "x/state.json").write_text('{"_data_files": [{"filename": "data-0.arrow"}]}')
    files = found(tmp_path, str(root))
    assert [(file.uri, file.format) for file in files] == [
        ("b.jsonl.zst", "jsonl"),
        ("x/a.parquet", "parquet"),
        ("x/data-0.arrow", "arrow"),
        ("x/y/c.csv", "csv"),
    ]
    assert [file.uri for file in found(tmp_path, f"{root}/", format="csv")] == ["x/y/c.csv"]
    assert [file.uri for file in found(tmp_path, str(root), format="markdown")] == ["README.md"]
    assert [file.uri for file in found(tmp_path, str(root), format="lines")] == ["notes.txt"]


def test_a_folder_without_data_files_is_an_error(tmp_path: Path) -> None:
    tree(tmp_path, "in/a.pdf")
    with pytest.raises(
        EmptyInput, match=r"^sources\.src\.path: no data below .*/in: expected .*, found \.pdf \(1 file"
    ):
        found(tmp_path, f"{tmp_path}/in")


def test_a_dialect_is_for_the_delimited_files_of_a_source_and_not_for_a_source_without(tmp_path: Path) -> None:
    root = tree(tmp_path, "a.csv", "b.jsonl", "c.parquet")
    source = SourceConfig(role="pool", path=str(root), lang="en", delimiter=";")
    assert [file.dialect.delimiter for file in list_source("src", source).files] == [";"] * 3
    with pytest.raises(ConfigError) as caught:
        list_source("src", source.model_copy(update={"exclude": ["*.csv"]}))
    assert str(caught.value) == (
        "sources.src.delimiter: csv and tsv have one, and the source has only jsonl and parquet files; remove it, "
        "or set format"
    )


def test_excluding_everything_is_an_error(tmp_path: Path) -> None:
    root = tree(tmp_path, "a.jsonl", "b.jsonl")
    with pytest.raises(EmptyInput, match=r"^sources\.src\.exclude: leaves none of 2 files; found \['\*'\]"):
        found(tmp_path, f"{root}/*.jsonl", exclude=["*"])


def test_local_and_remote_paths_in_one_source_are_refused_with_its_name(tmp_path: Path) -> None:
    tree(tmp_path, "a.jsonl")
    with pytest.raises(ConfigError, match=r"sources\.src"):
        found(tmp_path, [f"{tmp_path}/a.jsonl", "s3://bucket/b.jsonl"])


def test_an_unknown_storage_scheme_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"storage scheme 'ftp://' is not supported; use a local path or s3://"):
        found(tmp_path, "ftp://host/a.jsonl")


# --- formats ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "compression"),
    [
        ("a.jsonl", "jsonl", ""),
        ("a.ndjson", "jsonl", ""),
        ("a.jsonlines", "jsonl", ""),
        ("a.jl.gzip", "jsonl", ".gzip"),
        ("a.jsonl.zstd", "jsonl", ".zstd"),
        ("a.csv.lz4", "csv", ".lz4"),
        ("a.pq", "parquet", ""),
        ("a.feather", "arrow", ""),
        ("a.snappy.parquet", "parquet", ""),
        ("a.markdown", "markdown", ""),
        ("a.JSONL", "jsonl", ""),
        ("a.jsonl.gz", "jsonl", ".gz"),
        ("a.jsonl.ZST", "jsonl", ".zst"),
        ("a.json.bz2", "json", ".bz2"),
        ("a.b.csv", "csv", ""),
        ("a.tsv.xz", "tsv", ".xz"),
        ("a.parquet", "parquet", ""),
        ("a.arrow", "arrow", ""),
        ("a.md", "markdown", ""),
    ],
)
def test_the_format_is_told_from_the_name(tmp_path: Path, name: str, kind: str, compression: str) -> None:
    [file] = found(tmp_path, f"{tree(tmp_path, name)}/a.*")
    assert (file.format, file.compression) == (kind, compression)


@pytest.mark.parametrize("name", ["a.txt", "a", "a.gz", "a.txt.xz"])
def test_an_unknown_format_is_an_error_that_says_what_to_do(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError) as caught:
        found(tmp_path, str(tree(tmp_path, name) / name))
    hint = " to 'lines' (a document a line) or 'text' (a document a file)" if ".txt" in name else ""
    assert str(caught.value) == (
        f"sources.src.format: cannot tell the format of {tmp_path}/{name} from its name; expected .jsonl, .ndjson, "
        ".jsonlines, .jl, .json, .parquet, .pq, .arrow, .feather, .csv, .tsv, .md, .markdown (.gz, .gzip, .bz2, .xz, "
        ".zst, .zstd, .lz4 or not), or set sources.src.format" + hint
    )
    [file] = found(tmp_path, str(tmp_path / name), format="jsonl")
    assert file.format == "jsonl"


def test_compressed_files_weigh_what_they_hold() -> None:
    plain, packed, parquet = (
        InputFile(f"/d/{name}", name, 100, "v", kind, "c")
        for name, kind in (("a.csv", "csv"), ("a.csv.gz", "csv"), ("a.parquet", "parquet"))
    )
    assert (plain.weight, packed.weight, parquet.weight) == (100, 400, 400)


# --- units --------------------------------------------------------------------------------------


@given(size=st.integers(0, 1000), range_bytes=st.integers(1, 400))
def test_the_ranges_of_a_line_file_tile_it(size: int, range_bytes: int) -> None:
    file = InputFile("/d/a.jsonl", "a.jsonl", size, "v", "jsonl", "c")
    units = read_units({"s": [file]}, range_bytes)
    if size <= range_bytes:
        assert [(unit.start, unit.end) for unit in units] == [(0, None)]
    else:
        covered = [byte for unit in units for byte in range(unit.start, unit.end or 0)]
        assert covered == list(range(size))
        assert all((unit.end or 0) - unit.start <= range_bytes for unit in units)


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.csv", "a.parquet"])
def test_what_cannot_be_entered_in_the_middle_is_read_whole(name: str) -> None:
    kind = name.split(".")[1]
    units = read_units({"s": [InputFile(f"/d/{name}", name, 10_000, "v", kind, "c")]}, 100)
    assert [(unit.source, unit.start, unit.end) for unit in units] == [("s", 0, None)]


@given(sizes=st.lists(st.integers(0, 100), max_size=30), most=st.integers(1, 200))
def test_small_files_are_read_together_and_none_twice(sizes: list[int], most: int) -> None:
    units = [ReadUnit("s", InputFile(f"/d/{n}", f"{n}", size, "v", "csv", "c")) for n, size in enumerate(sizes)]
    bundles = list(bundled(units, most))
    assert [unit for bundle in bundles for unit in bundle] == units
    weights = [sum(unit.weight for unit in bundle) for bundle in bundles]
    assert all(weight <= most or len(bundle) == 1 for weight, bundle in zip(weights, bundles, strict=True))
    assert all(one + bundle[0].weight > most for one, bundle in zip(weights, bundles[1:], strict=False))


# --- identity -----------------------------------------------------------------------------------


def planned(
    root: Path, output: Path | None = None, view: Any = "prompt", shard_bytes: int = 1 << 10, **given: Any
) -> IngestPlan:
    sources = {"src": SourceConfig(**{"role": "pool", "path": f"{root}/**/*.jsonl", "lang": "en", **given})}
    return plan(sources, IngestConfig(shard_bytes=shard_bytes, view=view), str(output or root / "out"))


def test_the_fingerprint_follows_content_names_and_meaning(tmp_path: Path) -> None:
    root = tree(tmp_path / "in", "a.jsonl", "b.jsonl")
    before = planned(root).artifact.fingerprint
    assert planned(root).artifact.fingerprint == before
    assert planned(root, lang="de").artifact.fingerprint != before
    assert planned(root, view="full").artifact.fingerprint != before
    assert planned(root, where={"text": "a"}).artifact.fingerprint != before
    (root / "a.jsonl").write_text('{"text": "A.jsonl"}\n')
    changed = planned(root).artifact.fingerprint
    assert changed != before
    (root / "a.jsonl").rename(root / "c.jsonl")
    assert planned(root).artifact.fingerprint not in (before, changed)


def test_the_fingerprint_is_blind_to_times_and_places(tmp_path: Path) -> None:
    root = tree(tmp_path / "in", "a.jsonl", "x/b.jsonl")
    before = planned(root).artifact.fingerprint
    os.utime(root / "a.jsonl", (1, 1))
    assert planned(root).artifact.fingerprint == before
    shutil.copytree(root, tmp_path / "elsewhere")
    assert planned(tmp_path / "elsewhere", output=tmp_path / "out2").artifact.fingerprint == before


def test_execution_fields_do_not_enter_the_fingerprint(tmp_path: Path) -> None:
    root = tree(tmp_path / "in", "a.jsonl")
    source = {"src": SourceConfig(role="pool", path=f"{root}/*.jsonl", lang="en")}
    small, large = (
        plan(source, IngestConfig(range_bytes=size), str(tmp_path / "out")).artifact.fingerprint
        for size in (1 << 10, 1 << 20)
    )
    assert small == large


def test_the_number_of_shards_follows_the_bytes_of_the_input(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"text": "a"}\n' * 1000)
    assert planned(tmp_path, shard_bytes=1 << 20).n_shards == 1
    assert planned(tmp_path, shard_bytes=1 << 10).n_shards == 16  # 14,000 bytes in kibibytes, as a power of two


def test_equal_bytes_have_equal_hashes_and_one_byte_more_has_another(tmp_path: Path) -> None:
    for name, data in (("a", b"x" * 3_000_000), ("b", b"x" * 3_000_000), ("c", b"x" * 2_999_999 + b"y")):
        (tmp_path / f"{name}.jsonl").write_bytes(data)
    a, b, c = (file.content for file in found(tmp_path, f"{tmp_path}/*.jsonl"))
    assert a == b != c


def rewritten(path: Path, text: str) -> None:
    """Written as if it had been long ago; the clock of a file system ticks every few milliseconds."""
    before = path.stat().st_ctime_ns if path.exists() else 0
    path.write_text(text)
    os.utime(path, ns=(5, 5))
    while path.stat().st_ctime_ns == before:
        os.utime(path, ns=(5, 5))


def test_hashes_are_kept_by_path_size_and_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text("one\n")
    [first] = found(tmp_path, str(path))
    assert first.content in json.loads((tmp_path / "cache/inputs.json").read_text()).values()
    monkeypatch.setattr(files, "_hash_file", lambda file: pytest.fail(f"read again: {file}"))
    assert found(tmp_path, str(path)) == [first]


def test_a_changed_file_of_the_same_size_and_time_of_writing_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    rewritten(path, "one\n")
    [first] = found(tmp_path, str(path))
    rewritten(path, "two\n")
    [second] = found(tmp_path, str(path))
    assert (second.size, second.version) == (first.size, first.version)
    assert second.content != first.content
    rewritten(path, "six\n")
    [third] = found(tmp_path, str(path))
    assert third.content not in (first.content, second.content)


# --- files that change --------------------------------------------------------------------------


def test_an_unchanged_file_passes_the_check(tmp_path: Path) -> None:
    [file] = found(tmp_path, str(tree(tmp_path, "a.jsonl") / "a.jsonl"))
    check_unchanged(file)


def test_a_file_that_changes_while_it_is_read_stops_the_run(tmp_path: Path) -> None:
    path = tree(tmp_path, "a.jsonl") / "a.jsonl"
    sources = {"src": SourceConfig(role="pool", path=str(path), lang="en")}
    [file] = found(tmp_path, str(path))
    tables = read_unit(read_units({"src": [file]}, 1 << 20)[0], sources, "prompt", 1, frozenset({0}))
    assert next(tables)["text"].to_pylist() == ["a.jsonl"]
    with path.open("a") as stream:
        stream.write('{"text": "late"}\n')
    with pytest.raises(DataError) as caught:
        list(tables)
    now = path.stat()
    assert str(caught.value) == (
        f"{path}: changed while it was read (was {file.size} bytes, version {file.version}; now {now.st_size} bytes, "
        f"version {now.st_mtime_ns}); let writers finish and run again"
    )


def test_a_gzip_that_is_replaced_while_it_is_read_stops_the_run(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "a"}\n', mtime=0))
    [file] = found(tmp_path, str(path))
    path.write_bytes(gzip.compress(b'{"text": "b"}\n', mtime=0))
    os.utime(path, ns=(7, 7))
    with pytest.raises(DataError, match="changed while it was read"):
        check_unchanged(file)
