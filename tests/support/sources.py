"""Rows written as files of every format, and what ingest makes of them."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from compass_ray.ingest.config import SourceConfig
from compass_ray.ingest.files import read_units
from compass_ray.ingest.listing import list_source
from compass_ray.ingest.stage import read_unit


def write(folder: Path, kind: str, rows: list[dict[str, Any]], types: dict[str, pa.DataType] | None = None) -> Path:
    """A file, or a folder of Markdown files, with rows that all have the same fields, ``text`` among them."""
    path = folder / f"rows.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == "parquet":
        given = types or {}
        pq.write_table(
            pa.table({name: pa.array([row[name] for row in rows], given.get(name)) for name in rows[0]}), path
        )
    elif kind == "csv":
        with path.open("w", newline="") as stream:
            writer = csv.DictWriter(stream, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.mkdir()
        for number, row in enumerate(rows):
            fields = "".join(f"{name}: {value}\n" for name, value in row.items() if name != "text")
            (path / f"{number:03}.md").write_text(f"---\n{fields}---\n{row['text']}")
    return path


def ingested(path: Path, **given: Any) -> pa.Table:
    """All rows of a source in the order of files and rows, documents before rejects in each file."""
    source = SourceConfig(**{"role": "current", "path": str(path), "lang": "en", **given})
    units = read_units({"s": list_source("s", source).files}, 4 << 20)
    tables = [table for unit in units for table in read_unit(unit, {"s": source}, "prompt", 1, frozenset({0}))]
    return pa.concat_tables(tables)
