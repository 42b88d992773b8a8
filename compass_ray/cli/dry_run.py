"""What a dry run of ``curate`` prints: sources, their first documents, and what each stage will take."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.table import Table

from compass_ray.cli.report import dialect_line, results_console

if TYPE_CHECKING:
    from compass_ray.pipelines.preflight import Preflight, Survey

_FIRST = 5
_TEXT_SHOWN = 60
_MIB = 2**20
_GIB = 2**30


def dry_run_as_json(found: Preflight) -> dict[str, Any]:
    """All that :func:`print_dry_run` shows, as plain JSON."""
    return {
        "shards": found.n_shards,
        "cpus": found.cpus,
        "sources": [_as_json(one) for one in found.surveys],
        "evaluations": [
            {"evaluation": one.name, "files": len(one.files), "first_file": dict(one.counts)}
            for one in found.evaluations
        ],
        "stages": [asdict(stage) for stage in found.stages],
        "seconds": found.seconds,
        "peak_bytes": found.peak_bytes,
    }


def print_dry_run(found: Preflight) -> None:
    """Print tables of sources and stages, and the first documents of each source as they will be ingested."""
    console = results_console()
    table = Table(title=f"Sources, into {found.n_shards:,} shards", title_justify="left")
    table.add_column("source")
    for heading in ("files", "MiB", "rows", "documents"):
        table.add_column(heading, justify="right")
    table.add_column("of the rows looked at")
    for one in found.surveys:
        size = sum(file.size for file in one.files) / _MIB
        rows = f"{one.rows:,}" if one.counted else f"about {one.rows:,}"
        outcomes = ", ".join(f"{count:,} {outcome}" for outcome, count in one.outcomes.items())
        table.add_row(one.source, f"{len(one.files):,}", f"{size:,.1f}", rows, f"{one.documents:,}", outcomes)
    console.print(table)
    for one in found.surveys:
        for note, count in one.notes.items():
            console.print(f"{one.source}: {count:,} of the documents looked at: {note}", markup=False)
        for layout, uris in one.dialects.items():
            console.print(dialect_line(one.source, layout, len(uris), uris[0]), markup=False)
    for looked in found.evaluations:
        counts = looked.counts
        console.print(
            f"evaluation {looked.name}: {len(looked.files):,} file{'' if len(looked.files) == 1 else 's'}, the first: "
            f"{counts['texts']:,} texts, {counts['too_short']:,} too short; {counts['ngrams']:,} n-grams",
            markup=False,
        )
    table = Table(title=f"A first run on {found.cpus} CPUs like this machine's, about", title_justify="left")
    for heading in ("stage", "seconds", "memory, at most"):
        table.add_column(heading, justify="left" if heading == "stage" else "right")
    for stage in found.stages:
        table.add_row(stage.stage, f"{stage.seconds:,.0f}", f"{stage.peak_bytes / _GIB:,.1f} GiB")
    table.add_section()
    table.add_row("all", f"{found.seconds:,.0f}", f"{found.peak_bytes / _GIB:,.1f} GiB")
    console.print(table)
    for one in found.surveys:
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
        "notes": one.notes,
        "dialects": {layout: {"files": len(uris), "first": uris[0]} for layout, uris in one.dialects.items()},
        "first": first,
    }
