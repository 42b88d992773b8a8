"""Adapters for people: what each was trained on, and how well it predicts usage, its mixture and other languages."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rich.table import Table

from compass_ray.cli.report import results_console
from compass_ray.languages import language_name

if TYPE_CHECKING:
    from compass_ray.pipelines.adapted import AdaptedRun
    from compass_ray.pipelines.updated import UpdatedRun

_GIB = 2**30


def adapted_as_json(run: AdaptedRun) -> dict[str, Any]:
    """Put versions, scores and failures by language into plain JSON."""
    names = ("base", "registry", "languages", "failed", "documents", "stages")
    return {"path": run.path, **{name: run.record[name] for name in names}}


def print_adapted(run: AdaptedRun) -> None:
    """Print scores, what they are of, failures and where the adapters are."""
    record = run.record
    console = results_console()
    console.print(score_table(f"Adapters on {record['base']['name']}: held-out text, base → adapter", run))
    for lang in run.languages:
        version = record["languages"][lang]["version"][:12]
        for note in _notes(record["documents"][lang], version):
            console.print(f"{lang}: {note}", markup=False, soft_wrap=True)
    for lang, reason in run.failed.items():
        console.print(f"{lang}: no adapter: {reason}", markup=False, soft_wrap=True)
    console.print(f"registry: {record['registry']}", markup=False, soft_wrap=True)


def score_table(title: str, run: AdaptedRun | UpdatedRun) -> Table:
    """Make a table of what each language's adapter scored."""
    from compass_ray.pipelines.adapted import SCORE_HEADINGS

    table = Table(title=title, title_justify="left")
    for heading in ("language", SCORE_HEADINGS[0]):
        table.add_column(heading, no_wrap=True)
    for heading in SCORE_HEADINGS[1:]:
        table.add_column(heading, justify="right", no_wrap=True)
    for lang in run.languages:
        for number, line in enumerate(run.score_lines(lang)):
            table.add_row("" if number else f"{language_name(lang)} ({lang})", *line.cells())
        table.add_section()
    return table


def _notes(counts: dict[str, Any], version: str) -> Iterator[str]:
    """Say what was trained on, and all that was left out of it or of the scores."""
    inside = counts["in_language"]["train"]
    left_out = ", ".join(f"{rows:,} × {reason}" for reason, rows in counts["dropped_reasons"].items())
    told = f"; left out: {left_out}" if left_out else ""
    yield f"version {version}, trained on {counts['train']:,} documents, {inside:,} in the language{told}"
    if unsaid := counts.get("not_in_template"):  # runs of older versions do not know
        lost = ", ".join(f"{kind} of {rows:,} documents" for kind, rows in unsaid.items())
        yield f"the chat template leaves out {lost}; a template that has them may be given as adapt.chat_template"
    if counts.get("ends_answers") is False:
        yield (
            "the chat template ends answers with no token of its own: the adapter does not learn to stop; one that "
            "has one may be given as adapt.chat_template"
        )
    if told_date := counts.get("told_date"):
        yield f"the chat template asks for today's date, and was told {told_date} (adapt.template_date)"
    usage = counts["usage"]
    tried = usage["scored"] + sum(usage["dropped_reasons"].values())
    if usage["heldout"] > tried:
        yield f"held-out usage: {tried:,} of {usage['heldout']:,} rows were drawn to be scored"
    if usage["truncated"]:
        yield f"held-out usage: {usage['truncated']:,} of {usage['scored']:,} rows were cut at adapt.max_length"
    if unsaid := usage.get("not_in_template"):
        lost = ", ".join(f"{kind} of {rows:,} rows" for kind, rows in unsaid.items())
        yield f"held-out usage: the chat template leaves out {lost}"
    for reason, rows in usage["dropped_reasons"].items():
        yield f"held-out usage: {rows:,} of {tried:,} rows could not be scored: {reason}"


def print_preflight(rows: list[dict[str, Any]]) -> None:
    """Print what a worker's memory will hold."""
    table = Table(title="Memory of one worker, predicted", title_justify="left")
    table.add_column("what")
    table.add_column("GiB", justify="right")
    for row in rows:
        table.add_row(row["what"], f"{row['bytes'] / _GIB:,.2f}")
    results_console().print(table)
