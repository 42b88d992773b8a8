"""How the delimited files of a source are read: what was told from each, to be said of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from compass_ray.artifacts import Artifact, Receipt, artifact
from compass_ray.ingest.config import Limits, SourceConfig
from compass_ray.ingest.files import InputFile
from compass_ray.ingest.formats import is_delimited
from compass_ray.ingest.readers import Unreadable
from compass_ray.ingest.readers.delimited import layout_of
from compass_ray.runtime.stage import Session, map_keys

VERSION = 1
_AT_ONCE = 16
_LAYOUTS = pa.schema([("layout", pa.string()), ("files", pa.int64()), ("first", pa.string())])


@dataclass(frozen=True)
class Layouts:
    """The delimited files of a run by source, and the artifact of how they are read, one key per source."""

    files: Mapping[str, list[InputFile]]
    columns: Mapping[str, list[str]]
    artifact: Artifact

    @property
    def counts(self) -> dict[str, dict[str, dict[str, Any]]]:
        """By source, what :func:`layouts` says of it."""
        tables = {source: self.artifact.read(source) for source in sorted(self.files)}
        return {source: {row.pop("layout"): row for row in table.to_pylist()} for source, table in tables.items()}


def plan_layouts(
    sources: Mapping[str, SourceConfig], files: Mapping[str, list[InputFile]], output: str
) -> Layouts | None:
    """Name what will be looked at; no file is read. None without delimited files."""
    delimited = {name: [file for file in members if is_delimited(file.format)] for name, members in files.items()}
    delimited = {name: members for name, members in delimited.items() if members}
    columns = {name: sources[name].wanted_columns for name in delimited}
    described = {
        name: [columns[name], [[file.uri, file.format, file.content, *file.dialect] for file in members]]
        for name, members in delimited.items()
    }
    body = {"version": VERSION, "sources": described}
    return Layouts(delimited, columns, artifact(output, "layouts", body)) if delimited else None


def find_layouts(plan: Layouts, session: Session) -> None:
    """Write how each delimited file is read. Cost: see :func:`layouts`."""
    session.complete(plan.artifact, sorted(plan.files), lambda missing: map_keys(_write_layouts, missing, plan))


def _write_layouts(source: str, plan: Layouts) -> Receipt:
    told = layouts(plan.files[source], plan.columns[source])
    return plan.artifact.write(
        source, pa.Table.from_pylist([{"layout": name, **of} for name, of in told.items()], _LAYOUTS)
    )


def layouts(files: Sequence[InputFile], columns: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Count the delimited files of each layout.

    By layout in words come how many files have it, and the uri of the ``first``. Files of other formats are passed
    over, and those that cannot be read, which are rejects of the run. Cost: each is opened, and its first 4 MiB are
    read.
    """
    delimited = [file for file in files if is_delimited(file.format)]
    found: dict[str, dict[str, Any]] = {}
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        told = pool.map(lambda file: _layout(file, columns), delimited)
        for file, layout in zip(delimited, told, strict=True):
            if layout is not None:
                found.setdefault(layout, {"files": 0, "first": file.uri})["files"] += 1
    return found


def _layout(file: InputFile, columns: Sequence[str]) -> str | None:
    try:
        return str(layout_of(file, columns, Limits()))
    except Unreadable:
        return None
