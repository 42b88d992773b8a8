"""``compass-ray curate CONFIG``."""

from __future__ import annotations

from compass_ray.cli.options import Address, AsJson, ConfigPath, Overrides, with_address
from compass_ray.cli.report import print_json, print_run, run_as_json
from compass_ray.interrupts import resumable


def command(path: ConfigPath, overrides: Overrides = [], address: Address = None, as_json: AsJson = False) -> None:  # noqa: B006 typer copies it
    """Select pool documents for every target language of CONFIG."""
    from compass_ray import curate, load_config

    config = load_config(path, with_address(overrides, address))
    with resumable():
        run = curate(config)
        if as_json:
            print_json(run_as_json(run))
        else:
            print_run(run)
