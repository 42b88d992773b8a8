"""What a file's fault weighs: the rows that are lost with it, counted where they can be, by bytes where not."""

from __future__ import annotations

import bz2
import gzip
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from compass_ray.artifacts import Manifest, Receipt
from compass_ray.errors import TooManyBadRows
from compass_ray.ingest.config import IngestConfig, Limits, SourceConfig
from compass_ray.ingest.files import read_units
from compass_ray.ingest.listing import list_source
from compass_ray.ingest.losses import estimated_rows
from compass_ray.ingest.shuffle import count_rows, finish_shard
from compass_ray.ingest.stage import check_usable, read_unit, row_counts
from compass_ray.records import INGESTED


def read(folder: Path, limits: Limits = Limits(), **sources: str) -> tuple[Manifest, dict[str, int], pa.Table]:  # noqa: B008
    """Sources by name and glob, read without a cluster: the manifest, bytes by source, and the one shard."""
    described = {
        name: SourceConfig(role="current", path=str(folder / path), lang="en") for name, path in sources.items()
    }
    files = {name: list_source(name, source).files for name, source in described.items()}
    tables = [
        table
        for unit in read_units(files, 1 << 16)
        for table in read_unit(unit, described, "prompt", 1, frozenset({0}), limits)
    ]
    shard = finish_shard(pa.concat_tables(tables).select(INGESTED.names).cast(INGESTED))
    receipt = Receipt("00000", shard.num_rows, 0, "", count_rows(shard))
    sizes = {name: sum(file.size for file in members) for name, members in files.items()}
    return Manifest("ingest", "f", {}, {"00000": receipt}), sizes, shard


def faults(shard: pa.Table) -> list[tuple[str, dict[str, int | None]]]:
    """Message and loss of the faults of files."""
    rows = shard.filter(shard["lost"].is_valid())
    return [(row["reject"]["message"], row["lost"]) for row in rows.select(["reject", "lost"]).to_pylist()]


def noise(number: int) -> str:
    return random.Random(number).randbytes(30).hex()  # noqa: S311 does not compress away


def lines(rows: int) -> bytes:
    return b"".join(json.dumps({"text": noise(number)}).encode() + b"\n" for number in range(rows))


def parquet(path: Path, rows: int, name: str = "text", **given: Any) -> None:
    pq.write_table(pa.table({name: [noise(number) for number in range(rows)]}), path, **given)


# --- rows that the file counts ------------------------------------------------------------------


def test_a_parquet_file_with_a_renamed_column_weighs_its_rows(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", 1_000)
    parquet(tmp_path / "b.parquet", 5_000, "body")
    manifest, sizes, shard = read(tmp_path, s="*.parquet")
    assert row_counts(manifest) == {("s", "document"): 1_000, ("s", "missing_column"): 5_000}
    assert faults(shard) == [
        ("expected text; the file has body; 5,000 rows are lost", {"rows": 5_000, "bytes": 0}),
    ]
    with pytest.raises(
        TooManyBadRows, match=r"^5000 of 6000 rows are broken .* worst: sources\.s: 5000 × missing_column\."
    ):
        check_usable(manifest, IngestConfig(), [], sizes)
    check_usable(manifest, IngestConfig(max_bad_fraction=0.84), [], sizes)


def test_a_damaged_row_group_weighs_its_rows_and_no_others(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet(path, 3_000, row_group_size=1_000, compression="zstd", use_dictionary=False)
    column = pq.read_metadata(path).row_group(1).column(0)
    data = bytearray(path.read_bytes())
    middle = column.data_page_offset + column.total_compressed_size // 2
    data[middle : middle + 64] = bytes(64)
    path.write_bytes(data)
    manifest, _, shard = read(tmp_path, s="a.parquet")
    assert row_counts(manifest) == {("s", "document"): 2_000, ("s", "unreadable_row_group"): 1_000}
    [(message, lost)] = faults(shard)
    assert message.startswith("row group 1 of 3: ")
    assert message.endswith("; 1,000 rows are lost")
    assert lost["rows"] == 1_000


def test_what_is_left_of_a_parquet_file_weighs_what_the_footer_counts(tmp_path: Path) -> None:
    parquet(tmp_path / "a.parquet", 3_000, row_group_size=1_000)
    manifest, _, _ = read(tmp_path, Limits(file_bytes=150_000), s="a.parquet")
    assert row_counts(manifest) == {("s", "document"): 2_000, ("s", "too_large"): 1_000}


@pytest.mark.parametrize("name", ["a.md", "a.txt"])
def test_a_file_that_is_one_document_weighs_one(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"---\na: [\n---\n" + b"\xff" * 5_000)
    kind = "markdown" if name == "a.md" else "text"
    source = SourceConfig(role="current", path=str(tmp_path / name), lang="en", format=kind)
    [unit] = read_units({"s": list_source("s", source).files}, 1 << 16)
    [table] = read_unit(unit, {"s": source}, "prompt", 1, frozenset({0}))
    assert (table["reject"].null_count, table["lost"].null_count) == (0, 1)


# --- rows that nobody can count -----------------------------------------------------------------


def about(manifest: Manifest, sizes: dict[str, int]) -> dict[tuple[str, str], int]:
    return estimated_rows(manifest, row_counts(manifest), sizes)


def damaged(data: bytes, at: float) -> bytes:
    """Compressed data whose bytes mean nothing from some place on."""
    cut = int(len(data) * at)
    return data[:cut] + b"\xff" * (len(data) - cut)


PACKED = {"gz": gzip.compress, "bz2": bz2.compress, "zst": lambda data: pa.Codec("zstd").compress(data, asbytes=True)}


@pytest.mark.parametrize("suffix", PACKED)
def test_damage_in_a_compressed_file_weighs_the_bytes_behind_it(tmp_path: Path, suffix: str) -> None:
    """About: a decompressor has read on, by up to a block of 900 kB, when it notices."""
    (tmp_path / f"a.jsonl.{suffix}").write_bytes(damaged(PACKED[suffix](lines(60_000)), 0.5))
    manifest, sizes, shard = read(tmp_path, s=f"a.jsonl.{suffix}")
    [(message, there)] = faults(shard)
    assert message.endswith(f"; {there['bytes']:,} bytes of the file are lost")
    assert there["rows"] is None
    [(key, lost)] = about(manifest, sizes).items()
    read_rows = sum(row_counts(manifest).values()) - 1
    assert lost + read_rows == pytest.approx(60_000, rel=0.2)
    said = rf"^about \d+ of about {lost + read_rows} rows are broken .* sources\.s: about {lost} × {key[1]}"
    with pytest.raises(TooManyBadRows, match=said):
        check_usable(manifest, IngestConfig(), [], sizes)


def csv_of(rows: int, column: str) -> bytes:
    return b"".join(text.encode() + b"\n" for text in [column, *map(noise, range(rows))])


def arrow_of(rows: int, column: str) -> bytes:
    table = pa.table({column: [*map(noise, range(rows))]})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


@pytest.mark.parametrize(
    ("name", "good", "bad", "weight"),
    [
        ("csv", csv_of(1_000, "text"), csv_of(5_000, "body"), 5_000),
        ("arrow", arrow_of(1_000, "text"), arrow_of(5_000, "body"), 5_000),
        ("jsonl", lines(1_000), b"\xff\xfe" + lines(5_000), 5_000),  # in several ranges, of which the first says it
        ("jsonl", lines(1_000), lines(5_000).decode().encode("utf-16"), 10_000),  # twice the bytes a row
        ("parquet", None, b"x" * 300_000, None),
    ],
)
def test_a_file_of_which_nothing_can_be_read_weighs_its_bytes_in_rows_of_its_source(
    tmp_path: Path, name: str, good: bytes | None, bad: bytes, weight: int | None
) -> None:
    path = tmp_path / f"a.{name}"
    if good is None:
        parquet(path, 1_000)
    else:
        path.write_bytes(good)
    (tmp_path / f"b.{name}").write_bytes(bad)
    manifest, sizes, _ = read(tmp_path, s=f"*.{name}")
    [lost] = about(manifest, sizes).values()
    assert lost == pytest.approx(weight or len(bad) / path.stat().st_size * 1_000, rel=0.05)


def test_what_stands_behind_an_array_is_weighed(tmp_path: Path) -> None:
    array = json.dumps([{"text": noise(number)} for number in range(1_000)])
    (tmp_path / "a.json").write_text(array + "\n" + array + array)
    (tmp_path / "a.json.gz").write_bytes(gzip.compress((tmp_path / "a.json").read_bytes()))
    for name in ("a.json", "a.json.gz"):
        manifest, sizes, _ = read(tmp_path, s=name)
        assert about(manifest, sizes) == {("s", "broken_json"): pytest.approx(2_000, rel=0.05)}


def test_a_source_of_which_nothing_was_read_is_weighed_by_all_others(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines(1_000))
    (tmp_path / "b.jsonl").write_bytes(b"\xff\xfe" + lines(2_000))
    manifest, sizes, _ = read(tmp_path, good="a.jsonl", bad="b.jsonl")
    assert about(manifest, sizes) == {("bad", "undecodable_bytes"): pytest.approx(2_000, rel=0.01)}


def test_a_file_that_only_breaks_off_weighs_one_row_since_what_is_not_there_has_no_bytes(tmp_path: Path) -> None:
    data = gzip.compress(lines(5_000))
    (tmp_path / "a.jsonl.gz").write_bytes(data[: len(data) // 2])
    manifest, sizes, _ = read(tmp_path, s="a.jsonl.gz")
    assert about(manifest, sizes) == {("s", "truncated_file"): 1}


def test_faults_of_which_nothing_is_known_are_one_row_each() -> None:
    summary = {"rows": [["s", "corrupt_file", 2]], "lost": [["s", "corrupt_file", 2, 500]]}
    manifest = Manifest("ingest", "f", {}, {"00000": Receipt("00000", 2, 0, "", summary)})
    assert about(manifest, {"s": 500}) == {("s", "corrupt_file"): 2}
    assert about(manifest, {}) == {("s", "corrupt_file"): 2}


def test_estimates_add_to_what_was_counted_for_the_same_reason() -> None:
    """100 rows in 1,000 bytes; 50 more counted as lost, and one fault of 300 bytes, which are 45 rows."""
    rows = [["s", "document", 100], ["s", "missing_column", 51]]
    summary = {"rows": rows, "lost": [["s", "missing_column", 1, 300]]}
    manifest = Manifest("ingest", "f", {}, {"00000": Receipt("00000", 102, 0, "", summary)})
    assert about(manifest, {"s": 1_300}) == {("s", "missing_column"): 50 + 45}
    found = about(Manifest("ingest", "f", {}, {}), {"s": 1_300})
    assert found == {}
