"""What a dry run of ``curate`` prints: sources with the rows expected of them, and their first documents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from compass_ray.cli.report import results_console

if TYPE_CHECKING:
    from compass_ray.pipelines.preflight import Survey

_FIRST = 5
_TEXT_SHOWN = 60
_MIB = 2**20


def dry_run_as_json(surveys: Sequence[Survey], n_shards: int) -> dict[str, Any]:
    """All that :func:`print_dry_run` shows, as plain JSON."""
    return {"shards": n_shards, "sources": [_as_json(one) for one in surveys]}


def print_dry_run(surveys: Sequence[Survey], n_shards: int) -> None:
    """Print a table of sources, and the first documents of each as they will be ingested."""
    console = results_console()
    table = Table(title=f"Sources, into {n_shards:,} shards", title_justify="left")
    table.add_column("source")
    for heading in ("files", "MiB", "rows", "documents"):
        table.add_column(heading, justify="right")
    table.add_column("of the rows looked at")
    for one in surveys:
        size = sum(file.size for file in one.files) / _MIB
        rows = f"{one.rows:,}" if one.counted else f"about {one.rows:,}"
        outcomes = ", ".join(f"{count:,} {outcome}" for outcome, count in one.outcomes.items())
        table.add_row(one.source, f"{len(one.files):,}", f"{size:,.1f}", rows, f"{one.documents:,}", outcomes)
    console.print(table)
    for one in surveys:
        for row in one.first(_FIRST).select(["uri", "row", "lang", "text"]).to_pylist():
            text = " ".join(row["text"].split())[:_TEXT_SHOWN]
            console.print(f"{one.source}: {row['uri']}:{row['row']} {row['lang']} {text}", markup=False)


def _as_json(one: Survey) -> dict[str, Any]:
    first = one.first(_FIRST).select(["uri", "row", "lang", "owner", "text"]).to_pylist()
    return {
        "source": one.source,
        "files": len(one.files),
        "bytes": sum(file.size for file in one.files),
        "rows": one.rows,
        "counted": one.counted,
        "documents": one.documents,
        "outcomes": one.outcomes,
        "first": first,
    }
