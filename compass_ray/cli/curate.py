"""``compass-ray curate CONFIG``."""

from __future__ import annotations

from typing import Annotated

import typer

from compass_ray.cli.dry_run import dry_run_as_json, print_dry_run
from compass_ray.cli.options import Address, AsJson, ConfigPath, Overrides, with_address
from compass_ray.cli.report import print_json, print_rejected_run, print_run, run_as_json
from compass_ray.errors import TooManyBadRows
from compass_ray.interrupts import resumable

DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Say what the sources hold and what a run will take; write nothing")
]


def command(
    path: ConfigPath,
    overrides: Overrides = [],  # noqa: B006 typer copies it
    address: Address = None,
    as_json: AsJson = False,
    dry_run: DryRun = False,
) -> None:
    """Select pool documents for every target language of CONFIG."""
    from compass_ray import curate, load_config

    config = load_config(path, with_address(overrides, address))
    if dry_run:
        from compass_ray.pipelines.preflight import preflight

        found = preflight(config)
        print_json(dry_run_as_json(found)) if as_json else print_dry_run(found)
        return
    with resumable():
        try:
            run = curate(config)
        except TooManyBadRows:
            print_rejected_run(config)
            raise
        if as_json:
            print_json(run_as_json(run))
        else:
            print_run(run)
