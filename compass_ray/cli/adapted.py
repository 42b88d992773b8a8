"""Adapters for people: what each language was trained on, and how well it predicts held-out text, before and after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.table import Table

from compass_ray.cli.report import results_console
from compass_ray.languages import language_name

if TYPE_CHECKING:
    from compass_ray.pipelines.adapted import AdaptedRun

_GIB = 2**30


def adapted_as_json(run: AdaptedRun) -> dict[str, Any]:
    """Versions, scores and failures by language, as plain JSON."""
    names = ("base", "registry", "languages", "failed", "documents", "stages")
    return {"path": run.path, **{name: run.record[name] for name in names}}


def print_adapted(run: AdaptedRun) -> None:
    """Print scores, failures and where the adapters are."""
    record = run.record
    console = results_console()
    table = Table(title=f"Adapters on {record['base']['name']}: held-out text", title_justify="left")
    table.add_column("language", no_wrap=True)
    for heading in ("trained on", "perplexity", "bits per byte", "change", "other languages", "version"):
        table.add_column(heading, justify="right", no_wrap=True)
    for lang in run.languages:
        rows = {row["lang"]: row for row in run.scores(lang).to_pylist()}
        table.add_row(
            f"{language_name(lang)} ({lang})",
            f"{record['languages'][lang]['documents']['train']:,}",
            *_before_and_after(rows.get(lang)),
            _interference(rows, lang),
            record["languages"][lang]["version"][:12],
        )
    console.print(table)
    for lang, reason in run.failed.items():
        console.print(f"{lang}: no adapter: {reason}", markup=False, soft_wrap=True)
    console.print(f"registry: {record['registry']}", markup=False, soft_wrap=True)


def _before_and_after(row: dict[str, Any] | None) -> tuple[str, str, str]:
    if row is None:
        return "–", "–", "–"
    change = row["bits_per_byte"] / row["base_bits_per_byte"] - 1
    return (
        f"{row['base_perplexity']:,.1f} → {row['perplexity']:,.1f}",
        f"{row['base_bits_per_byte']:.3f} → {row['bits_per_byte']:.3f}",
        f"{change:+.1%}",
    )


def _interference(rows: dict[str, dict[str, Any]], lang: str) -> str:
    """Mean change of the bits per byte of all other languages."""
    changes = [row["bits_per_byte"] / row["base_bits_per_byte"] - 1 for other, row in rows.items() if other != lang]
    return f"{sum(changes) / len(changes):+.1%}" if changes else "–"


def print_preflight(rows: list[dict[str, Any]]) -> None:
    """Print what a worker's memory will hold."""
    table = Table(title="Memory of one worker, predicted", title_justify="left")
    table.add_column("what")
    table.add_column("GiB", justify="right")
    for row in rows:
        table.add_row(row["what"], f"{row['bytes'] / _GIB:,.2f}")
    results_console().print(table)
