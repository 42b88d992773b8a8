"""``compass-ray gate CONFIG``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from compass_ray.cli.options import Address, AsJson, ConfigPath, Overrides, with_address
from compass_ray.cli.report import print_json, results_console
from compass_ray.interrupts import resumable
from compass_ray.languages import language_name

if TYPE_CHECKING:
    from compass_ray.pipelines.gated import GatedRun

_CLUSTERS_SHOWN = 8

Promote = Annotated[
    bool, typer.Option("--promote/--no-promote", help="Make candidates that pass champions; or measure alone, exit 0")
]


def command(
    path: ConfigPath,
    overrides: Overrides = [],  # noqa: B006 typer copies it
    address: Address = None,
    as_json: AsJson = False,
    promote: Promote = True,
) -> None:
    """Compare candidates with champions on held-out text; promote those that pass, exit with 6 if one does not."""
    from compass_ray import gate_candidates, load_config
    from compass_ray.errors import GateRefused
    from compass_ray.pipelines.gate import gated_run

    config = load_config(path, with_address(overrides, address))
    with resumable():
        try:
            show(gate_candidates(config, promote=promote), as_json=as_json)
        except GateRefused:
            show(gated_run(config), as_json=as_json)
            raise


def show(run: GatedRun, *, as_json: bool) -> None:
    """Print what a gate found for people or programs."""
    if as_json:
        names = ("languages", "not_compared", "failed", "gate", "registry", "base")
        print_json({"path": run.path, **{name: run.record[name] for name in names}})
    else:
        print_gated(run)


def print_gated(run: GatedRun) -> None:
    """Print every line of every verdict, and clusters of former usage."""
    console = results_console()
    for lang, outcome in run.outcomes.items():
        body = run.verdict(lang)
        where = f"candidate {body['candidate'][:12]} against champion {body['champion'][:12]}"
        console.print(f"{language_name(lang)} ({lang}): {outcome}: {where}", markup=False, soft_wrap=True)
        for line in body["lines"]:
            console.print(f"  {line['outcome'] or 'not tested'}: {line['text']}", markup=False, soft_wrap=True)
        _print_clusters(body["clusters"], console)
        if body["promoted"]:
            console.print("  the candidate is champion now (compass-ray registry rollback takes it back)", markup=False)
    for lang, why in run.record["failed"].items():
        console.print(f"{lang}: not compared: {why}", markup=False, soft_wrap=True)
    for lang, why in run.not_compared.items():
        console.print(f"{lang}: not compared: {why}", markup=False, soft_wrap=True)
    if not run.outcomes:
        console.print("nothing was compared", markup=False)
    console.print(f"gate: {run.path}", markup=False, soft_wrap=True)


def _print_clusters(clusters: list[dict[str, Any]], console: Console) -> None:
    if not clusters:
        return
    table = Table(title="Former usage by cluster, bits a byte gained", title_justify="left")
    for heading in ("cluster", "documents", "gain", "worse than the margin"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in sorted(clusters, key=lambda row: row["mean"])[:_CLUSTERS_SHOWN]:
        worse = "too few to test" if row["comparison"] is None else "yes" if row["worse"] else "no"
        table.add_row(f"{row['cluster']}", f"{row['documents']:,}", f"{row['mean']:+.3f}", worse)
    console.print(table)
    if (more := len(clusters) - _CLUSTERS_SHOWN) > 0:
        console.print(f"  and {more} clusters more, which gained more", markup=False)
