"""What a dry run of ``curate`` prints: sources, their first documents, and what each stage will take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from compass_ray.cli.report import dialect_line, results_console
from compass_ray.languages import language_name

if TYPE_CHECKING:
    from compass_ray.pipelines.preflight import Preflight, Survey

_FIRST = 5
_LANGUAGES_SHOWN = 10
_TEXT_SHOWN = 60
_MIB = 2**20
_GIB = 2**30


def dry_run_as_json(found: Preflight) -> dict[str, Any]:
    """Put all that :func:`print_dry_run` shows into plain JSON."""
    return {
        "shards": found.n_shards,
        "cpus": found.cpus,
        "sources": [_as_json(one) for one in found.surveys],
        "evaluations": [
            {
                "evaluation": one.name,
                "files": len(one.files),
                "first_file": dict(one.counts),
                "left_out": [asdict(left) for left in one.listing.left_out],
                "said": one.listing.said,
            }
            for one in found.evaluations
        ],
        "near_languages": found.near,
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
    console.print(_language_table(found.surveys))
    for one in found.surveys:
        for line in one.said:
            console.print(f"{one.source}: {line}", markup=False, soft_wrap=True)
        for note, count in one.notes.items():
            console.print(f"{one.source}: {count:,} of the documents looked at: {note}", markup=False, soft_wrap=True)
        for layout, of in one.dialects.items():
            console.print(dialect_line(one.source, layout, of["files"], of["first"]), markup=False, soft_wrap=True)
    for lang, others in found.near.items():
        console.print(
            f"{language_name(lang)} ({lang}): usage asks for it and the pool has none, only {', '.join(others)}; if "
            "that is meant, say so in lang_map or lang of the source",
            markup=False,
            soft_wrap=True,
        )
    for looked in found.evaluations:
        counts = looked.counts
        files = f"{len(looked.files):,} file{'' if len(looked.files) == 1 else 's'}"
        console.print(
            f"evaluation {looked.name}: {files}, the first: {counts['texts']:,} texts, {counts['too_short']:,} too "
            f"short, {counts['blank']:,} blank rows; {counts['ngrams']:,} n-grams",
            markup=False,
            soft_wrap=True,
        )
        for line in looked.listing.said:
            console.print(f"evaluation {looked.name}: {line}", markup=False, soft_wrap=True)
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


def _language_table(surveys: Sequence[Survey]) -> Table:
    """Tabulate the documents to expect by source and language.

    This is before duplicates are found; the smallest languages stand together.
    """
    table = Table(title="Documents by language, about, copies not yet found", title_justify="left")
    table.add_column("source")
    table.add_column("language")
    table.add_column("documents", justify="right")
    for one in surveys:
        ranked = list(one.languages.items())
        for number, (lang, documents) in enumerate(ranked[:_LANGUAGES_SHOWN]):
            table.add_row("" if number else escape(one.source), f"{language_name(lang)} ({lang})", f"{documents:,}")
        if rest := ranked[_LANGUAGES_SHOWN:]:
            table.add_row("", f"{len(rest)} others", f"{sum(count for _, count in rest):,}")
    return table


def _as_json(one: Survey) -> dict[str, Any]:
    first = one.first(_FIRST).select(["uri", "row", "lang", "target_lang", "text"]).to_pylist()
    return {
        "source": one.source,
        "files": len(one.files),
        "bytes": sum(file.size for file in one.files),
        "rows": one.rows,
        "counted": one.counted,
        "documents": one.documents,
        "languages": one.languages,
        "left_out": [asdict(left) for left in one.listing.left_out],
        "said": one.said,
        "outcomes": one.outcomes,
        "notes": one.notes,
        "dialects": dict(one.dialects),
        "first": first,
    }
