"""``compass-ray doctor [CONFIG]``."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from compass_ray.cli.options import Address, AsJson, Overrides
from compass_ray.cli.report import print_json, results_console
from compass_ray.errors import ClusterError

if TYPE_CHECKING:
    from compass_ray.pipelines.doctor import Check

_STYLES = {"good": "green", "warning": "yellow", "failed": "red"}


def command(
    config: Annotated[str | None, typer.Argument(help="YAML config, local or s3://, or inline JSON")] = None,
    overrides: Overrides = [],  # noqa: B006 typer copies it
    address: Address = None,
    as_json: AsJson = False,
) -> None:
    """Check packages, token auth, cluster and encoder, and with CONFIG its files. Exits with 4 if a check failed."""
    from compass_ray.pipelines.doctor import doctor

    checks = doctor(config, overrides, address)
    if as_json:
        print_json([asdict(check) for check in checks])
    else:
        _print(checks)
    if any(check.state == "failed" for check in checks):
        raise typer.Exit(ClusterError.exit_code)


def _print(checks: list[Check]) -> None:
    table = Table(show_lines=True)
    table.add_column("check", no_wrap=True)
    table.add_column("state", no_wrap=True)
    table.add_column("found", overflow="fold")
    table.add_column("what to do", overflow="fold")
    for check in checks:
        table.add_row(
            check.name, f"[{_STYLES[check.state]}]{check.state}[/]", escape(check.found), escape(check.advice)
        )
    results_console(highlight=False).print(table)
