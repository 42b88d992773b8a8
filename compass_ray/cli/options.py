"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

ConfigPath = Annotated[str, typer.Argument(help="YAML config, local or s3://, or inline JSON", metavar="CONFIG")]
Overrides = Annotated[list[str], typer.Option("--set", help="Override a field: a.b=value", metavar="FIELD=VALUE")]
Address = Annotated[str | None, typer.Option("--address", help="Ray cluster to join")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as JSON")]


def with_address(overrides: list[str], address: str | None) -> list[str]:
    """Add ``--address`` to the overrides as one more of them."""
    return overrides if address is None else [*overrides, f"ray.address={address}"]
