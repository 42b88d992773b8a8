"""``compass-ray curate CONFIG``."""

from __future__ import annotations

from compass_ray.cli.options import Address, AsJson, ConfigPath, Overrides, resumable, with_address
from compass_ray.cli.report import print_run


def command(path: ConfigPath, overrides: Overrides = [], address: Address = None, as_json: AsJson = False) -> None:  # noqa: B006 typer copies it
    """Select pool documents for every target language of CONFIG."""
    from compass_ray import curate, load_config

    config = load_config(path, with_address(overrides, address))
    with resumable():
        print_run(curate(config), as_json=as_json)
