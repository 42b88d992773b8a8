"""``compass-ray cache list|prune``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from compass_ray.cli.options import AsJson
from compass_ray.cli.report import print_json, results_console

if TYPE_CHECKING:
    from compass_ray.pipelines.cache import Cached

app = typer.Typer(help="What the stages of all runs have left, and what of it nobody needs.", no_args_is_help=True)

Output = Annotated[str, typer.Argument(help="Folder of runs and cache (`output` of a config)", metavar="OUTPUT")]

_HOUR_S = 3600
_MIB = 2**20


@app.command("list")
def list_(output: Output, as_json: AsJson = False) -> None:
    """List artifacts with their size and the runs that use them."""
    from compass_ray.pipelines.cache import list_cached

    _print(list_cached(output), as_json)


@app.command()
def prune(
    output: Output,
    older_than: Annotated[float, typer.Option(help="Hours without a change; younger ones may be in the making")] = 24,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would go, and delete nothing")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete artifacts that no run uses. A run whose folder is deleted no longer uses any."""
    from compass_ray.pipelines.cache import list_cached, remove, unused

    going = unused(list_cached(output), older_than * _HOUR_S)
    if not dry_run:
        for artifact in going:
            remove(artifact)
    _print(going, as_json)
    freed = sum(artifact.bytes for artifact in going) / _MIB
    typer.echo(f"{'would delete' if dry_run else 'deleted'} {len(going)} artifacts, {freed:,.1f} MiB", err=True)


def _print(artifacts: Sequence[Cached], as_json: bool) -> None:
    if as_json:
        print_json([_as_json(artifact) for artifact in artifacts])
        return
    table = Table()
    table.add_column("artifact", no_wrap=True)
    for heading in ("MiB", "files"):
        table.add_column(heading, justify="right")
    for heading in ("state", "changed", "runs"):
        table.add_column(heading)
    for artifact in artifacts:
        table.add_row(
            artifact.name,
            f"{artifact.bytes / _MIB:,.1f}",
            f"{artifact.files:,}",
            "whole" if artifact.complete else "unfinished",
            f"{artifact.changed:%Y-%m-%d %H:%M}",
            ", ".join(artifact.runs) or "none",
        )
    results_console().print(table)


def _as_json(artifact: Cached) -> dict[str, Any]:
    return {
        "artifact": artifact.name,
        "bytes": artifact.bytes,
        "files": artifact.files,
        "complete": artifact.complete,
        "changed": artifact.changed.isoformat(timespec="seconds"),
        "runs": list(artifact.runs),
    }
