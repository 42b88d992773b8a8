"""``compass-ray status RUN``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from compass_ray.cli.options import AsJson
from compass_ray.cli.report import print_json, results_console

if TYPE_CHECKING:
    from compass_ray.pipelines.run import Status

_MIB = 2**20


def command(
    run: Annotated[
        str,
        typer.Argument(help="Folder of a run, <output>/runs/<name>, or monitor in it; local or s3://", metavar="RUN"),
    ],
    as_json: AsJson = False,
) -> None:
    """Say how far a run is, from any machine that can read its output."""
    from compass_ray.pipelines.run import status_of

    status = status_of(run)
    if as_json:
        print_json({**asdict(status), "silent_s": round(status.silent_s, 1), "seems_dead": status.seems_dead})
    else:
        _print(status)


def _print(status: Status) -> None:
    console = results_console()
    console.print(f"{status.command}: {status.state}, since {status.started}", markup=False, highlight=False)
    table = Table()
    for heading in ("stage", "shards", "rows", "seconds", "peak MiB"):
        table.add_column(heading, justify="left" if heading == "stage" else "right")
    for stage in status.stages:
        seconds = "reused" if stage["reused"] else f"{stage['seconds']:,.1f}"
        table.add_row(stage["stage"], "all", f"{stage['rows']:,}", seconds, f"{stage['peak_bytes'] / _MIB:,.0f}")
    if status.current:
        table.add_row(status.current.stage, f"{status.current.done:,} of {status.current.total:,}", "", "", "")
    console.print(table)
    if status.error:
        console.print(f"{status.error}", markup=False, soft_wrap=True)
    if status.seems_dead:
        told = f"no sign of life for {status.silent_s:,.0f} s"
        where = f"process {status.pid} on {status.host}"
        console.print(f"{told} from {where}; run the same command again to go on where it stopped", markup=False)
