"""``compass-ray adapt CONFIG``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from compass_ray.cli.adapted import adapted_as_json, print_adapted, print_preflight
from compass_ray.cli.options import Address, AsJson, ConfigPath, Overrides, with_address
from compass_ray.cli.report import print_json
from compass_ray.interrupts import resumable

if TYPE_CHECKING:
    from compass_ray import AdaptedRun

DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what memory a worker needs; read no data, train nothing")]


def command(
    path: ConfigPath,
    overrides: Overrides = [],  # noqa: B006 typer copies it
    address: Address = None,
    as_json: AsJson = False,
    dry_run: DryRun = False,
) -> None:
    """Train and register one adapter for each language of CONFIG, on its selection or its current data."""
    from compass_ray import load_config, train_adapters
    from compass_ray.errors import AdaptationError
    from compass_ray.pipelines.adapt import adapted_run, preflight

    config = load_config(path, with_address(overrides, address))
    if dry_run:
        rows = preflight(config)
        print_json(rows) if as_json else print_preflight(rows)
        return
    with resumable():
        try:
            show(train_adapters(config), as_json=as_json)
        except AdaptationError:
            if (run := adapted_run(config)).exists():
                show(run, as_json=as_json)  # the languages that are done all the same
            raise


def show(run: AdaptedRun, *, as_json: bool) -> None:
    """Print a run's adapters for people or programs."""
    if as_json:
        print_json(adapted_as_json(run))
    else:
        print_adapted(run)
